"""YOLO's polygons: a data.yaml, and one text file an image."""

import contextlib
from pathlib import Path

import numpy as np
import yaml

from ...errors import DataError
from ..images import files_in
from .source import Images, Sample, Shape, Source, polygon, read_text, split_of, upright_size


def read(root: Path) -> Source | None:
    """Reads a folder with YOLO's labels; None when it has none."""
    names = _names(root)
    files = [path for path in files_in(root, ('.txt',)) if 'labels' in path.relative_to(root).parent.parts]
    if names is None or not files:
        return None
    images, source = Images(root), Source('YOLO', [], [*names.values()])
    for path in files:
        shapes = []
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if not line.strip():
                continue
            where = f'{path}, line {number}'
            try:
                index, *values = [float(word) for word in line.split()]
            except ValueError as error:
                raise DataError(f'{where} holds words that are no numbers') from error
            if index not in names:
                raise DataError(f'{where} is of class {index:g}, and data.yaml names {", ".join(map(str, names))}')
            if len(values) == 4:
                source.mistake('boxes, which do not say which pixels', where)
            else:
                shapes.append(polygon(names[int(index)], values, where))
        # the format has no order: what is small lies on top
        shapes.sort(key=lambda shape: -np.ptp(shape.polygons[0], 0).prod())
        image, size = images.find(path.name, path), (1, 1)
        if image:
            with contextlib.suppress(DataError):  # of an image that cannot be read, which is said as it is drawn
                size = upright_size(image)
        scaled = tuple(Shape(shape.name, (shape.polygons[0] * size,)) for shape in shapes)
        source.samples.append(Sample(image, str(path.relative_to(root)), scaled, None, split_of(path.parent, root)))
    source.unlabelled = images.rest()
    return source


def _names(root: Path) -> dict[int, str] | None:
    for path in files_in(root, ('.yaml', '.yml')):
        try:
            names = yaml.safe_load(read_text(path)).get('names')
        except (AttributeError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict):
            continue
        # aliases of aliases are small in the file, and as text larger than the memory
        if not all(isinstance(number, int) and isinstance(name, (str, int, float)) for number, name in names.items()):
            raise DataError(f'{path} has names that are not a list of texts, or texts by class number')
        return {number: str(name) for number, name in names.items()}
    return None
