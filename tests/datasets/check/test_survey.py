"""What only all pairs of a split together show, and the processes that read them."""

import concurrent.futures
import os

import numpy as np
import pytest

from effseg.datasets.check import survey as module
from effseg.datasets.check.findings import WARNING
from effseg.datasets.check.split import find_splits
from effseg.datasets.check.survey import survey
from effseg.engine.config import load_config
from effseg.errors import DataError

from .planted import CONFIG, IMAGE, Defect, for_all, nothing

OF_180_CLASSES = {
    'model.decode_head.num_classes': 180,
    'train_dataloader.dataset.metainfo': dict(
        classes=[f'c{number}' for number in range(180)], palette=[[number] * 3 for number in range(180)]
    ),
}
DEFECTS = {
    'one image twice': Defect(
        lambda root: (root / 'images/train/0002.jpg').write_bytes((root / IMAGE).read_bytes()),
        'image: twice',
        '0002.jpg',
        WARNING,
    ),
    'reduce_zero_label on labels from 0': Defect(
        nothing,
        'labels: reduce_zero_label',
        'annotations',
        options={'train_dataloader.dataset.reduce_zero_label': True},
    ),
    'labels from 1': Defect(
        lambda root: for_all(root, lambda labels: np.where(labels == 255, 255, labels + 1)),
        'labels: count from 1',
        'annotations',
    ),
    'labels 0 and 255': Defect(
        lambda root: for_all(root, lambda labels: np.where(labels > 2, 255, 0)), 'labels: 0 and 255', 'annotations'
    ),
    'all of one class': Defect(
        lambda root: for_all(root, lambda labels: np.where(labels == 255, 255, 3)),
        'labels: one class alone',
        'annotations/train',
    ),
    'all ignored': Defect(
        lambda root: for_all(root, lambda labels: np.full_like(labels, 255)),
        'labels: nothing labelled',
        'annotations/train',
    ),
    'grey levels': Defect(
        lambda root: for_all(root, lambda labels: np.select([labels < 2, labels < 5], [0, 127], 255)),
        'labels: grey levels',
        'annotations/train',
    ),
    'grey levels of 150 classes': Defect(
        lambda root: for_all(root, lambda labels: np.select([labels < 2, labels < 5], [0, 85], 170)),
        'labels: grey levels',
        'annotations/train',
        options=OF_180_CLASSES,
    ),
}


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(find, name):
    find(DEFECTS[name])


@pytest.fixture
def split(root):
    return find_splits(load_config(CONFIG, {'data_root': str(root)}), ('train',))[0]


def test_there_are_never_more_processes_than_work(split, monkeypatch):
    asked, pool = [], concurrent.futures.ProcessPoolExecutor
    monkeypatch.setattr(module, 'ProcessPoolExecutor', lambda count: asked.append(count) or pool(count))
    assert survey(split, workers=300).pairs == 4 and asked == [1]


def test_a_process_that_dies_is_one_line(split, monkeypatch):
    monkeypatch.setattr(module, 'check_pair', lambda *pair: os._exit(9))
    with pytest.raises(DataError, match='a process of the data check died.*0000.jpg.*--workers 0'):
        survey(split, workers=2)


def test_workers_find_what_one_process_finds(root, split):
    (root / IMAGE).write_bytes(b'')
    assert survey(split, workers=2).findings == survey(split, workers=0).findings != []
