"""Label maps of the classes that a person wants, from those that a folder has."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import ConfigError, DataError
from ..orientation import TURN
from .masks import pixels
from .source import IGNORED, VOID, Sample, Source, layout

BACKGROUND = 'background'
# how an upright label map is laid over the stored pixels of an image that EXIF turns
_BACK = {**TURN, 6: TURN[8], 8: TURN[6]}


@dataclass(frozen=True)
class Classes:
    """The classes of the label maps, and what becomes of those of the source.

    Attributes:
        names: by number.
        number: of each class of the source; 255 for those that are dropped.
        unlabelled: the number of pixels without a class: of the background, or 255.
    """

    names: list[str]
    number: dict[str, int]
    unlabelled: int = IGNORED


@dataclass
class Drawn:
    """An image and its label map.

    Attributes:
        sample: what it was drawn from.
        image: the image's file.
        label_map: PNG of class numbers, over the pixels as they are stored.
        counts: (256,) pixels of each number.
    """

    sample: Sample
    image: Path
    label_map: bytes
    counts: np.ndarray = field(repr=False)


def classes_of(source: Source, mapping: dict[str, str], background: bool) -> Classes:
    """The classes of the label maps, as a person wants them.

    Args:
        source: whose classes they are.
        mapping: new name by name; an empty one drops the class, whose pixels are ignored then.
        background: pixels without a class are a class too, the first one.

    Raises:
        ConfigError: for a mapping of classes that there are not, and for more than 255 classes.
    """
    unknown = [name for name in mapping if name not in source.classes]
    if unknown:
        raise ConfigError(
            f'--classes names {", ".join(map(repr, unknown))}, and the labels have '
            f'{", ".join(map(repr, source.classes[:30]))}'
        )
    renamed = {name: mapping.get(name, '' if name.lower() in VOID else name) for name in source.classes}
    names = [BACKGROUND] if background else []
    names = list(dict.fromkeys([*names, *(name for name in renamed.values() if name)]))
    if len(names) > IGNORED:
        raise ConfigError(f'there are {len(names)} classes, and a label map holds 255 at most: merge some by --classes')
    number = {name: names.index(new) if new else IGNORED for name, new in renamed.items()}
    return Classes(names, number, names.index(BACKGROUND) if background else IGNORED)


def draw(source: Source, classes: Classes) -> list[Drawn]:
    """Draws a label map for every sample with an image; what cannot be used is noted in ``source`` and left out."""
    drawn, first = [], dict[Path, str]()
    for sample in source.samples:
        if sample.image is None:
            source.mistake('labels with no image', sample.label)
            continue
        if sample.image in first:
            source.mistake('images that are labelled twice', f'{sample.label} (and in {first[sample.image]})')
            continue
        try:
            labels = (_numbers if sample.mask else _drawn)(source, sample, sample.image, classes)
        except DataError as error:
            source.mistake('files that cannot be used', str(error))
            continue
        if labels is None:
            continue
        counts = np.bincount(labels.ravel(), minlength=256)
        if not counts[:IGNORED].any():
            source.mistake('images with no label', sample.label)
            continue
        first[sample.image] = sample.label
        drawn.append(Drawn(sample, sample.image, _png(labels), counts))
    for image in source.unlabelled:
        source.mistake('images with no label', image.name)
    return drawn


def _numbers(source: Source, sample: Sample, image: Path, classes: Classes) -> np.ndarray | None:
    """The class numbers of a label map that is there; it lies over its image as it did."""
    assert sample.mask
    values = pixels(sample.mask, source.colored)
    size, orientation = layout(image)
    if values.shape != size[::-1] and not (values.shape == size and orientation >= 5):
        source.mistake(
            'label maps of another size than their image',
            f'{sample.label} ({values.shape[1]} x {values.shape[0]}, {size[0]} x {size[1]})',
        )
        return None
    known, where = np.unique(values, return_inverse=True)
    numbers = [
        classes.number[source.values[value]] if value in source.values else IGNORED if value else classes.unlabelled
        for value in known.tolist()
    ]
    return np.array(numbers, np.uint8)[where].reshape(values.shape)


def _drawn(source: Source, sample: Sample, image: Path, classes: Classes) -> np.ndarray | None:
    stored, orientation = layout(image)
    upright = stored[::-1] if orientation >= 5 else stored
    size = sample.size or upright
    if size not in (upright, stored):
        source.mistake(
            'labels of another size than their image',
            f'{sample.label} ({size[0]} x {size[1]}, {upright[0]} x {upright[1]})',
        )
        return None
    labels = np.full(size[::-1], classes.unlabelled, np.uint8)
    outside = 0
    for shape in sample.shapes:
        number = classes.number[shape.name]
        for polygon in shape.polygons:
            outside += _is_outside(polygon, size)
            fill(labels, polygon, number)
        if shape.mask:
            left, top = shape.at
            mask = shape.mask()
            outside += _is_outside(np.array([shape.at, (left + mask.shape[1], top + mask.shape[0])]), size)
            mask = mask[max(-top, 0) :, max(-left, 0) :]
            part = labels[max(top, 0) :, max(left, 0) :][: mask.shape[0], : mask.shape[1]]
            part[mask[: part.shape[0], : part.shape[1]]] = number
    if outside:
        source.mistake('images with shapes outside of them', f'{sample.label} ({outside}, of {size[0]} x {size[1]})')
    if size == upright and orientation in _BACK:
        return np.asarray(Image.fromarray(labels).transpose(_BACK[orientation]))
    return labels


def fill(labels: np.ndarray, polygon: np.ndarray, number: int) -> None:
    """Sets the pixels whose centers are inside of a polygon, by the even-odd rule.

    Pillow and OpenCV fill the pixels that the outline touches as well: a tenth more of an area of 200 pixels.

    Args:
        labels: (H, W), changed in place.
        polygon: (n, 2) x and y from the upper left corner.
        number: what is set.
    """
    # of a center at half, ceil(edge - 0.5) is the first pixel behind an edge
    height, width = labels.shape
    points = np.clip(polygon, -(2.0**24), 2.0**24) - 0.5
    top, bottom = (int(np.clip(np.ceil(edge), 0, height)) for edge in (points[:, 1].min(), points[:, 1].max()))
    crossings = np.zeros((bottom - top, width + 1), np.uint8)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0)):
        first, last = sorted((y0, y1))
        rows = np.arange(max(np.ceil(first), top), min(np.ceil(last), bottom), dtype=int)
        columns = np.ceil(x0 + (rows - y0) * ((x1 - x0) / (y1 - y0))) if len(rows) else rows
        crossings[rows - top, np.clip(columns, 0, width).astype(int)] ^= 1
    inside = np.bitwise_xor.accumulate(crossings, 1)[:, :width] > 0
    labels[top:bottom][inside] = number


def _is_outside(points: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether points leave the image by more than the pixel that tools round by."""
    return bool((points < -1).any() or (points > np.array(size) + 1).any())


def renumber(drawn: list[Drawn], classes: Classes, names: list[str]) -> Classes:
    """Numbers the label maps by some of their classes, which it returns; the pixels of the others are ignored."""
    if names == classes.names:
        return classes
    table = np.full(256, IGNORED, np.uint8)
    table[[classes.names.index(name) for name in names]] = range(len(names))
    for one in drawn:
        labels = table[np.asarray(Image.open(io.BytesIO(one.label_map), formats=['PNG']))]
        one.label_map, one.counts = _png(labels), np.bincount(labels.ravel(), minlength=256)
    number = {name: int(table[old]) for name, old in classes.number.items()}
    return Classes(names, number, int(table[classes.unlabelled]))


def _png(labels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, 'PNG')
    return stream.getvalue()


def shares(drawn: Iterable[Drawn], classes: Classes) -> dict[str, float]:
    """The share of each class in the labelled pixels, 0 to 1."""
    counts = np.sum([one.counts for one in drawn], axis=0)[: len(classes.names)]
    return dict(zip(classes.names, (counts / max(counts.sum(), 1)).tolist()))
