"""The demo's config says of the built-in data what its code says."""

from pathlib import Path

import pytest
from mmengine.config import Config

from effseg.demo.dataset import write_demo_data
from effseg.demo.scenes import CLASSES, IGNORED, PALETTE

CONFIG = Path(__file__).parents[2] / 'configs/fpn_effformer_l1_demo.py'


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(CONFIG)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_classes_and_palette_are_those_drawn(cfg, split):
    metainfo = cfg[f'{split}_dataloader'].dataset.metainfo
    assert tuple(metainfo.classes) == CLASSES
    assert [list(color) for color in metainfo.palette] == [list(color) for color in PALETTE]
    assert cfg.model.decode_head.num_classes == len(CLASSES)


def test_the_preprocessor_pads_to_the_crop_with_the_ignored_label(cfg):
    assert cfg.model.data_preprocessor.size == cfg.crop_size
    assert cfg.model.data_preprocessor.seg_pad_val == IGNORED


@pytest.mark.parametrize('split, count', [('train', 3), ('val', 2), ('test', 2)])
def test_mmsegmentation_reads_what_was_drawn(cfg, tmp_path, split, count):
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    write_demo_data(tmp_path, train=3, val=2)
    dataset = DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'data_root': str(tmp_path)})
    assert len(dataset) == count
    sample = dataset[0]
    labels = sample['data_samples'].gt_sem_seg.data
    size = cfg.crop_size if split == 'train' else (192, 288)
    assert sample['inputs'].shape == (3, *size)
    assert labels.shape == (1, *size)
    assert set(labels.unique().tolist()) <= {*range(len(CLASSES)), IGNORED}
