"""Every defect of a single label map is found, with its path and a remedy."""

import numpy as np
import pytest
from PIL import Image

from effseg.datasets.check.findings import WARNING
from effseg.engine.config import load_config

from .planted import CONFIG, IMAGE, LABEL, Defect, cut, labels_of, save


def palette_in_order_of_appearance(root):
    labels = labels_of(root)
    colors = load_config(CONFIG).train_dataloader.dataset.metainfo.palette
    labels[labels == 255] = 0
    seen = list(np.unique(labels))
    number = {value: (index + 1) % len(seen) for index, value in enumerate(seen)}
    image = Image.fromarray(np.vectorize(number.get)(labels).astype(np.uint8), mode='P')
    image.putpalette(
        [channel for value, _ in sorted(number.items(), key=lambda item: item[1]) for channel in colors[value]]
    )
    image.save(root / LABEL)


def out_of_range(root):
    save(root, np.where(labels_of(root) == 0, 8, labels_of(root)).astype(np.uint8))


DEFECTS = {
    'missing': Defect(lambda root: (root / LABEL).unlink(), 'label map: missing', LABEL),
    'without image': Defect(lambda root: (root / IMAGE).unlink(), 'label map: without image', LABEL, WARNING),
    'empty': Defect(lambda root: (root / LABEL).write_bytes(b''), 'label map: empty', LABEL),
    'cut': Defect(lambda root: cut(root, LABEL), 'label map: damaged', LABEL),
    'of colors': Defect(
        lambda root: Image.open(root / LABEL).convert('RGB').save(root / LABEL), 'label map: colours', LABEL
    ),
    'of 16 bits': Defect(
        lambda root: save(root, labels_of(root).astype(np.uint16)), 'label map: more than 8 bits', LABEL
    ),
    'a JPEG': Defect(lambda root: save(root, labels_of(root), format='JPEG'), 'label map: lossy', LABEL),
    'of another palette': Defect(palette_in_order_of_appearance, 'label map: palette in another order', LABEL),
    'out of range': Defect(out_of_range, 'label map: out of range', LABEL),
    'all ignored': Defect(
        lambda root: save(root, np.full((40, 56), 255, np.uint8)), 'label map: nothing labelled', LABEL, WARNING
    ),
}


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(find, name):
    find(DEFECTS[name])
