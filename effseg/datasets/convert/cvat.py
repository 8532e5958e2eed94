"""CVAT's XML, "CVAT for images"."""

import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...errors import DataError
from ..images import files_in
from .source import Images, Sample, Shape, Source, box, ellipse, in_runs, polygon, read_text, split_of

DRAWN = ('polygon', 'mask', 'box', 'ellipse')


def read(root: Path) -> Source | None:
    """Reads a folder with CVAT's annotations.xml; None when it has none."""
    trees = {path: _parse(path) for path in files_in(root, ('.xml',))}
    trees = {path: tree for path, tree in trees.items() if tree.tag == 'annotations'}
    if not trees:
        return None
    images, source = Images(root), Source('CVAT', [])
    for path, tree in trees.items():
        if tree.find('track') is not None:
            raise DataError(f'{path} holds the tracks of a video: export the task from CVAT as "CVAT for images"')
        for label in tree.iterfind('meta//labels/label'):
            name = label.findtext('name') or ''
            source.classes += [name] * (name not in source.classes)
            source.colors[name] = _color(label.findtext('color') or '', path)
        try:
            for image in tree.iterfind('image'):
                source.samples.append(_sample(image, path, images, source, root))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f'{path} is no file of CVAT as it should be: {type(error).__name__}: {error}') from error
    used = {shape.name for sample in source.samples for shape in sample.shapes}
    source.classes += sorted(used - {*source.classes})
    source.colors = {name: color for name, color in source.colors.items() if color}
    source.unlabelled = images.rest()
    return source


def _parse(path: Path) -> ElementTree.Element:
    text = read_text(path)
    if '<!DOCTYPE' in text or '<!ENTITY' in text:  # entities of entities are a bomb; no tool writes any
        raise DataError(f'{path} declares XML entities, which no labelling tool does: it is not read')
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f'{path} is no XML: {error}') from error


def _color(text: str, path: Path) -> tuple:
    if text and not re.fullmatch('#?[0-9a-fA-F]{6}', text):
        raise DataError(f'{path} has a label of the color {text!r}; #RRGGBB was expected')
    return tuple(bytes.fromhex(text.removeprefix('#')))


def _sample(image: ElementTree.Element, path: Path, images: Images, source: Source, root: Path) -> Sample:
    name = image.attrib['name']
    label = f'{name} of {path.name}'
    drawn = []
    for entry in image:
        if entry.tag in DRAWN:
            drawn.append((int(entry.get('z_order') or 0), _shape(entry, label)))
        elif entry.tag != 'tag':
            source.mistake('shapes that are no area', f'{label} ({entry.tag})')
    drawn.sort(key=lambda item: item[0])
    size = (int(image.attrib['width']), int(image.attrib['height']))
    found = images.find(name, path)
    split = split_of(Path(root, image.get('subset') or ''), root) or (split_of(found.parent, root) if found else None)
    return Sample(found, label, tuple(shape for _, shape in drawn), None, split, size)


def _shape(entry: ElementTree.Element, where: str) -> Shape:
    name = entry.attrib['label']
    number = {key: float(value) for key, value in entry.attrib.items() if key in _NUMBERS}
    turn = number.get('rotation', 0.0)
    if entry.tag == 'polygon':
        pairs = [pair.split(',') for pair in entry.attrib['points'].split(';')]
        return polygon(name, pairs, where)
    if entry.tag == 'mask':
        size = int(number['width']), int(number['height'])
        runs = [int(run) for run in entry.attrib['rle'].split(',')]
        return Shape(name, mask=partial(decode, runs, size, where), at=(int(number['left']), int(number['top'])))
    if entry.tag == 'box':
        return polygon(name, box([number[key] for key in ('xtl', 'ytl', 'xbr', 'ybr')], turn), where)
    return polygon(name, ellipse([number[key] for key in ('cx', 'cy', 'rx', 'ry')], turn), where)


_NUMBERS = ('width', 'height', 'left', 'top', 'xtl', 'ytl', 'xbr', 'ybr', 'cx', 'cy', 'rx', 'ry', 'rotation')


def decode(runs: list[int], size: tuple[int, int], where: str) -> np.ndarray:
    """CVAT's run lengths as a mask: pixels in turn outside and inside, row by row; gives (height, width) bool.

    Raises:
        DataError: when they do not make up ``size``, width and height.
    """
    width, height = size
    return in_runs(np.array(runs, dtype=np.int64), width, height, where).reshape(height, width)
