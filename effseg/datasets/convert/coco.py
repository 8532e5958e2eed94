"""COCO's JSON: polygons and run lengths, of one file or one a split."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..images import files_in
from .source import Images, Sample, Shape, Source, in_runs, points, read_json, split_of

KEYS = {'images', 'annotations', 'categories'}


def read(root: Path) -> Source | None:
    """Reads a folder with COCO files; None when it has none."""
    contents = {path: read_json(path) for path in files_in(root, ('.json',)) if _looks_like_it(path)}
    contents = {path: content for path, content in contents.items() if isinstance(content, dict) and KEYS <= {*content}}
    if not contents:
        return None
    images, samples, source = Images(root), [], Source('COCO', [])
    for path, content in contents.items():
        try:
            samples += _samples(path, content, images, source, split_of(path, root))  # such as instances_train2017.json
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f'{path} is no COCO file as it should be: {type(error).__name__}: {error}') from error
    source.samples, source.unlabelled = samples, images.rest()
    return source


def _looks_like_it(path: Path) -> bool:
    with path.open('rb') as file:  # labelme's files are many, and each is read whole elsewhere
        return not re.search(rb'"shapes"\s*:', file.read(4096))


def _samples(path: Path, content: dict, images: Images, source: Source, split: str | None) -> list[Sample]:
    names = {category['id']: str(category['name']) for category in content['categories']}
    source.classes += [name for name in names.values() if name not in source.classes]
    shapes: dict[int, list[tuple[float, Shape]]] = {}
    for annotation in content['annotations']:
        where = f'{path}, annotation {annotation.get("id")}'
        if annotation['category_id'] not in names:
            raise DataError(f'{where} is of category {annotation["category_id"]}, which the file does not list')
        shape = _shape(names[annotation['category_id']], annotation.get('segmentation'), where)
        if shape is None:
            source.mistake('annotations without a segmentation (a box does not say which pixels)', where)
            continue
        shapes.setdefault(annotation['image_id'], []).append((float(annotation.get('area') or 0), shape))
    found = []
    for image in content['images']:
        # the format has no order: what is small lies on top
        drawn = sorted(shapes.get(image['id'], ()), key=lambda item: -item[0])
        size = (image['width'], image['height']) if image.get('width') and image.get('height') else None
        name = str(image['file_name'])
        label = f'{name} of {path.name}'
        found.append(Sample(images.find(name, path), label, tuple(shape for _, shape in drawn), None, split, size))
    return found


def _shape(name: str, segmentation, where: str) -> Shape | None:
    if isinstance(segmentation, dict):
        return Shape(name, mask=partial(decode, segmentation['counts'], segmentation['size'], where))
    if not segmentation:
        return None
    return Shape(name, tuple(points(polygon, where) for polygon in segmentation))


def decode(counts: list[int] | str, size: list[int], where: str) -> np.ndarray:
    """COCO's run lengths, plain or in its text form, as a mask: (height, width) bool.

    Args:
        counts: pixels in turn outside and inside, column by column.
        size: height and width.
        where: for the message.

    Raises:
        DataError: when they do not make up the image.
    """
    try:
        runs = np.asarray(_numbers(counts) if isinstance(counts, str) else counts, dtype=np.int64)
        height, width = map(int, size)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f'{where} has run lengths that are no numbers, which do not make up an image') from error
    return in_runs(runs, width, height, where).reshape(width, height).T


def _numbers(text: str) -> list[int]:
    """Decodes the run lengths of COCO's compressed RLE.

    A character holds six bits: five of a number, the lowest first, and whether more follow. From the third number on
    each is the difference to the number two before."""
    numbers: list[int] = []
    value = shift = 0
    for character in text.encode('ascii'):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    return numbers
