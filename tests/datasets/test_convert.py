"""Labels of every format become the same label maps, and what cannot be used is named."""

import base64
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hostile import changed
from PIL import Image

from effseg.apis.convert import FACTS, convert
from effseg.datasets.convert.drawing import fill
from effseg.datasets.images import read_image
from effseg.datasets.transforms import LoadLabelMap
from effseg.errors import ConfigError, DataError

HEIGHT, WIDTH = 40, 60
ROAD = [[0, 20], [60, 20], [60, 40], [0, 40]]
CAR = [[10, 15], [30, 15], [30, 30], [10, 30]]
EXPECTED = np.full((HEIGHT, WIDTH), 255, np.uint8)
EXPECTED[20:] = 1
EXPECTED[15:30, 10:30] = 0
STEMS = [f'{scene}_{number}' for scene in 'abc' for number in range(2)]


def save_image(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path, **options)
    return path


def save_mask(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def images(root: Path, folder: str = 'images') -> list[Path]:
    return [save_image(root / folder / f'{stem}.jpg') for stem in STEMS]


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def runs(mask: np.ndarray) -> list[int]:
    """The lengths of a flat mask's runs, the first of which is outside."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    ends = np.concatenate([[0], edges, [mask.size]])
    return np.diff(ends[: len(ends) - (edges[-1] == mask.size)]).tolist()


def coco(root: Path, encode: bool = False) -> None:
    files, annotations = images(root), []
    for number in range(len(files)):
        for category, (polygon, area) in enumerate([(CAR, 300), (ROAD, 1200)], 5):
            shape = [np.ravel(polygon).tolist()]
            if encode:  # the car is cut out already: run lengths overlap where the tool lets them
                shape = dict(size=[HEIGHT, WIDTH], counts=runs((EXPECTED == category - 5).T.ravel()))
            annotations.append(
                dict(id=len(annotations), image_id=number, category_id=category, segmentation=shape, area=area)
            )
    entries = [dict(id=number, file_name=file.name, width=WIDTH, height=HEIGHT) for number, file in enumerate(files)]
    categories = [dict(id=5, name='car'), dict(id=6, name='road')]
    write(root / 'annotations/instances.json', dict(images=entries, annotations=annotations, categories=categories))


def coco_runs(root: Path) -> None:
    coco(root, encode=True)


def labelme(root: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(np.full((15, 20), True)).save(png, 'PNG')
    mask = base64.b64encode(png.getvalue()).decode()
    for number, file in enumerate(images(root, '')):
        car = [
            dict(label='car', points=CAR),
            dict(label='car', points=[CAR[0], CAR[2]], shape_type='rectangle'),
            dict(label='car', points=[[10, 15], [29, 29]], shape_type='mask', mask=mask),
        ][number % 3]
        shapes = [dict(label='road', points=ROAD, shape_type='polygon'), car]
        content = dict(shapes=shapes, imagePath=f'..\\elsewhere\\{file.name}', imageHeight=HEIGHT, imageWidth=WIDTH)
        write(file.with_suffix('.json'), content)


def cvat(root: Path) -> None:
    def text(points):
        return ';'.join(f'{x},{y}' for x, y in points)

    entries = ''
    for number, file in enumerate(images(root)):
        car = f'<polygon label="car" points="{text(CAR)}" z_order="1"/>'
        if number % 2:
            car = '<mask label="car" rle="0,300" left="10" top="15" width="20" height="15" z_order="1"/>'
        road = f'<polygon label="road" points="{text(ROAD)}" z_order="0"/>'
        entries += f'<image id="{number}" name="{file.name}" width="{WIDTH}" height="{HEIGHT}">{car}{road}</image>'
    labels = (
        '<label><name>car</name><color>#ff0000</color></label><label><name>road</name><color>#808080</color></label>'
    )
    write(
        root / 'annotations.xml',
        f'<annotations><meta><task><labels>{labels}</labels></task></meta>{entries}</annotations>',
    )


def brush(mask: np.ndarray) -> list[int]:
    """Label Studio's code: one run of one value as long as it goes."""
    values = np.repeat(mask.ravel() * 255, 4)
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), values.size]
    bits = f'{values.size:032b}{7:05b}' + f'{15:04b}' * 4
    for start, end in zip(edges, edges[1:]):
        bits += f'100{end - start - 1:016b}{values[start]:08b}'
    bits += '0' * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio(root: Path) -> None:
    def percent(points):
        return [[x * 100 / WIDTH, y * 100 / HEIGHT] for x, y in points]

    tasks = []
    for number, file in enumerate(images(root)):
        car = dict(points=percent(CAR), polygonlabels=['car'])
        if number % 2:
            car = dict(format='rle', rle=brush(EXPECTED == 0), brushlabels=['car'])
        values = [dict(points=percent(ROAD), polygonlabels=['road']), car]
        results = [
            dict(original_width=WIDTH, original_height=HEIGHT, value=value, type=[*value][-1]) for value in values
        ]
        address = f'/data/upload/1/0123abcd-{file.name}'
        tasks.append(dict(id=number, data=dict(image=address), annotations=[dict(result=results)]))
    write(root / 'export.json', tasks)


def yolo(root: Path) -> None:
    write(root / 'data.yaml', 'names: [car, road]\n')
    for file in images(root):
        lines = [
            ' '.join([str(n), *(f'{x / WIDTH:.6f} {y / HEIGHT:.6f}' for x, y in shape)])
            for n, shape in enumerate((CAR, ROAD))
        ]
        write(root / 'labels' / f'{file.stem}.txt', '\n'.join(lines))


def numbers(root: Path) -> None:
    write(root / 'classes.txt', 'car\nroad\n')
    for file in images(root):
        save_mask(root / 'masks' / f'{file.stem}.png', EXPECTED)


def colors(root: Path) -> None:
    """CVAT's "segmentation mask" and Pascal VOC's layout."""
    write(root / 'labelmap.txt', '# label:color_rgb:parts:actions\ncar:255,0,0::\nroad:128,64,128::\nvoid:0,0,0::\n')
    palette = np.zeros((256, 3), np.uint8)
    palette[:2] = [255, 0, 0], [128, 64, 128]
    for file in images(root, 'JPEGImages'):
        save_mask(root / 'SegmentationClass' / f'{file.stem}.png', palette[EXPECTED])
        save_mask(root / 'SegmentationObject' / f'{file.stem}.png', palette[EXPECTED])
    for split, stems in (('train', STEMS[2:]), ('val', STEMS[:2])):
        write(root / 'ImageSets/Segmentation' / f'{split}.txt', '\n'.join(stems))


def colors_of_json(root: Path) -> None:
    write(root / 'classes.json', dict(car=[255, 0, 0], road='#804080'))
    palette = np.zeros((256, 3), np.uint8)
    palette[:2] = [255, 0, 0], [128, 64, 128]
    for file in images(root, ''):
        save_mask(file.with_name(f'{file.stem}_mask.png'), palette[EXPECTED])


def palettes(root: Path) -> None:
    """Indices that are no class numbers: their colors are what a file names."""
    write(root / 'labelmap.txt', 'car:255,0,0\nroad:128,64,128\n')
    for file in images(root):
        mask = Image.fromarray(np.where(EXPECTED == 255, 0, EXPECTED + 7).astype(np.uint8))
        mask.putpalette([0] * 21 + [255, 0, 0, 128, 64, 128])
        (root / 'labels').mkdir(exist_ok=True)
        mask.save(root / 'labels' / f'{file.stem}.png')


FORMATS = [coco, coco_runs, labelme, cvat, label_studio, yolo, numbers, colors, colors_of_json, palettes]


def result(out: Path) -> dict[str, np.ndarray]:
    return {file.stem: np.asarray(Image.open(file)) for file in out.glob('annotations/*/*.png')}


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


def broken(name: str, root: Path) -> None:
    if name == 'labels with no image':
        coco(root)
        (root / 'images/b_1.jpg').unlink()
    elif name == 'images with no label':
        numbers(root)
        (root / 'masks/b_1.png').unlink()
    elif name == 'one color':
        colors_of_json(root)
        write(root / 'classes.json', dict(car=[255, 0, 0], road=[255, 0, 0]))
    elif name == 'no class has':
        colors_of_json(root)
        save_mask(root / 'b_1_mask.png', np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8))
    elif name == 'more than 1024':
        colors_of_json(root)
        (root / 'classes.json').unlink()
        save_image(root / 'b_1_mask.png')
    elif name == 'another size':
        numbers(root)
        save_mask(root / 'masks/b_1.png', EXPECTED[1:])
    elif name == 'without a pixel':
        numbers(root)
        write(root / 'classes.txt', 'car\nroad\nbus\n')
    else:
        coco(root)
        file = root / 'annotations/instances.json'
        content = json.loads(file.read_text())
        entry = content['annotations'][6]
        if name == 'outside of them':
            entry['segmentation'] = [[-40, 5, 10, 5, 10, 20]]
        elif name == 'without a segmentation':
            entry['segmentation'] = []
        elif name == 'three or more':
            entry['segmentation'] = [[1, 2, 3, 4]]
        elif name == 'all finite':
            entry['segmentation'] = [[1, 2, 3, 4, 5, float('nan')]]
        elif name == 'do not make up':
            entry['segmentation'] = dict(size=[HEIGHT, WIDTH], counts=[5, 5])
        elif name == 'does not list':
            entry['category_id'] = 99
        elif name == 'no COCO file':
            content['images'][0] = 5
        write(file, content)


MISTAKES = {
    'labels with no image': True,
    'images with no label': True,
    'no class has': True,
    'another size': True,
    'without a pixel': True,
    'outside of them': True,
    'without a segmentation': True,
    'do not make up': True,
    'one color': False,
    'more than 1024': False,
    'three or more': False,
    'all finite': False,
    'does not list': False,
    'no COCO file': False,
}


@pytest.mark.parametrize('name', MISTAKES)
def test_what_cannot_be_used_is_named_and_may_be_left_out(tmp_path, name):
    broken(name, tmp_path / 'source')
    with pytest.raises(DataError, match=name) as error:
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()
    if name in ('labels with no image', 'images with no label', 'another size'):
        assert 'b_1' in str(error.value) and ' 1 ' in str(error.value)
    if not MISTAKES[name]:
        return
    dataset = convert(str(tmp_path / 'source'), str(tmp_path / 'out'), leave_out=True)
    assert dataset.classes == ['car', 'road'] and any('left out' in line and name in line for line in dataset.said)
    assert all(
        ((found == EXPECTED) | (found == 255)).all()
        for stem, found in result(tmp_path / 'out').items()
        if stem != 'b_1'
    )


SEGMENTATIONS = [
    *(
        dict(counts=counts, size=[HEIGHT, WIDTH])
        for counts in ([1e300], [float('nan')], [[1], [2, 3]], '~' * 99, [-5, 9])
    ),
    *(dict(counts=[4], size=size) for size in ([[2], 2], [2], 'ab', [10**9, 10**9], [1e400, 1])),
    *([[number] * 6] for number in (1e308, 10**400, 'x', [1], None)),
]


@pytest.mark.parametrize('segmentation', SEGMENTATIONS, ids=lambda value: str(value)[:40])
def test_no_numbers_of_a_file_are_more_than_one_line(tmp_path, segmentation):
    coco(tmp_path / 'source')
    file = tmp_path / 'source/annotations/instances.json'
    content = json.loads(file.read_text())
    for entry in content['annotations']:  # all, so that nothing is left where they are left out
        entry['segmentation'] = segmentation
    file.write_text(json.dumps(content))
    for leave_out in (False, True):
        with pytest.raises(DataError):
            convert(str(tmp_path / 'source'), str(tmp_path / 'out'), leave_out=leave_out)


@pytest.mark.slow
def test_generated_exports_are_a_data_set_or_one_line(tmp_path):
    coco(tmp_path / 'source')
    file = tmp_path / 'source/annotations/instances.json'
    content, rng = json.loads(file.read_text()), random.Random(0)
    for number in range(500):
        file.write_text(json.dumps(changed(content, rng)))
        try:
            convert(str(tmp_path / 'source'), str(tmp_path / 'out'), leave_out=bool(number % 2))
        except DataError as error:
            assert str(error)
    assert {path.name for path in tmp_path.iterdir()} <= {'source', 'out'}


def test_a_task_without_an_image_is_one_line(tmp_path):
    save_image(tmp_path / 'source/images/a.jpg')
    write(tmp_path / 'source/labels.json', [dict(id=7, data=dict(image=5), annotations=[])])
    with pytest.raises(DataError, match='task 7 is none of Label Studio: ValueError: data names no image'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))


def test_a_file_that_would_lead_elsewhere_or_explode_is_not_followed(tmp_path):
    save_image(tmp_path / 'secret/a_0.jpg')
    coco(tmp_path / 'source')
    file = tmp_path / 'source/annotations/instances.json'
    file.write_text(file.read_text().replace('"a_0.jpg"', '"../../secret/x_0.jpg"'))
    with pytest.raises(DataError, match='1 labels with no image'):
        convert(str(tmp_path / 'source'), str(tmp_path / 'out'))
    write(tmp_path / 'bomb/annotations.xml', '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations>&b;</annotations>')
    with pytest.raises(DataError, match='declares XML entities'):
        convert(str(tmp_path / 'bomb'), str(tmp_path / 'out'))
    write(tmp_path / 'deep/a.json', '[' * 100_000)
    with pytest.raises(DataError, match='no JSON'):
        convert(str(tmp_path / 'deep'), str(tmp_path / 'out'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='holds no labels'):
        convert(str(tmp_path / 'empty'), str(tmp_path / 'out'))


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


def test_names_that_are_no_texts_are_refused_before_they_are_written_out(tmp_path):
    # ten lists of ten of the one before: a few lines in the file, ten thousand million words as text
    bomb = 'a: &a [x]\n' + ''.join(
        f'{b}: &{b} [{", ".join(10 * [f"*{a}"])}]\n' for a, b in zip('abcdefghij', 'bcdefghijk')
    )
    write(tmp_path / 'data.yaml', bomb + 'names: *k\n')
    write(tmp_path / 'labels/1.txt', '0 0.1 0.1 0.2 0.1 0.2 0.2')
    with pytest.raises(DataError, match='names that are not'):
        convert(str(tmp_path), str(tmp_path.parent / 'out'))
