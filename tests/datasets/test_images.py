"""Hostile images: the label map of what a person sees, or one error with the file's name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import ROOT, TINY
from PIL import Image

from effseg.datasets.check.pair import Rules, check_pair
from effseg.datasets.images import read_image
from effseg.datasets.orientation import TAG, TURN
from effseg.datasets.transforms import LoadLabelMap, OnWhiteBackend
from effseg.errors import DataError

COLORS = np.zeros((6, 10, 3), np.uint8)
COLORS[:3, :4] = (200, 30, 60)
COLORS[3:, 6:] = (10, 90, 220)
INVERSE = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def written(tmp_path, image, name='a.png', **options) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'CMYK'])
def test_colors_survive_every_mode(tmp_path, mode):
    image = Image.fromarray(COLORS)
    image = image.quantize(3) if mode == 'P' else image.convert(mode)
    seen = read_image(written(tmp_path, image, 'a.tif' if mode == 'CMYK' else 'a.png'))
    assert np.abs(seen.astype(int) - COLORS).max() <= 1


@pytest.mark.parametrize('pixels', [COLORS[..., 0], COLORS[..., 0].astype(np.uint16) * 257])
def test_grey_of_8_and_16_bits_is_grey(tmp_path, pixels):
    seen = read_image(written(tmp_path, Image.fromarray(pixels)))
    assert (seen == COLORS[..., :1]).all() and seen.shape == COLORS.shape


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.dstack([COLORS, np.full((6, 10), 255, np.uint8)])
    pixels[0, 0, 3] = 0
    seen = read_image(written(tmp_path, Image.fromarray(pixels)))
    assert (seen[0, 0] == 255).all() and (seen[1:] == COLORS[1:]).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_turns_the_image(tmp_path, orientation):
    stored = Image.fromarray(COLORS)
    if orientation in TURN:
        stored = stored.transpose(TURN[INVERSE[orientation]])
    exif = Image.Exif()
    exif[TAG] = orientation
    assert (read_image(written(tmp_path, stored, exif=exif)) == COLORS).all()


def test_the_first_frame_of_a_moving_image(tmp_path):
    frames = [Image.fromarray(COLORS), Image.fromarray(255 - COLORS)]
    assert (
        read_image(written(tmp_path, frames[0], 'a.webp', save_all=True, append_images=frames[1:], lossless=True))
        == COLORS
    ).all()


@pytest.mark.parametrize(
    'name, content', [('empty.png', b''), ('text.jpg', b'<html>'), ('cut.png', None), ('float.tiff', None)]
)
def test_what_is_no_whole_image_is_named(tmp_path, name, content):
    path = tmp_path / name
    if name == 'cut.png':
        noise = np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8)
        content = written(tmp_path, Image.fromarray(noise), 'whole.png').read_bytes()[:3000]
    if content is None:
        Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_image(path)


POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n%%EOF\n'


@pytest.fixture
def disguised(tmp_path) -> dict[str, Path]:
    """Files that Pillow opens, or would, under names of usual images."""
    files = {name: tmp_path / f'{name}.jpg' for name in ('eps', 'pcx', 'tga', 'bomb', 'pipe')}
    files['eps'].write_bytes(POSTSCRIPT)
    for name in ('pcx', 'tga'):
        Image.fromarray(COLORS).save(files[name], name)
    Image.new('1', (12000, 12000)).save(files['bomb'], 'PNG')
    os.mkfifo(files['pipe'])
    return files


def test_formats_that_start_programs_or_fill_the_memory_are_not_opened(disguised, tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', None)
    monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', None)
    label_map = written(tmp_path, Image.new('L', (10, 6)))
    for name, path in disguised.items():
        for load in (
            read_image,
            lambda path: OnWhiteBackend().get(str(path)),
            lambda path: LoadLabelMap().transform(dict(seg_map_path=str(path), seg_fields=[])),
        ):
            with pytest.raises(DataError, match=f'{name}.jpg'):
                load(path)
        found = check_pair(str(path), str(label_map), Rules(classes=('a',))).findings
        assert [finding.severity for finding in found][:1] == ['error'], (name, found)


def test_only_one_function_opens_images():
    for path in (ROOT / 'effseg').rglob('*.py'):
        for call in path.read_text().split('Image.open(')[1:]:
            assert 'formats=' in call.splitlines()[0], path


def test_the_rest_of_a_folder_is_done_and_the_failures_are_listed(tool, checkpoint, tmp_path):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    for name, size in (('pixel', (1, 1)), ('strip', (1, 700)), ('fine', (30, 40))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / f'{name}.png')
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.jpg').write_text('no')
    outcome = tool('predict', TINY, checkpoint, folder, '--out-dir', out)
    line = outcome.err.strip().splitlines()[-1]
    assert (
        outcome.status == 2
        and line.startswith('error: ')
        and 'empty.png' in line
        and 'text.jpg' in line
        and '3 others' in line
    )
    for name, size in (('pixel', (1, 1)), ('strip', (1, 700)), ('fine', (30, 40))):
        assert np.asarray(Image.open(out / f'{name}_labels.png')).shape == size
    assert len(json.loads((out / 'shares.json').read_text())) == 3


# the windows of an image take as much with any weights; 150 classes are those of ADE20K
LARGE = """
_base_ = ['effseg::fpn_effformer_l1_ade20k.py']
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='ResizeToMultiple', size_divisor=32),
dict(type='PackSegInputs')]
"""


@pytest.mark.slow
@pytest.mark.parametrize('options', [[], ['--fused']], ids=['trained', 'fused'])
def test_8000_by_6000_takes_less_than_4_gb(scenes, tmp_path, options):
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from effseg.engine.config import load_config

    (tmp_path / 'large.py').write_text(LARGE)
    init_default_scope('mmseg')
    torch.save(
        {'state_dict': MODELS.build(load_config(str(tmp_path / 'large.py')).model).state_dict()}, tmp_path / 'l1.pth'
    )
    Image.open(scenes / 'images/val/0000.jpg').resize((8000, 6000)).save(tmp_path / 'large.jpg')
    command = [
        sys.executable,
        '-c',
        PEAK,
        str(ROOT / 'tools/predict.py'),
        str(tmp_path / 'large.py'),
        str(tmp_path / 'l1.pth'),
        str(tmp_path / 'large.jpg'),
        '--out-dir',
        str(tmp_path / 'out'),
        *options,
    ]
    run = subprocess.run(command, check=True, timeout=1800, capture_output=True, text=True)
    peak = float(run.stdout.split()[-1])
    print(f'8000 x 6000, L1, 150 classes, {options}: {peak:.2f} GB')
    assert peak < 4
    assert Image.open(tmp_path / 'out/large_labels.png').size == (8000, 6000)


PEAK = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20)
"""
