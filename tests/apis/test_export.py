"""Which images an export is proved on."""

import numpy as np
import pytest
from networks import TINY
from PIL import Image

import effseg
from effseg import deploy
from effseg.errors import ConfigError

SIZE = (32, 64)
COLORS = np.arange(8, dtype=np.uint8)[:, None] * 30 + np.zeros(3, np.uint8)  # an image shows its label map


def write(root, number: int, mask: np.ndarray) -> None:
    for folder, pixels in ('images', COLORS[mask % 8]), ('annotations', mask):
        (root / folder / 'val').mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / 'val' / f'{number:02}.png')


@pytest.fixture
def proof(checkpoint, tmp_path, monkeypatch):
    """The images and label maps that an export of four images hands on, of a data set of the given label maps."""

    def call(masks):
        for number, mask in enumerate(masks):
            write(tmp_path, number, mask)
        monkeypatch.setattr(deploy, 'export', lambda *arguments: arguments[4:7:2])
        options = {'data_root': str(tmp_path), 'img_suffix': '.png'}
        options = {f'val_dataloader.dataset.{key}': value for key, value in options.items()}
        return effseg.export(TINY, checkpoint, 'onnx', size=SIZE, proof_images=4, cfg_options=options)

    return call


def seen(masks) -> set[int]:
    return set(np.unique(masks)) - {255}


def test_every_class_that_occurs_is_seen(proof):
    masks = [np.full(SIZE, number % 2, np.uint8) for number in range(20)]
    masks[7][3:9, 5:20] = 2  # in an image between those that are spread over the data
    masks[8][3:5, 5:9] = 2
    masks[9] = np.kron(masks[9], np.ones((8, 8), np.uint8))
    masks[9][-3:, -3:] = 3  # shrunk away, and outside of the image as it is
    masks[10][:2, :2] = 4
    masks[10][-2:, -2:] = 5  # two that one image shows
    masks[11][:, :] = 255
    images, shown = proof(masks)
    assert seen(np.stack(shown)) == {0, 1, 2, 3, 4, 5} and len(shown) == len(images) == 4 + 3
    assert max((mask == 2).sum() for mask in shown) == 6 * 15, 'another image shows more of it'
    for image, mask in zip(images[4:], shown[4:]):
        known = mask < 8
        aligned = np.abs(image.astype(int) - COLORS[np.minimum(mask, 7)])[known].max(1) == 0
        assert aligned.mean() > 0.95, 'an image and its label map show different things'


def test_a_network_that_reads_images_as_they_are_keeps_doing_so(checkpoint, scenes, monkeypatch):
    monkeypatch.setattr(deploy, 'export', lambda *arguments: arguments[2])
    options = {'model.data_preprocessor.mean': None, 'model.data_preprocessor.std': None}
    spec = effseg.export(TINY, checkpoint, 'onnx', size=SIZE, cfg_options=options)
    assert (spec.mean, spec.std) == ((0, 0, 0), (1, 1, 1))


def test_no_image_is_added_where_all_is_seen(proof):
    images, shown = proof([np.full(SIZE, number % 2, np.uint8) for number in range(20)])
    assert seen(np.stack(shown)) == {0, 1} and len(images) == 4


@pytest.mark.parametrize('option', ['proof_images', 'calibration'])
def test_fewer_images_than_none_are_refused_before_anything_is_read(option):
    with pytest.raises(ConfigError, match=f'{option}=-1 must be 0 or more'):
        effseg.export('none.py', 'none.pth', 'onnx', **{option: -1})
