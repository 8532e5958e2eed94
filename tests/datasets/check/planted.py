"""Defects that are planted into sound data, and what the check has to say of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from effseg.apis.check_data import check_data
from effseg.datasets.check.findings import ERROR

CONFIG = str(Path(__file__).parents[1] / 'scenes_config.py')
IMAGE, LABEL = 'images/train/0001.jpg', 'annotations/train/0001.png'
VAL_IMAGE, VAL_LABEL = 'images/val/0001.jpg', 'annotations/val/0001.png'


class Defect(NamedTuple):
    """What is done to the data, and what is found there."""

    plant: Callable[[Path], object]
    kind: str
    where: str  # part of the path of what is found
    severity: str = ERROR
    options: dict = {}  # of the config


def nothing(root):
    """For a defect of the config alone."""


def labels_of(root, file=LABEL):
    return np.array(Image.open(root / file))


def save(root, pixels, file=LABEL, **options):
    Image.fromarray(pixels).save(root / file, **options)


def cut(root, file):
    (root / file).write_bytes((root / file).read_bytes()[:-200])


def for_all(root, change, split='*'):
    """Changes the values of all label maps, or of a split's."""
    for path in root.glob(f'annotations/{split}/*.png'):
        Image.fromarray(change(np.array(Image.open(path))).astype(np.uint8)).save(path)


def turned(root, orientation, square=False):
    image, labels = Image.open(root / IMAGE), Image.open(root / LABEL)
    if square:
        image, labels = image.crop((0, 0, 40, 40)), labels.crop((0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(root / IMAGE, exif=exif)
    labels.save(root / LABEL)


def look(root, tmp_path, options=None):
    """Whether the whole check finds the data sound, and its report."""
    report = tmp_path / 'report.json'
    options = {'data_root': str(root), **(options or {})}
    sound = check_data(CONFIG, workers=0, json_file=str(report), cfg_options=options)
    return sound, json.loads(report.read_text())
