"""Label Studio's JSON and JSON-MIN: polygons, brushes, rectangles and ellipses."""

import re
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from ...errors import DataError
from ..images import files_in
from .source import Images, Sample, Shape, Source, box, ellipse, points, polygon, read_json, split_of

KINDS = ('polygonlabels', 'brushlabels', 'rectanglelabels', 'ellipselabels')
_UPLOADED = re.compile(r'^[0-9a-f]{8}-')  # what it puts before the names of files


def read(root: Path) -> Source | None:
    """Reads a folder with Label Studio's exports; None when it has none."""
    contents = {path: read_json(path) for path in files_in(root, ('.json',))}
    contents = {path: content for path, content in contents.items() if _is_export(content)}
    if not contents:
        return None
    images, source = Images(root), Source('Label Studio', [])
    for path, tasks in contents.items():
        for number, task in enumerate(tasks):
            where = f'{path.name}, task {task.get("id", number)}'
            try:
                source.samples.append(_sample(task, where, path, images, source, root))
            except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
                raise DataError(f'{where} is none of Label Studio: {type(error).__name__}: {error}') from error
    source.classes = sorted({shape.name for sample in source.samples for shape in sample.shapes})
    source.unlabelled = images.rest()
    return source


def _is_export(content) -> bool:
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        return False
    return all('annotations' in task and 'data' in task or 'image' in task for task in content)


def _sample(task: dict, where: str, path: Path, images: Images, source: Source, root: Path) -> Sample:
    if 'data' in task:
        addresses = [value for value in task['data'].values() if isinstance(value, str)]
        if not addresses:
            raise ValueError('data names no image')
        done = [one for one in task['annotations'] if not one.get('was_cancelled')]
        if len(done) > 1:
            source.notes.append(f'{where} was labelled {len(done)} times: the first is taken')
        results = [
            (result, result['value'], result['type'])
            for result in (done[0]['result'] if done else ())
            if 'value' in result
        ]
    else:
        addresses = [str(task['image'])]
        results = [
            (value, value, next((kind for kind in KINDS if kind in value), ''))
            for key, values in task.items()
            if isinstance(values, list)
            for value in values
            if isinstance(value, dict)
        ]
    shapes, size = [], None
    for result, value, kind in results:
        if kind not in KINDS:
            source.mistake('shapes that are no area', f'{where} ({kind})')
            continue
        size = int(result['original_width']), int(result['original_height'])
        if result.get('image_rotation'):
            raise DataError(f'{where} was labelled on an image that was turned there: turn the file, and label again')
        shapes.append(_shape(value, kind, size, where))
    names = [unquote(address.split('?d=')[-1].split('?')[0]) for address in addresses]  # a caption may be among them
    bare = [_UPLOADED.sub('', re.split(r'[/\\]', name)[-1]) for name in names]
    image = next(filter(None, (images.find(name, path) for name in (*names, *bare))), None)
    return Sample(
        image,
        f'{", ".join(names)} of {path.name}',
        tuple(shapes),
        None,
        split_of(image.parent, root) if image else None,
        size,
    )


def _shape(value: dict, kind: str, size: tuple[int, int], where: str) -> Shape:
    name = str(value[kind][0])
    if kind == 'brushlabels':
        return Shape(name, mask=partial(decode, value['rle'], size, where))
    percent = np.array(size) / 100
    if kind == 'polygonlabels':
        return Shape(name, (points(value['points'], where) * percent,))
    x, y = np.array([value['x'], value['y']], dtype=np.float64) * percent
    turn = float(value.get('rotation') or 0)
    if kind == 'ellipselabels':
        radii = np.array([value['radiusX'], value['radiusY']]) * percent
        return polygon(name, ellipse([x, y, *radii], turn), where)
    width, height = np.array([value['width'], value['height']]) * percent
    # it turns rectangles around their upper left corner
    return polygon(name, box([x, y, x + width, y + height], turn, around=(x, y)), where)


def decode(code: list[int], size: tuple[int, int], where: str) -> np.ndarray:
    """Label Studio's code of a brush as a mask: (height, width) bool.

    Its bits are: 32 of the number of values, 5 of the bits of a value, 4 times 4 of the bits of a run's length; then
    runs: whether one value stands for all of it, 2 of which length has how many bits, the length, and the values. The
    values are RGBA, of which the last counts.

    Args:
        code: bytes.
        size: width and height.
        where: for the message.

    Raises:
        DataError: when it does not make up the image.
    """
    width, height = size
    try:
        bits = ''.join(f'{byte:08b}' for byte in bytes(code))
        place = 0

        def take(count: int) -> int:
            nonlocal place
            place += count
            if place > len(bits):
                raise ValueError('it ends too early')
            return int(bits[place - count : place], 2)

        total, word = take(32), take(5) + 1
        if total != width * height * 4 or total > 2**29:
            raise ValueError(f'it has {total} values')
        lengths = [take(4) + 1 for _ in range(4)]
        values, done = np.zeros(total, np.uint8), 0
        while done < total:
            same, end = take(1), 0
            end = min(done + 1 + take(lengths[take(2)]), total)
            if same:
                values[done:end] = take(word)
            else:
                values[done:end] = [take(word) for _ in range(end - done)]
            done = end
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f'{where} holds a brush that does not make up {width} x {height} pixels: {error}') from error
    return values.reshape(height, width, 4)[..., 3] > 0
