"""What is wrong between splits: images that are in two of them, classes that training does not see."""

import shutil

import numpy as np
import pytest
from PIL import Image

from effseg.datasets.check.findings import WARNING

from .planted import IMAGE, LABEL, VAL_IMAGE, VAL_LABEL, Defect, for_all, labels_of, save, turned


def turned_in_both(root):
    turned(root, 6)
    shutil.copy(root / IMAGE, root / VAL_IMAGE)
    shutil.copy(root / LABEL, root / VAL_LABEL)


def compressed_anew(root):
    image, labels = Image.open(root / IMAGE).resize((560, 400)), Image.open(root / LABEL).resize((560, 400), 0)
    image.save(root / IMAGE)
    labels.save(root / LABEL)
    image.resize((280, 200)).save(root / VAL_IMAGE, quality=60)
    labels.resize((280, 200), 0).save(root / VAL_LABEL)


def in_val_alone(root):
    for_all(root, lambda labels: np.where(labels == 0, 2, labels), 'train')
    save(root, labels_of(root, VAL_LABEL) * 0, VAL_LABEL)


DEFECTS = {
    'one file': Defect(lambda root: shutil.copy(root / IMAGE, root / VAL_IMAGE), 'image: in two splits', VAL_IMAGE),
    'the same pixels': Defect(
        lambda root: Image.open(root / IMAGE).save(root / VAL_IMAGE, format='PNG'), 'image: in two splits', VAL_IMAGE
    ),
    'the same pixels, turned by EXIF': Defect(turned_in_both, 'image: in two splits', VAL_IMAGE),
    'compressed anew and smaller': Defect(compressed_anew, 'image: alike in two splits', VAL_IMAGE, WARNING),
    'a class of val alone': Defect(in_val_alone, 'labels: class not in train', 'annotations/val', WARNING),
    'a class that is nowhere': Defect(
        lambda root: for_all(root, lambda labels: np.where(labels == 3, 2, labels)),
        'labels: class never seen',
        'annotations/train',
        WARNING,
    ),
}


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(find, name):
    find(DEFECTS[name])
