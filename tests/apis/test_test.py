"""Scoring: the label maps that are written, and data sets inside of others."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from networks import TINY

from effseg.apis.distill import _without_labels
from effseg.apis.opening import dataset_meta, open_segmenter
from effseg.apis.test import LabelMapHook
from effseg.engine.config import load_config
from effseg.engine.protect import protect
from effseg.errors import ConfigError, DataError
from effseg.report.scoring import score


class Images(list):
    get_data_info = list.__getitem__


def test_label_maps_of_images_of_one_name_do_not_replace_each_other(tmp_path):
    places = [dict(img_path=str(tmp_path / place)) for place in ('a/x.jpg', 'b/x.jpg', 'y.jpg')]
    hook = LabelMapHook(str(tmp_path / 'out'))
    hook.before_test(SimpleNamespace(test_dataloader=SimpleNamespace(dataset=Images(places))))
    for place in places:
        sample = SegDataSample(metainfo=place)
        sample.pred_sem_seg = PixelData(data=torch.zeros(1, 2, 3))
        hook.after_test_iter(None, 0, outputs=[sample])
    names = [path.name for path in (tmp_path / 'out').glob('*.png')]
    assert len(names) == 3 and 'y.png' in names


@pytest.fixture
def several(tmp_path, scenes) -> str:
    """A config whose data sets are made of others."""
    path = tmp_path / 'several.py'
    path.write_text(
        f'_base_ = {TINY!r}\n'
        "train = dict(type='RepeatDataset', times=2, dataset=_base_.train_dataloader.dataset)\n"
        "test = dict(type='ConcatDataset', datasets=[_base_.test_dataloader.dataset] * 2)\n"
        'train_dataloader = dict(dataset=dict(_delete_=True, **train))\n'
        'test_dataloader = dict(dataset=dict(_delete_=True, **test))\n'
    )
    return str(path)


def test_data_sets_inside_of_others_are_reached(several):
    cfg = load_config(several, dict(data_root='/elsewhere'))
    assert cfg.train_dataloader.dataset.dataset.data_root == '/elsewhere'
    assert {dataset.data_root for dataset in cfg.test_dataloader.dataset.datasets} == {'/elsewhere'}
    assert len(dataset_meta(cfg)['classes']) == 8
    cfg.test_dataloader.dataset.datasets[1].ignore_index = 7
    assert protect(cfg).test_dataloader.dataset.ignored == [7, 255]
    for images in (None, '/photos'):
        taught = _without_labels(load_config(several), images).train_dataloader.dataset
        assert 'Unlabelled' in {step.type for step in (taught if images else taught.dataset).pipeline}


def test_more_classes_than_a_label_map_holds_are_refused():
    meta = dict(classes=[*map(str, range(257))], palette=[[0, 0, 0]] * 257)
    dataset = ConfigDict(type='BaseSegDataset', metainfo=meta)
    with pytest.raises(ConfigError, match='257 classes'):
        dataset_meta(Config(dict(test_dataloader=dict(dataset=dataset))))


def test_what_a_metric_in_a_list_ignores_is_ignored_in_the_report(scenes, checkpoint, tmp_path):
    path = tmp_path / 'listed.py'
    path.write_text(f"_base_ = {TINY!r}\ntest_evaluator = [dict(type='IoUMetric', ignore_index=0)]\n")
    segmenter = open_segmenter(str(path), str(checkpoint), device='cpu')
    with pytest.raises(DataError, match='holds the labels 255; the config knows 0 to 7 and 0 .ignored'):
        score(str(path), segmenter, tmp_path)
