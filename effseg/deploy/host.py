"""From the logits of an artifact to labels at any size, on the host, in numpy."""

import math

import numpy as np

from ..errors import ConfigError


def label_map(
    logits: np.ndarray, size: tuple[int, int], align_corners: bool = False, threshold: float | None = None
) -> np.ndarray:
    """``argmax(resize(logits, size))`` without the resized logits.

    A bilinear weight is never negative and the four of a pixel sum to one: where one class is largest at all four
    corners of a pixel, it is largest at the pixel. Only the pixels between corners that disagree are mixed.

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
    if logits.shape[0] == 1:
        if threshold is None:
            raise ConfigError("logits of one channel need the threshold of the artifact's spec")
        # a second channel, which the one must exceed
        bar = np.full_like(logits, math.log(threshold / (1 - threshold)))
        logits = np.concatenate([bar, logits])
    classes, height, width = logits.shape
    pixels = np.ascontiguousarray(logits.transpose(1, 2, 0)).reshape(-1, classes)
    best = pixels.argmax(1).astype(np.int32)
    top, bottom, down = _corners(height, size[0], align_corners)
    left, right, across = _corners(width, size[1], align_corners)
    corners = [(row[:, None] * width + column[None, :]) for row in (top, bottom) for column in (left, right)]
    labels = best[corners[0]]
    mixed = np.zeros(size, dtype=bool)
    for corner in corners[1:]:
        mixed |= best[corner] != labels
    rows, columns = np.nonzero(mixed)
    weights = [
        (1 - down[rows]) * (1 - across[columns]),
        (1 - down[rows]) * across[columns],
        down[rows] * (1 - across[columns]),
        down[rows] * across[columns],
    ]
    for start in range(0, len(rows), 8192):  # a few MB at a time
        part = slice(start, start + 8192)
        values = sum(
            weight[part, None] * pixels[corner[rows[part], columns[part]]] for weight, corner in zip(weights, corners)
        )
        labels[rows[part], columns[part]] = values.argmax(1)
    return labels


def _corners(source: int, target: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``target`` pixels along a side: the source pixels before and behind it, and the weight of the
    latter."""
    places = np.arange(target, dtype=np.float32)
    if align_corners:
        position = places * np.float32((source - 1) / max(target - 1, 1))
    else:
        scale = np.float32(source / target)
        position = np.maximum((places + np.float32(0.5)) * scale - np.float32(0.5), 0)
    before = np.minimum(position.astype(np.int64), source - 1)
    return before, np.minimum(before + 1, source - 1), (position - before).astype(np.float32)
