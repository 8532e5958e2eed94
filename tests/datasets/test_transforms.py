"""Image and label map lie over each other whatever the file says, and no file is opened more often than needed."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image, features

from effseg.datasets.check.pair import Rules, check_pair
from effseg.datasets.images import read_image
from effseg.datasets.orientation import TAG, TURN
from effseg.datasets.transforms import LoadLabelMap, RareClassCrop

PIPELINE = [dict(type='LoadImageFromFile', backend_args=dict(backend='on_white')), dict(type='LoadLabelMap')]
INVERSE = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
LOSSLESS = {'JPEG': dict(quality=100), 'WEBP': dict(lossless=True), 'AVIF': dict(quality=100)}
UPRIGHT = np.zeros((40, 56), np.uint8)
UPRIGHT[:20, :18] = 1
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


@pytest.fixture(autouse=True)
def scope():
    from mmengine.registry import init_default_scope

    init_default_scope('mmseg')


def load(image: Path, label_map: Path, **options) -> dict:
    sample = dict(img_path=str(image), seg_map_path=str(label_map), seg_fields=[], reduce_zero_label=False)
    return Compose(PIPELINE)({**sample, **options})


def write(path: Path, upright: np.ndarray, orientation: int, kind: str, channels: int = 3, **options) -> Path:
    """A file whose stored pixels are shown as ``upright``."""
    image = Image.fromarray(np.stack([upright * 255] * channels, -1) if channels > 1 else upright)
    if orientation in TURN:
        image = image.transpose(TURN[INVERSE[orientation]])
    if kind == 'TIFF':
        options['tiffinfo'] = {TAG: orientation}
    elif 'xmp' not in options:
        options['exif'] = Image.Exif()
        options['exif'][TAG] = orientation
    image.save(path, kind, **LOSSLESS.get(kind, {}), **options)
    return path


@pytest.mark.parametrize('size', [(40, 56), (48, 48)])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'AVIF'])
def test_a_label_map_over_the_stored_pixels_is_turned_with_its_image(tmp_path, kind, orientation, size):
    if kind == 'AVIF' and not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    upright = np.resize(UPRIGHT, size)
    upright[: size[0] // 2, : size[1] // 3] = 1
    image = write(tmp_path / 'a.jpg', upright, orientation, kind)
    stored = Image.fromarray(upright)
    stored = stored.transpose(TURN[INVERSE[orientation]]) if orientation in TURN else stored
    stored.save(tmp_path / 'a.png')
    sample = load(image, tmp_path / 'a.png')
    assert sample['gt_seg_map'].shape == size
    assert ((sample['img'][..., 0] > 127) == (sample['gt_seg_map'] == 1)).mean() > 0.99
    assert (sample['img'][..., ::-1] == read_image(image)).all()
    kinds = {found.kind for found in check_pair(str(image), str(tmp_path / 'a.png'), Rules(('a', 'b'))).findings}
    assert kinds == ({'pair: turned by EXIF'} if orientation > 1 else set())


@pytest.mark.parametrize('orientation', range(5, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
def test_a_label_map_that_is_upright_already_is_not_turned(tmp_path, kind, orientation):
    image = write(tmp_path / 'a.jpg', UPRIGHT, orientation, kind)
    Image.fromarray(UPRIGHT).save(tmp_path / 'a.png')
    sample = load(image, tmp_path / 'a.png')
    assert ((sample['img'][..., 0] > 127) == (sample['gt_seg_map'] == 1)).mean() > 0.99


@pytest.mark.parametrize('orientation', range(1, 9))
def test_image_and_label_map_may_both_be_turned_tiff_files(tmp_path, orientation):
    image = write(tmp_path / 'a.jpg', UPRIGHT, orientation, 'TIFF')
    labels = write(tmp_path / 'a.png', UPRIGHT, orientation, 'TIFF', channels=1)
    sample = load(image, labels)
    assert ((sample['img'][..., 0] > 127) == (sample['gt_seg_map'] == 1)).all()
    assert not check_pair(str(image), str(labels), Rules(('a', 'b'))).findings


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_a_label_map_that_is_turned_alone_is_found(tmp_path, kind):
    image = write(tmp_path / 'a.jpg', UPRIGHT, 1, 'JPEG')
    labels = write(tmp_path / 'a.png', UPRIGHT, 3, kind, channels=1)
    (found,) = check_pair(str(image), str(labels), Rules(('a', 'b'))).findings
    assert (found.kind, found.severity, found.path) == ('pair: turned by EXIF', 'error', str(labels))


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_an_orientation_that_xmp_alone_tells_is_followed(tmp_path, kind):
    image = write(tmp_path / 'a.jpg', UPRIGHT, 6, kind, xmp=XMP.format(6).encode())
    Image.fromarray(UPRIGHT).transpose(TURN[8]).save(tmp_path / 'a.png')
    sample = load(image, tmp_path / 'a.png')
    assert ((sample['img'][..., 0] > 127) == (sample['gt_seg_map'] == 1)).mean() > 0.99


def test_a_png_file_that_tells_its_orientation_at_its_end_is_turned(tmp_path):
    whole = write(tmp_path / 'whole.png', UPRIGHT, 6, 'PNG').read_bytes()
    start = whole.index(b'eXIf') - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], 'big')
    last = whole.index(b'IEND') - 4
    (tmp_path / 'a.jpg').write_bytes(whole[:start] + whole[end:last] + whole[start:end] + whole[last:])
    Image.fromarray(UPRIGHT).transpose(TURN[8]).save(tmp_path / 'a.png')
    sample = load(tmp_path / 'a.jpg', tmp_path / 'a.png')
    assert ((sample['img'][..., 0] > 127) == (sample['gt_seg_map'] == 1)).all()


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 3, 1: 255, 3: 0, 254: 1, 255: 2}])
def test_numbers_are_those_of_mmsegmentation(tmp_path, reduce_zero_label, label_map):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / 'a.png')
    options = dict(seg_map_path=str(tmp_path / 'a.png'), reduce_zero_label=reduce_zero_label, label_map=label_map)
    ours, theirs = (kind().transform(dict(options, seg_fields=[])) for kind in (LoadLabelMap, LoadAnnotations))
    assert (ours['gt_seg_map'] == theirs['gt_seg_map']).all() and ours['gt_seg_map'].dtype == np.uint8
    assert ours['seg_fields'] == theirs['seg_fields']


OPENED: list[str] | None = None


def test_an_image_is_opened_twice_and_a_label_map_once(tmp_path):
    global OPENED
    image = write(tmp_path / 'a.jpg', UPRIGHT, 1, 'JPEG')
    Image.fromarray(UPRIGHT).save(tmp_path / 'a.png')
    load(image, tmp_path / 'a.png')

    def hook(event, arguments):
        if event == 'open' and OPENED is not None:
            OPENED.append(str(arguments[0]))

    sys.addaudithook(hook)
    OPENED = []
    load(image, tmp_path / 'a.png')
    opened, OPENED = OPENED, None
    assert opened.count(str(image)) == 2 and opened.count(str(tmp_path / 'a.png')) == 1


def test_a_truncated_label_map_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (40, 56), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, 'PNG')
    (tmp_path / 'a.png').write_bytes(stream.getvalue()[:-100])
    image = write(tmp_path / 'a.jpg', UPRIGHT, 1, 'JPEG')
    with pytest.raises(Exception, match='a.png cannot be read as a label map'):
        load(image, tmp_path / 'a.png')


def test_crops_are_drawn_where_a_rare_class_is():
    labels = np.zeros((60, 90), np.uint8)
    labels[50, 80], labels[3, 3] = 7, 9
    results = dict(img=np.zeros((60, 90, 3), np.uint8), gt_seg_map=labels)
    np.random.seed(0)

    def found(**options) -> int:
        crop = RareClassCrop(classes=(7, 8), crop_size=(16, 24), **options)
        boxes = [crop.crop_bbox(results) for _ in range(200)]
        assert all(0 <= top < bottom <= 60 and 0 <= left < right <= 90 for top, bottom, left, right in boxes)
        return sum(7 in crop.crop(labels, box) for box in boxes)

    assert found(prob=1.0) == 200 and 80 < found(prob=0.5) < 160 > found(prob=0.0)
    results['gt_seg_map'] = labels[:8, :8]
    assert RareClassCrop(classes=(9,), prob=1.0, crop_size=(16, 24)).crop_bbox(results) == (0, 16, 0, 24)
