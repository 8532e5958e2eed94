"""The check finds nothing in sound data."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from effseg.apis.check_data import check_data

from .planted import look

SHARED = Path(__file__).parents[4] / 'shared' / 'data'


def test_the_drawn_scenes(root, tmp_path):
    sound, report = look(root, tmp_path)
    assert sound and not report['findings']
    becomes = {row['raw']: row['becomes'] for row in report['splits'][0]['values']}
    assert becomes[0] == 'sky' and becomes[7] == 'car'


def test_a_test_split_without_labels(root, tmp_path):
    (root / 'images/val').rename(root / 'images/unlabelled')
    shutil.copytree(root / 'images/unlabelled', root / 'images/val')
    for path in root.glob('images/unlabelled/*'):
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    options = {'test_dataloader.dataset.data_prefix': dict(_delete_=True, img_path='images/unlabelled')}
    sound, report = look(root, tmp_path, options)
    assert sound and not report['findings']
    assert [split['split'] for split in report['splits']] == ['train', 'val', 'test']


def shared_data(name):
    root = SHARED / name
    if not root.is_dir():
        if os.environ.get('CI'):
            pytest.fail(f'{root} is missing')
        pytest.skip(f'{name} is not at hand')
    return root


@pytest.mark.medium
def test_camvid(tmp_path):
    options = {'data_root': str(shared_data('camvid'))}
    assert check_data('effseg::fpn_effformer_l1_camvid.py', json_file=str(tmp_path / 'r.json'), cfg_options=options)
    assert json.loads((tmp_path / 'r.json').read_text())['findings'] == []


def test_nuclei(tmp_path):
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(shared_data('nuclei')),
        img_suffix='.png',
        seg_map_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        metainfo=dict(classes=('background', 'nucleus'), palette=[[0, 0, 0], [255, 255, 255]]),
    )
    config = tmp_path / 'nuclei.py'
    config.write_text(f'model = dict(decode_head=dict(num_classes=2))\ntrain_dataloader = dict(dataset={dataset!r})\n')
    assert check_data(str(config), json_file=str(tmp_path / 'r.json'))
    assert json.loads((tmp_path / 'r.json').read_text())['findings'] == []
