"""A label map that does not lie over its image is found, with its path and a remedy."""

import pytest

from effseg.datasets.check.findings import WARNING

from .planted import IMAGE, LABEL, Defect, labels_of, save, turned

DEFECTS = {
    'turned by half': Defect(lambda root: turned(root, 3), 'pair: turned by EXIF', IMAGE),
    'turned by a quarter': Defect(lambda root: turned(root, 6), 'pair: turned by EXIF', IMAGE, WARNING),
    'a turned square': Defect(lambda root: turned(root, 6, square=True), 'pair: turned by EXIF', IMAGE),
    'sizes differ': Defect(lambda root: save(root, labels_of(root)[::2, ::2].copy()), 'pair: sizes differ', LABEL),
    'height and width exchanged': Defect(
        lambda root: save(root, labels_of(root).T.copy()), 'pair: sizes differ', LABEL
    ),
}


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(find, name):
    find(DEFECTS[name])
