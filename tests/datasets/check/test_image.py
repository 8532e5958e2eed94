"""Every defect of an image is found, with its path and a remedy."""

import cv2
import numpy as np
import pytest
from PIL import Image

from effseg.datasets.check.findings import WARNING

from .planted import IMAGE, Defect, cut, nothing, save


def dead_link(root):
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to('gone.jpg')


def one_pixel(root):
    save(root, np.zeros((1, 1, 3), np.uint8), IMAGE)
    save(root, np.zeros((1, 1), np.uint8))


def animated(root):
    frames = [Image.fromarray(np.full((40, 56, 3), value, np.uint8)) for value in (0, 255)]
    frames[0].save(root / IMAGE, format='GIF', save_all=True, append_images=frames[1:])


def garbled(root):
    content = bytearray((root / IMAGE).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100] = bytes(range(100))
    (root / IMAGE).write_bytes(content[: len(content) * 3 // 4] + b'\xff\xd9')


def of_16_bits(root):
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 56, 3)).astype(np.uint16)
    (root / IMAGE).write_bytes(cv2.imencode('.png', pixels)[1].tobytes())


POSTSCRIPT = '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 56 40\n{} loop\n'
SMALLER = {'train_dataloader.dataset.pipeline.2.crop_size': (64, 64)}
DEFECTS = {
    'empty': Defect(lambda root: (root / IMAGE).write_bytes(b''), 'image: empty', IMAGE),
    'text': Defect(lambda root: (root / IMAGE).write_text('<html>404</html>'), 'image: not an image', IMAGE),
    'PCX': Defect(lambda root: Image.open(root / IMAGE).save(root / IMAGE, format='PCX'), 'image: not an image', IMAGE),
    'PostScript': Defect(lambda root: (root / IMAGE).write_text(POSTSCRIPT), 'image: not an image', IMAGE),
    'cut': Defect(lambda root: cut(root, IMAGE), 'image: damaged', IMAGE),
    'garbled': Defect(garbled, 'image: damaged', IMAGE),
    'a dead link': Defect(dead_link, 'image: missing', IMAGE),
    'of another suffix': Defect(
        lambda root: (root / IMAGE).rename(root / 'images/train/0001.JPEG'), 'image: other suffix', '0001.JPEG'
    ),
    'one pixel': Defect(one_pixel, 'image: too thin', IMAGE),
    'below the crop': Defect(nothing, 'image: smaller than the crop', IMAGE, WARNING, SMALLER),
    'of 16 bits': Defect(
        lambda root: save(root, np.full((40, 56), 3000, np.uint16), IMAGE, format='PNG'),
        'image: more than 8 bits',
        IMAGE,
    ),
    'of 16 bits of color': Defect(of_16_bits, 'image: more than 8 bits', IMAGE),
    'animated': Defect(animated, 'image: several frames', IMAGE, WARNING),
    'black': Defect(
        lambda root: save(root, np.zeros((40, 56, 3), np.uint8), IMAGE), 'image: one color', IMAGE, WARNING
    ),
}


@pytest.mark.parametrize('name', DEFECTS)
def test_a_planted_defect_is_found(find, name):
    find(DEFECTS[name])
