"""From the logits of an artifact to labels at any size, on the host, in numpy."""

import numpy as np


def label_map(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``argmax(resize(logits, size))`` without the resized logits.

    A bilinear weight is never negative and the four of a pixel sum to one: where one class is largest at all four
    corners of a pixel, it is largest at the pixel. Only the pixels between corners that disagree are mixed.

    Args:
        logits: (classes, h, w) float32.
        size: (H, W) of the label map. Resizing is bilinear with ``align_corners=False``, as in MMSegmentation.

    Returns:
        (H, W) int32. Where two classes tie to the last bit at every corner the lower one is taken; classes that tie
        only after mixing may differ from another runtime's rounding.
    """
    classes, height, width = logits.shape
    pixels = np.ascontiguousarray(logits.transpose(1, 2, 0)).reshape(-1, classes)
    best = pixels.argmax(1).astype(np.int32)
    top, bottom, down = _corners(height, size[0])
    left, right, across = _corners(width, size[1])
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


def _corners(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``target`` pixels along a side: the source pixels before and behind it, and the weight of the
    latter."""
    scale = np.float32(source / target)
    position = np.maximum((np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    before = np.minimum(position.astype(np.int64), source - 1)
    return before, np.minimum(before + 1, source - 1), (position - before).astype(np.float32)
