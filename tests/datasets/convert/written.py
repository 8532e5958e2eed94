"""One street scene as tools for labelling write it, in every format that is read."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

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
    """The label maps that a conversion wrote, by the name of their image."""
    return {file.stem: np.asarray(Image.open(file)) for file in out.glob('annotations/*/*.png')}
