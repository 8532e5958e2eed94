"""Images too large for one piece, labelled window by window: the memory they take does not grow with the number of
classes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..deploy.fit import middles, starts
from ..fusion.labels import Crop, Resize

LARGEST = 2048 * 1024  # pixels that go through a network in one piece
WINDOW = (1024, 1024)  # pixels, height and width


def is_large(*sizes: Sequence[int]) -> bool:
    """Whether an image of one of these sizes (H, W) has too many pixels to be labelled in one piece."""
    return any(height * width > LARGEST for height, width in sizes)


def label_in_windows(image: Tensor, label: Callable[[Tensor], Tensor], window: tuple[int, int] = WINDOW) -> Tensor:
    """Labels an image in windows that overlap, of each of which the middle is kept: (1, H, W) int64.

    Args:
        image: (1, C, H, W).
        label: gives the labels (1, h, w) of a window (1, C, h, w).
        window: (h, w) of the windows; those at the end may be smaller.
    """
    labels = torch.empty(1, *image.shape[2:], dtype=torch.long, device=image.device)
    for top, bottom, keep_top, keep_bottom in pieces(image.shape[2], window[0]):
        for left, right, keep_left, keep_right in pieces(image.shape[3], window[1]):
            of_window = label(image[:, :, top:bottom, left:right])
            labels[:, keep_top:keep_bottom, keep_left:keep_right] = of_window[
                :, keep_top - top : keep_bottom - top, keep_left - left : keep_right - left
            ]
    return labels


def pieces(length: int, window: int) -> list[tuple[int, int, int, int]]:
    """Windows over a length: where each begins and ends, and the part of it that is kept."""
    begin = starts(length, window)
    return [(start, min(start + window, length), *kept) for start, kept in zip(begin, middles(length, window, begin))]


def at_size(labels: Tensor, steps: Sequence[Resize | Crop]) -> Tensor:
    """Labels (1, H, W) after the same steps as their logits would take, by nearest neighbour."""
    for step in steps:
        if isinstance(step, Crop):
            labels = labels[:, step.top : step.top + step.height, step.left : step.left + step.width]
        elif tuple(step) != labels.shape[1:]:
            rows, columns = (
                ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1).to(labels.device)
                for new, old in zip(step, labels.shape[1:])
            )
            labels = labels[:, rows][:, :, columns]
    return labels
