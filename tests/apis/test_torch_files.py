"""A .pt2 of torch.export through the tools behind an export."""

import re

import numpy as np
import pytest
import torch
from networks import TINY
from PIL import Image

import effseg
from effseg import deploy
from effseg.apis.opening import open_segmenter
from effseg.benchmark.measure import normalised

pytestmark = pytest.mark.medium
SIZE = (64, 96)


@pytest.fixture(scope='module')
def path(checkpoint, scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp('torch') / 'model.pt2'
    effseg.export(TINY, str(checkpoint), 'torch', size=SIZE, path=str(path))
    return path


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_is_predicted(path, checkpoint, scenes, tool, tmp_path):
    photo = tmp_path / 'photo.png'  # of the file's size, so that no fit changes it
    Image.open(scenes / 'images' / 'val' / '0000.jpg').convert('RGB').resize(SIZE[::-1]).save(photo)
    outcome = tool('predict', TINY, path, photo, '--out-dir', tmp_path / 'out')
    assert outcome.status == 0, outcome
    model = open_segmenter(TINY, str(checkpoint), device='cpu').trained
    with torch.inference_mode():
        (expected,) = effseg.fuse(model, SIZE)(normalised(model, pixels(photo), SIZE)).numpy()
    assert (pixels(tmp_path / 'out' / 'photo_labels.png') == expected).mean() > 0.999


def test_is_scored(path, scenes, tool, tmp_path):
    outcome = tool('test', TINY, path, '--work-dir', tmp_path)
    assert outcome.status == 0, outcome
    artifact, right, known = deploy.load(path), 0, 0
    for photo in sorted((scenes / 'images' / 'val').iterdir()):
        mask = pixels(scenes / 'annotations' / 'val' / f'{photo.stem}.png')
        labels = artifact.labels(np.asarray(Image.open(photo).convert('RGB')))
        right, known = right + int((labels == mask)[mask != 255].sum()), known + int((mask != 255).sum())
    assert float(re.search(r'aAcc ([\d.]+)', outcome.out)[1]) == pytest.approx(100 * right / known, abs=0.02)


def test_is_reported(path, checkpoint, tool, tmp_path):
    outcome = tool('report', TINY, checkpoint, path, '--out', tmp_path)
    assert outcome.status == 0, outcome
    (page,) = tmp_path.glob('*.html')
    assert 'model.pt2' in page.read_text()
