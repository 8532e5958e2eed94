"""Every draw is the same whoever makes it, a bad sample has a name, and an image and its label map lie over each
other."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from networks import TINY
from PIL import Image

from effseg.engine.config import load_config
from effseg.engine.datasets import GuardedDataset
from effseg.engine.protect import protect
from effseg.engine.samplers import Draw, SeededSampler, seeded
from effseg.errors import DataError

IMAGE, LABEL = 'images/train/0001.jpg', 'annotations/train/0001.png'


@pytest.fixture
def root(scenes, tmp_path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / 'data'))


def dataset(root, skip_bad=0, pipeline=None, **options) -> GuardedDataset:
    init_default_scope('mmseg')
    cfg = load_config(TINY, {'data_root': str(root), **options})
    if pipeline:
        cfg.train_dataloader.dataset.pipeline = pipeline
    return DATASETS.build({**protect(cfg).train_dataloader.dataset, 'skip_bad': skip_bad})


def test_a_draw_depends_on_its_seed_alone(root):
    data = dataset(root)
    first = data[Draw(1, 5)]['inputs']
    np.random.rand(7)
    assert torch.equal(first, data[Draw(1, 5)]['inputs'])
    assert not torch.equal(first, data[Draw(1, 6)]['inputs'])


def test_a_draw_leaves_the_random_numbers_outside_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    with seeded(3):
        torch.rand(5), np.random.rand(5)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize('consumed', [0, 1, 7, 23])
def test_skipping_goes_where_the_run_was_without_loading(consumed):
    def endless():
        return SeededSampler(range(6), 'InfiniteSampler', seed=4)

    whole = iter(endless())
    draws = [next(whole) for _ in range(40)]
    resumed = endless()
    resumed.skip(consumed)
    again = iter(resumed)
    for draw in draws[consumed:]:
        other = next(again)
        assert (int(other), other.seed) == (int(draw), draw.seed)
    assert len({draw.seed for draw in draws}) == 40


@pytest.mark.parametrize(
    'file, content', [(IMAGE, b''), (IMAGE, b'no image'), (LABEL, b''), (LABEL, b'\x89PNG\r\n\x1a\n')]
)
def test_a_file_that_cannot_be_read_is_named(root, file, content):
    (root / file).write_bytes(content)
    with pytest.raises(DataError, match='0001'):
        dataset(root)[1]


@pytest.mark.parametrize(
    'corrupt, word',
    [
        (lambda labels: labels.T.copy(), 'must be of one size'),
        (lambda labels: np.where(labels < 8, 200, labels).astype(np.uint8), '200'),
        (lambda labels: np.stack([labels] * 3, -1), 'RGB'),
        (lambda labels: labels.astype(np.uint16) + 256, '8-bit'),
    ],
)
def test_a_label_map_that_does_not_fit_is_named(root, corrupt, word):
    Image.fromarray(corrupt(np.array(Image.open(root / LABEL)))).save(root / LABEL)
    with pytest.raises(DataError, match=f'(?s)0001.*{word}'):
        dataset(root)[1]


def test_a_few_bad_samples_may_be_skipped_and_one_more_stops(root, capsys):
    data = dataset(root, skip_bad=2)
    for number in (1, 3):
        (root / f'images/train/000{number}.jpg').write_bytes(b'')
    for index in (1, 3, 1):
        assert data[Draw(index, 0)]['inputs'].shape == (3, 32, 32)
    assert capsys.readouterr().out.count('skipped: ') == 2
    (root / 'images/train/0004.jpg').write_bytes(b'')
    with pytest.raises(DataError, match='(?s)0004.jpg.*after 2 bad samples'):
        data[4]


@pytest.mark.medium
@pytest.mark.parametrize('workers', [0, 2])
def test_training_and_evaluation_stop_in_one_line_at_a_bad_sample(tool, root, tmp_path, checkpoint, workers):
    for split in ('train', 'val'):
        (root / 'images' / split / '0001.jpg').write_bytes(b'')
    options = [
        '--cfg-options',
        f'data_root={root}',
        f'train_dataloader.num_workers={workers}',
        f'test_dataloader.num_workers={workers}',
    ]
    for arguments in (['train', TINY, '--no-data-check'], ['test', TINY, checkpoint]):
        outcome = tool(*arguments, '--work-dir', tmp_path / 'work', *options)
        line = outcome.err.strip().splitlines()[-1]
        assert (
            outcome.status == 2
            and line.startswith('error: sample 1 (')
            and '0001.jpg' in line
            and 'Traceback' not in outcome.err
        )


INVERSE = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@pytest.mark.parametrize('size', [(40, 56), (48, 48)])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_image_and_label_map_stay_aligned_whatever_exif_says(root, size, orientation):
    """The label map lies over the stored pixels: image and label map are turned together."""
    labels = np.zeros(size, np.uint8)
    labels[: size[0] // 2, : size[1] // 3] = 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([labels * 255] * 3, -1)).save(root / IMAGE, exif=exif, quality=100)
    Image.fromarray(labels).save(root / LABEL)
    sample = dataset(
        root, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadLabelMap'), dict(type='PackSegInputs')]
    )[1]
    seen, truth = sample['inputs'][0] > 127, sample['data_samples'].gt_sem_seg.data[0] == 1
    assert seen.shape == truth.shape == (size if orientation < 5 else size[::-1])
    assert (seen == truth).float().mean() > 0.99


@pytest.mark.parametrize('orientation', range(5, 9))
def test_a_label_map_that_is_upright_already_is_not_turned(root, orientation):
    upright = np.zeros((56, 40), np.uint8)
    upright[:28, :13] = 1
    from effseg.datasets.orientation import TURN

    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.stack([upright * 255] * 3, -1)).transpose(TURN[INVERSE[orientation]])
    stored.save(root / IMAGE, exif=exif, quality=100)
    Image.fromarray(upright).save(root / LABEL)
    sample = dataset(
        root, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadLabelMap'), dict(type='PackSegInputs')]
    )[1]
    assert ((sample['inputs'][0] > 127) == (sample['data_samples'].gt_sem_seg.data[0] == 1)).float().mean() > 0.99
