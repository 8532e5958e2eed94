"""From the logits of an artifact to labels at any size, on the host, in numpy."""

import math
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError


class Cells(NamedTuple):
    """Between which cells of the logits the pixels along one side of a photo lie.

    Attributes:
        before, after: index of the cell on either side of each pixel; the same one at the ends.
        weight: of the latter, 0 to 1, float32.
    """

    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray

    def between(self, start: int, end: int, first: int = 0) -> 'Cells':
        """Those of the pixels ``start`` to ``end``, the cells counted from ``first``."""
        return Cells(self.before[start:end] - first, self.after[start:end] - first, self.weight[start:end])


def label_map(
    logits: np.ndarray, size: tuple[int, int], align_corners: bool = False, threshold: float | None = None
) -> np.ndarray:
    """The label of every pixel: ``argmax(resize(logits, size))``, without making the resized logits.

    Args:
        logits: (channels, h, w) float32.
        size: (H, W) of the label map. Resizing is bilinear.
        align_corners: of the resize, as in the artifact's spec.
        threshold: for logits of one channel, as in the artifact's spec: label 1 where their sigmoid exceeds it, else 0.

    Returns:
        (H, W) int32. Where two classes tie to the last bit at every corner the lower one is taken; classes that tie
        only after mixing may differ from another runtime's rounding.

    Raises:
        ConfigError: for logits of one channel without a threshold.
    """
    rows, columns = (cells_of(count, side, side, side, align_corners) for count, side in zip(logits.shape[1:], size))
    return decide(logits, rows, columns, threshold)


def cells_of(count: int, image: int, content: int, target: int, align_corners: bool = False) -> Cells:
    """Between which cells the pixels along a side lie.

    Args:
        count: cells along the side.
        image, content: pixels of the image, and of the part of it that is shown.
        target: pixels that the part is resized to.
        align_corners: whether the first and the last cell lie on the first and the last pixel of the image.
    """

    def cell(pixel):
        if align_corners:
            return pixel * ((count - 1) / max(image - 1, 1))
        return (pixel + 0.5) * (count / image) - 0.5

    position = np.maximum(cell((np.arange(target) + 0.5) * (content / target) - 0.5), 0)
    last = max(int(cell(content - 1) + 1e-6), 0)  # the last cell whose center the part shows
    before = np.minimum(position.astype(np.int64), last)
    return Cells(before, np.minimum(before + 1, last), (position - before).astype(np.float32))


def decide_confidently(
    logits: np.ndarray, rows: Cells, columns: Cells, threshold: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The class of every pixel and its probability; arguments as in :func:`decide`.

    Returns:
        (H, W) int32, and (H, W) float32: of the softmax, or with a threshold of the sigmoid, of the mixed logits.
    """
    labels = np.empty((len(rows.before), len(columns.before)), dtype=np.int32)
    confidence = np.empty(labels.shape, dtype=np.float32)
    lines = max(1, (1 << 20) // (len(logits) * labels.shape[1]))  # a few MB at a time
    for top in range(0, len(labels), lines):
        part = slice(top, top + lines)
        before, after, down = (one[part] for one in rows)
        mixed = logits[:, before] * (1 - down)[:, None] + logits[:, after] * down[:, None]
        mixed = mixed[..., columns.before] * (1 - columns.weight) + mixed[..., columns.after] * columns.weight
        if len(logits) == 1:
            if threshold is None:
                raise ConfigError("logits of one channel need the threshold of the artifact's spec")
            with np.errstate(over='ignore'):  # to infinity, of which one part is the 0 that it should be
                likely = 1 / (1 + np.exp(-mixed[0]))
            labels[part] = likely > threshold
            confidence[part] = np.where(labels[part], likely, 1 - likely)
        else:
            labels[part] = mixed.argmax(0)
            confidence[part] = 1 / np.exp(mixed - mixed.max(0)).sum(0)
    return labels, confidence


def decide(logits: np.ndarray, rows: Cells, columns: Cells, threshold: float | None = None) -> np.ndarray:
    """The class of every pixel: (H, W) int32.

    A bilinear weight is never negative and the four of a pixel sum to one: where one class is largest at all four
    corners of a pixel, it is largest at the pixel. Only the pixels between corners that disagree are mixed.

    Args:
        logits: (channels, h, w) float32.
        rows, columns: of the pixels.
        threshold: as in :func:`label_map`.
    """
    if logits.shape[0] == 1:
        if threshold is None:
            raise ConfigError("logits of one channel need the threshold of the artifact's spec")
        # a second channel, which the one must exceed
        bar = np.full_like(logits, math.log(threshold / (1 - threshold)))
        logits = np.concatenate([bar, logits])
    classes, _, width = logits.shape
    pixels = np.ascontiguousarray(logits.transpose(1, 2, 0)).reshape(-1, classes)
    best = pixels.argmax(1).astype(np.int32)
    corners = [row[:, None] * width + column for row in rows[:2] for column in columns[:2]]
    labels = best[corners[0]]
    mixed = np.zeros(labels.shape, dtype=bool)
    for corner in corners[1:]:
        mixed |= best[corner] != labels
    y, x = np.nonzero(mixed)
    down, across = rows.weight[y], columns.weight[x]
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    for start in range(0, len(y), 8192):  # a few MB at a time
        part = slice(start, start + 8192)
        values = sum(weight[part, None] * pixels[corner[y[part], x[part]]] for weight, corner in zip(weights, corners))
        labels[y[part], x[part]] = values.argmax(1)
    return labels
