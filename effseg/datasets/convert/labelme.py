"""labelme's JSON, one file an image."""

import base64
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import DataError
from ..images import files_in, open_image
from .source import Images, Sample, Shape, Source, box, ellipse, polygon, read_json, split_of


def read(root: Path) -> Source | None:
    """Reads a folder with labelme's files; None when it has none."""
    contents = {path: read_json(path) for path in files_in(root, ('.json',))}
    contents = {
        path: content
        for path, content in contents.items()
        if isinstance(content, dict) and isinstance(content.get('shapes'), list)
    }
    if not contents:
        return None
    images, source = Images(root), Source('labelme', [])
    for path, content in contents.items():
        shapes = []
        for number, entry in enumerate(content['shapes']):
            where = f'{path}, shape {number}'
            try:
                shape = _shape(entry, where)
            except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
                raise DataError(f'{where} is none of labelme: {type(error).__name__}: {error}') from error
            if shape is None:
                source.mistake('shapes that are no area', f'{where} ({entry.get("shape_type")})')
            else:
                shapes.append(shape)
        name = str(content.get('imagePath') or path.name)
        # labelme keeps images beside their files, whose names survive where that of the image was changed
        image = images.find(name, path) or images.find(path.name, path)
        size = (content.get('imageWidth'), content.get('imageHeight'))
        source.samples.append(
            Sample(
                image,
                str(path.relative_to(root)),
                tuple(shapes),
                None,
                split_of(path.parent, root),
                size if all(size) else None,
            )
        )
    source.classes = sorted({shape.name for sample in source.samples for shape in sample.shapes})
    source.unlabelled = images.rest()
    return source


def _shape(entry: dict, where: str) -> Shape | None:
    name, kind, values = str(entry['label']), entry.get('shape_type') or 'polygon', entry['points']
    if kind in ('polygon', 'linestrip') and len(values) > 2:
        return polygon(name, values, where) if kind == 'polygon' else None
    corners = np.asarray(values, dtype=np.float64)
    if kind == 'mask':
        left, top = corners.min(0).round().astype(int).tolist()
        return Shape(name, mask=partial(_mask, entry['mask'], where), at=(left, top))
    if kind == 'rectangle':
        return polygon(name, box([*corners.min(0), *corners.max(0)]), where)
    if kind == 'circle':
        radius = float(np.hypot(*(corners[1] - corners[0])))
        return polygon(name, ellipse([*corners[0], radius, radius]), where)
    return None


def _mask(text: str, where: str) -> np.ndarray:
    try:
        with open_image(io.BytesIO(base64.b64decode(text))) as image:
            return np.asarray(image.convert('L')) > 0
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{where} holds a mask that cannot be read: {error}') from error
