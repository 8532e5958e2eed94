"""The fit of a file: how a photo of any size becomes images of the file's one size, and how their results become labels
of the photo's size. In numpy and Pillow; ``docs/deploy.md`` has the same arithmetic for other languages.

``'letterbox'``: the photo is resized, its proportions kept, until it fills the image one way, and stands in its upper
left corner; the rest has the mean color. ``'stretch'``: it is resized to the image, whatever its proportions.
``'windows'``: it keeps its size, and is cut into images that overlap.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .host import Cells, cells_of, decide, decide_confidently
from .spec import Spec

Run = Callable[[np.ndarray], Any]
Maps = tuple[np.ndarray, ...]  # of one size: labels, or labels and their confidence
ALIGNMENT = 32  # windows of some size begin at its multiples, where every map of a network begins when it sees it all


def labels_of(photo: np.ndarray, spec: Spec, run: Run) -> np.ndarray:
    """The class of every pixel of a photo: (h, w) int32.

    Args:
        photo: (h, w, 3) uint8 RGB, of any size.
        spec: of the file.
        run: gives the file's result for an image of its size, without the batch.
    """
    return _maps(photo, spec, run, False)[0]


def confident_of(photo: np.ndarray, spec: Spec, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The class of every pixel of a photo, and its probability; arguments as in :func:`labels_of`.

    Returns:
        (h, w) int32 and (h, w) float32.
    """
    labels, confidence = _maps(photo, spec, run, True)
    return labels, confidence


def _maps(photo: np.ndarray, spec: Spec, run: Run, confident: bool) -> Maps:
    if spec.fit == 'windows':
        return (_blended if _blends(spec) else _pieced)(photo, spec, run, confident)
    content = content_of(photo.shape[:2], spec)
    return _back(run(to_image(photo, content, spec)), photo.shape[:2], content, spec, confident)


def content_of(size: Sequence[int], spec: Spec) -> tuple[int, int]:
    """(height, width) that a photo of ``size`` has in the file's image."""
    if spec.fit == 'stretch':
        return spec.height, spec.width
    scale = min(spec.height / size[0], spec.width / size[1])
    height, width = (max(int(side * scale + 0.5), 1) for side in size)
    return min(height, spec.height), min(width, spec.width)


def to_image(photo: np.ndarray, content: tuple[int, int], spec: Spec) -> np.ndarray:
    """The file's image, with the photo in its upper left corner: (H, W, 3) uint8.

    Args:
        photo: (h, w, 3) uint8.
        content: (height, width) to resize it to, by a bilinear filter as wide as it shrinks.
        spec: of the file.
    """
    if photo.shape[:2] != content:
        from PIL import Image

        resized = Image.fromarray(np.ascontiguousarray(photo)).resize(content[::-1], Image.Resampling.BILINEAR)
        photo = np.asarray(resized)
    if content == (spec.height, spec.width):
        return photo
    image = np.empty(spec.image_shape, dtype=np.uint8)
    image[:] = fill_of(spec)
    image[: content[0], : content[1]] = photo
    return image


def fill_of(spec: Spec) -> tuple[int, ...]:
    """The color (R, G, B) of what is no photo: the mean, which is zero behind the normalisation."""
    return tuple(min(max(int(value + 0.5), 0), 255) for value in spec.mean)


def _back(result: Any, size: Sequence[int], content: tuple[int, int], spec: Spec, confident: bool) -> Maps:
    """Labels of ``size`` = (h, w) from the part ``content`` of a result: from logits by one bilinear resize and the
    largest, from labels by the nearest."""
    if spec.output == 'logits':
        sides = zip(result.shape[1:], (spec.height, spec.width), content, size)
        rows, columns = (cells_of(*lengths, spec.align_corners) for lengths in sides)
        return _decided(result, rows, columns, spec, confident)
    maps = result[: 1 + confident] if spec.confident else (result,)
    if tuple(size) == maps[0].shape:
        return maps
    down, across = ((2 * np.arange(side) + 1) * part // (2 * side) for side, part in zip(size, content))
    return tuple(one[down[:, None], across] for one in maps)


def _decided(logits: np.ndarray, rows: Cells, columns: Cells, spec: Spec, confident: bool) -> Maps:
    if confident:
        return decide_confidently(logits, rows, columns, spec.threshold)
    return (decide(logits, rows, columns, spec.threshold),)


def _empty(size: tuple[int, ...], confident: bool) -> Maps:
    return tuple(np.empty(size, dtype) for dtype in (np.int32, np.float32)[: 1 + confident])


def starts(length: int, window: int, cell: int = 1) -> list[int]:
    """Where windows over a length begin: at multiples of ``cell``, sharing a quarter with the next, or more. The last
    one may reach beyond the end."""
    step = ALIGNMENT if window >= 8 * ALIGNMENT else cell
    last = -(-max(length - window, 0) // step) * step
    return [*range(0, last, max(window * 3 // 4 // step * step, step)), last]


def middles(length: int, window: int, begin: list[int]) -> list[tuple[int, int]]:
    """The part of each window that is farther from its ends than from those of its neighbours."""
    borders = [0, *((start + following + window) // 2 for start, following in pairwise(begin)), length]
    return list(pairwise(borders))


def _blends(spec: Spec) -> bool:
    """Whether the logits of windows lie on one grid, so that they can be averaged."""
    assert spec.grid is not None  # left out, it was filled in
    if spec.output != 'logits' or spec.align_corners:
        return False
    return all(
        side % count == 0 and ALIGNMENT % (side // count) == 0 for side, count in zip(spec.image_shape, spec.grid)
    )


def _window(photo: np.ndarray, top: int, left: int, spec: Spec) -> np.ndarray:
    part = photo[top : top + spec.height, left : left + spec.width]
    return to_image(part, part.shape[:2], spec)


def _pieced(photo: np.ndarray, spec: Spec, run: Run, confident: bool) -> Maps:
    """The middle of every window: of labels one must decide, since averaged they would tie."""
    height, width = photo.shape[:2]
    whole = spec.height, spec.width
    tops, lefts = starts(height, spec.height), starts(width, spec.width)
    maps = _empty((height, width), confident)
    for top, (start, end) in zip(tops, middles(height, spec.height, tops)):
        for left, (first, last) in zip(lefts, middles(width, spec.width, lefts)):
            pieces = _back(run(_window(photo, top, left, spec)), whole, whole, spec, confident)
            for one, piece in zip(maps, pieces):
                one[start:end, first:last] = piece[start - top : end - top, first - left : last - left]
    return maps


class _Side(NamedTuple):
    """The windows along one side of a photo."""

    begin: list[int]  # their first cells
    fades: list[np.ndarray]  # the weight of each of their cells; those of windows that overlap sum to one
    pixels: Cells  # where the photo's pixels lie among the cells
    cell: int  # its pixels


def _side(length: int, window: int, count: int) -> _Side:
    cell = window // count
    begin = [start // cell for start in starts(length, window, cell)]
    tent = np.minimum(np.arange(count), np.arange(count)[::-1]) + 0.5  # the distance to the window's edge
    total = np.zeros(begin[-1] + count)
    for start in begin:
        total[start : start + count] += tent
    fades = [(tent / total[start : start + count]).astype(np.float32) for start in begin]
    return _Side(begin, fades, cells_of(len(total), len(total) * cell, length, length), cell)


def _blended(photo: np.ndarray, spec: Spec, run: Run, confident: bool) -> Maps:
    """The largest of the windows' averaged logits, each weighted by its distance to its window's edge: a window fades
    into the next. Lines of cells that no further window reaches become labels at once, so that memory does not grow
    with the photo's height."""
    assert spec.grid is not None
    (height, width), (down, across) = photo.shape[:2], spec.grid
    rows, columns = _side(height, spec.height, down), _side(width, spec.width, across)
    maps = _empty((height, width), confident)
    # the line that precedes those of a row of windows, which is done already, and these
    lines = np.zeros((spec.channels, 1 + down, columns.begin[-1] + across), dtype=np.float32)
    done = 0
    for top, ready, fade in zip(rows.begin, [*rows.begin[1:], rows.begin[-1] + down], rows.fades):
        for left, weights in zip(columns.begin, columns.fades):
            result = run(_window(photo, top * rows.cell, left * columns.cell, spec))
            lines[:, 1:, left : left + across] += result * (fade[:, None] * weights)
        end = int(np.searchsorted(rows.pixels.after, ready))
        pixels = rows.pixels.between(done, end, top - 1)
        for one, part in zip(maps, _decided(lines, pixels, columns.pixels, spec, confident)):
            one[done:end] = part
        lines = np.roll(lines, top - ready, axis=1)
        lines[:, 1 + down + top - ready :] = 0
        done = end
    return maps
