"""Labels of every format become the same label maps, which lie over their images."""

import json

import numpy as np
import pytest
from PIL import Image

from effseg.apis.convert import FACTS, convert
from effseg.datasets.convert.drawing import fill
from effseg.datasets.images import read_image
from effseg.datasets.transforms import LoadLabelMap
from effseg.errors import ConfigError, DataError

from .written import (
    EXPECTED,
    FORMATS,
    HEIGHT,
    STEMS,
    WIDTH,
    coco,
    colors_of_json,
    images,
    label_studio,
    numbers,
    result,
    save_image,
    save_mask,
    write,
)


@pytest.mark.parametrize('layout', FORMATS, ids=lambda layout: layout.__name__)
def test_every_format_gives_the_same_label_maps(tmp_path, layout):
    layout(tmp_path / 'source')
    before = {file: file.read_bytes() for file in (tmp_path / 'source').rglob('*') if file.is_file()}
    dataset = convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    assert dataset.classes == ['car', 'road']
    labels = result(tmp_path / 'out')
    assert {*labels} == {*STEMS}
    for stem, found in labels.items():
        assert (found == EXPECTED).all(), (stem, np.argwhere(found != EXPECTED)[:5])
    assert dataset.shares == pytest.approx([300 / 1300, 1000 / 1300], abs=0.02)
    assert before == {file: file.read_bytes() for file in (tmp_path / 'source').rglob('*') if file.is_file()}
    for split in ('train', 'val'):
        stems = {file.stem for file in (tmp_path / 'out/images' / split).iterdir()}
        assert stems == {file.stem for file in (tmp_path / 'out/annotations' / split).iterdir()}
        assert stems and all(f'{stem[0]}_{other}' in stems for stem in stems for other in range(2))
    facts = json.loads((tmp_path / 'out' / FACTS).read_text())
    assert facts['classes'] == ['car', 'road'] and len(facts['files']) == len(STEMS)


def test_classes_are_merged_and_dropped_and_the_unlabelled_become_background(tmp_path):
    coco(tmp_path / 'source')
    convert(str(tmp_path / 'source'), str(tmp_path / 'out'), mapping=dict(road='way', car=''), background=True)
    expected = np.choose(np.where(EXPECTED == 255, 2, EXPECTED), [255, 1, 0])
    assert all((found == expected).all() for found in result(tmp_path / 'out').values())
    with pytest.raises(ConfigError, match="names 'bus'.*'car', 'road'"):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'), mapping=dict(bus='car'))
    with pytest.raises(DataError, match='nothing to tell apart'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'), mapping=dict(road='car'))


def test_colors_without_names_are_classes_and_black_is_unlabelled(tmp_path):
    colors_of_json(tmp_path / 'source')
    (tmp_path / 'source/classes.json').unlink()
    dataset = convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    assert dataset.classes == ['#804080', '#ff0000'] and dataset.palette == [[128, 64, 128], [255, 0, 0]]
    assert any('black' in line for line in dataset.said)


def test_a_mask_of_0_and_255_has_two_classes(tmp_path):
    for file in images(tmp_path / 'source'):
        save_mask(tmp_path / 'source/masks' / f'{file.stem}_mask.png', ((EXPECTED == 0) * 255).astype(np.uint8))
    dataset = convert(str(tmp_path / 'source'), str(tmp_path / 'out'), mapping={'0': 'floor', '255': 'crack'})
    assert dataset.classes == ['floor', 'crack'] and dataset.shares[1] == 300 / 2400


def test_the_second_conversion_replaces_the_first_and_nothing_of_others(tmp_path):
    out = tmp_path / 'out'
    coco(tmp_path / 'source')
    convert(str(tmp_path / 'source'), str(out))
    write(out / 'mine.txt', 'mine')
    (tmp_path / 'source/images/c_1.jpg').unlink()
    convert(str(tmp_path / 'source'), str(out), leave_out=True)
    assert {*result(out)} == {*STEMS} - {'c_1'} and (out / 'mine.txt').read_text() == 'mine'
    write(tmp_path / 'other/images/train/a_0.jpg', 'mine')
    with pytest.raises(ConfigError, match='was not written by effseg'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'other'), leave_out=True)
    for inside in (tmp_path / 'source', tmp_path / 'source/out', tmp_path):
        with pytest.raises(ConfigError, match='lie in each other'):
            convert(str(tmp_path / 'source'), str(inside))


def test_labels_of_an_image_that_exif_turns_lie_over_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = images(tmp_path / 'source')
    upright = np.zeros((WIDTH, HEIGHT), np.uint8)
    upright[:10, :20] = 255
    turned = Image.fromarray(upright).convert('RGB').transpose(Image.Transpose.ROTATE_90)
    for file in files:
        turned.save(file, exif=exif, quality=100)
    shapes = [[[0, 10], [40, 10], [40, 60], [0, 60]], [[0, 0], [20, 0], [20, 10], [0, 10]]]
    for file in files:
        entries = [dict(label=str(number), points=shape) for number, shape in enumerate(shapes)]
        write(
            file.with_suffix('.json'), dict(shapes=entries, imagePath=file.name, imageWidth=HEIGHT, imageHeight=WIDTH)
        )
    convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    for image in (tmp_path / 'out').glob('images/*/*.jpg'):
        label_map = tmp_path / 'out/annotations' / image.parent.name / f'{image.stem}.png'
        sample = dict(img_path=str(image), seg_map_path=str(label_map), seg_fields=[], reduce_zero_label=False)
        labels = LoadLabelMap().transform({**sample, 'ori_shape': (WIDTH, HEIGHT)})['gt_seg_map']
        assert ((read_image(image)[..., 0] > 127) == (labels == 1)).mean() > 0.98


def test_a_polygon_is_the_pixels_whose_centers_are_inside():
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :60] + 0.5
    for _ in range(50):
        polygon = random.uniform([-10, -10], [70, 50], (random.integers(3, 9), 2))
        (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, 0).T
        between = (y0 <= rows[..., None]) != (y1 <= rows[..., None])
        with np.errstate(all='ignore'):
            left = x0 + (rows[..., None] - y0) * (x1 - x0) / (y1 - y0) <= columns[..., None]
        labels = np.zeros((40, 60), np.uint8)
        fill(labels, polygon, 7)
        assert (labels == 7 * ((between & left).sum(-1) % 2)).all()


def test_images_whose_names_meet_are_all_kept(tmp_path):
    # e/f would be called e_f, and two of the others x_a_b
    places = ('d/e_f', 'e/f', 'g/f', 'x_a/b', 'x/a_b', 'y/b', 'y/a_b')
    for place in places:
        save_image(tmp_path / 'source' / f'{place}.jpg')
        save_mask(tmp_path / 'source' / f'{place}_mask.png', EXPECTED)
    convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    assert len(result(tmp_path / 'out')) == len(places)


def test_lists_of_a_split_are_followed_whatever_the_names_and_the_place(tmp_path):
    source = tmp_path / 'Main/VOC'
    names = ['a 1', 'a 2', 'b.1', 'b.2']
    for name in names:
        save_image(source / f'JPEGImages/{name}.jpg')
        save_mask(source / f'SegmentationClass/{name}.png', EXPECTED)
    write(source / 'ImageSets/Segmentation/train.txt', '\r\n'.join(names[:3]))
    write(source / 'ImageSets/Segmentation/val.txt', names[3])
    write(source / 'ImageSets/Main/val.txt', '\n'.join(names))
    convert(str(source), str(tmp_path / 'out'))
    assert [path.stem for path in (tmp_path / 'out/images/val').iterdir()] == names[3:]


def test_what_looks_like_something_else_is_read_all_the_same(tmp_path):
    coco(tmp_path / 'coco')
    file = tmp_path / 'coco/annotations/instances.json'
    write(file, json.dumps(dict(reversed(json.loads(file.read_text().replace('"car"', '"shapes"')).items()))))
    label_studio(tmp_path / 'label_studio')
    file = next((tmp_path / 'label_studio').glob('*.json'))
    tasks = json.loads(file.read_text())
    write(file, [task | dict(data=dict(caption='a street') | task['data']) for task in tasks])
    numbers(tmp_path / 'masks')
    write(tmp_path / 'masks/a_labels.csv', f'a_0,{"1 2 " * 40_000}')
    for form in ('coco', 'label_studio', 'masks'):
        assert {*result(convert(str(tmp_path / form), str(tmp_path / 'out' / form)).root)} == {*STEMS}
