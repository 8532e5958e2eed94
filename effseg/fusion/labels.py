"""Label maps, ``argmax(resize(logits))``, exactly; on a CPU without full-size logits.

Bilinear resizing mixes every pixel from a window of the logits with weights that are never negative and sum to one. So

- a class that is the largest everywhere in the window is the largest at the pixel, and nothing has to be mixed;
- elsewhere, a class that never reaches what some other class nowhere falls below cannot win; of all classes two to four
  are left to be mixed, and only for the pixels on the seams between regions.

The same holds for several resizes in a row, as MMSegmentation does at test time (to the padded input's size, off with
the padding, to the photo's size): their product is again one set of such weights, separable into rows and columns.

That is for CPUs. A GPU resizes all classes sooner than it finds out which ones are left: there all of them are resized,
some at a time.

Ties. A class that equals another at every position of the window loses to the one of lower number, here as in
``argmax``. Two classes that come out equal, or within rounding of each other, only by mixing may come out in either
order: the sums are formed in another order than torch's ``interpolate`` forms them. :func:`near_ties` says which pixels
those are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .interpolation import Axis, resize_axis

CHUNK = 1 << 20  # numbers per temporary: memory stays a few MB whatever the size of the label map
GPU_CHUNK = 1 << 27  # the same on a GPU, which wants more to do at once: half a GB
DENSE = 0.6  # from this share of undecided pixels on, mixing all classes line by line is faster than gathering
USUAL_SPAN = 2  # source positions that one bilinear resize reads; two in a row read one more where they straddle
CANDIDATES = (2, 3, 4, 8, 16)  # windows are mixed together with others that have at most so many classes left


class Resize(NamedTuple):
    """A bilinear resize to (height, width)."""

    height: int
    width: int


class Crop(NamedTuple):
    """The part that begins at (top, left) and is (height, width) large."""

    top: int
    left: int
    height: int
    width: int


def label_map(
    logits: Tensor, steps: Sequence[Resize | Crop], align_corners: bool = False, threshold: float | None = None
) -> Tensor:
    """The label of every pixel after resizing the logits: (N, H, W) int64, the size that the last step gives.

    Args:
        logits: (N, classes, h, w), any memory format; channels_last is the fast one.
        steps: resizes and crops in order.
        align_corners: of every resize.
        threshold: for logits of one class: label 1 where the sigmoid exceeds it, else 0.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # numbers this coarse would tie all over
    if logits.shape[1] == 1:
        assert threshold is not None, 'logits of one class need a threshold'
        return (_resized(logits, steps, align_corners)[:, 0].sigmoid() > threshold).long()
    if logits.device.type != 'cpu':
        return _by_classes(logits, steps, align_corners)
    pixels = logits.permute(0, 2, 3, 1).contiguous()
    rows, columns = axes(logits.shape[2:], steps, logits.dtype, logits.device, align_corners)
    best = pixels.argmax(-1).int()
    lowest, highest = best, best
    for axis, plan in ((1, rows), (2, columns)):
        lowest, highest = (
            plan.over_windows(lowest, axis, torch.minimum),
            plan.over_windows(highest, axis, torch.maximum),
        )
    undecided = lowest != highest
    area = (undecided * (rows.windows.counts[:, None] * columns.windows.counts)).sum()
    if area > DENSE * len(logits) * len(rows.windows.of) * len(columns.windows.of):
        return _dense(pixels, rows, columns)
    labels = lowest.long().index_select(2, columns.windows.of).index_select(1, rows.windows.of)
    for row_span, of_rows in _by_span(rows):
        for column_span, of_columns in _by_span(columns):
            windows = (undecided & of_rows[:, None] & of_columns).nonzero()
            for part in windows.split(max(1, CHUNK // (row_span * column_span * logits.shape[1]))):
                _decide(labels, pixels, part, rows, columns, (row_span, column_span))
    return labels


def _resized(logits: Tensor, steps: Sequence[Resize | Crop], align_corners: bool) -> Tensor:
    """The logits (N, classes, H, W) after all steps, as MMSegmentation computes them."""
    for step in steps:
        if isinstance(step, Crop):
            logits = logits[:, :, step.top : step.top + step.height, step.left : step.left + step.width]
        else:
            logits = F.interpolate(logits, size=(step.height, step.width), mode='bilinear', align_corners=align_corners)
    return logits


def _by_classes(logits: Tensor, steps: Sequence[Resize | Crop], align_corners: bool) -> Tensor:
    """The label of every pixel, from all classes at full size, as many at a time as :data:`GPU_CHUNK` allows."""
    largest = len(logits) * max(step.height * step.width for step in steps)
    parts = logits.split(max(1, GPU_CHUNK // largest), dim=1)
    best, labels = _resized(parts[0], steps, align_corners).max(1)
    first = parts[0].shape[1]
    for part in parts[1:]:
        values, classes = _resized(part, steps, align_corners).max(1)
        labels = torch.where(values > best, classes + first, labels)
        best = torch.maximum(values, best)
        first += part.shape[1]
    return labels


def _by_span(axis: Axis) -> list[tuple[int, Tensor]]:
    """The usual windows and the longest, so that the latter do not burden the former: how many positions, and which
    windows."""
    longest = int(axis.windows.spans.max())
    if longest <= USUAL_SPAN:
        return [(longest, torch.ones_like(axis.windows.spans, dtype=torch.bool))]
    return [(USUAL_SPAN, axis.windows.spans <= USUAL_SPAN), (longest, axis.windows.spans > USUAL_SPAN)]


def axes(
    size: Sequence[int],
    steps: Sequence[Resize | Crop],
    dtype: torch.dtype,
    device: torch.device,
    align_corners: bool = False,
) -> tuple[Axis, Axis]:
    """What ``steps`` do to the rows and to the columns of a map of ``size`` = (h, w)."""
    plans = []
    for axis, length in enumerate(size):
        plan = Axis.identity(length, dtype, device)
        for step in steps:
            if isinstance(step, Crop):
                plan = plan[step[axis] : step[axis] + step[axis + 2]]
            else:
                plan = plan.then(resize_axis(len(plan.start), step[axis], dtype, device, align_corners))
        plans.append(plan)
    return plans[0], plans[1]


def _dense(pixels: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """All classes of all pixels, a few lines at a time."""
    batch, classes, width = len(pixels), pixels.shape[3], len(columns.start)
    lines = max(1, CHUNK // (batch * classes * width))
    labels = [
        columns.mix(rows[top : top + lines].mix(pixels, 1), 2).argmax(-1) for top in range(0, len(rows.start), lines)
    ]
    return torch.cat(labels, 1)


def _decide(labels: Tensor, pixels: Tensor, windows: Tensor, rows: Axis, columns: Axis, span: tuple[int, int]) -> None:
    """Writes the labels of all pixels of some windows.

    Args:
        labels: (N, H, W), written to.
        pixels: (N, h, w, classes).
        windows: (M, 3), image, row window and column window of each.
        rows: of the map.
        columns: of the map.
        span: how many rows and columns of ``pixels`` each of the windows reads at most.
    """
    image, row, column = windows.unbind(1)
    y, x = rows.sources(row, span[0]), columns.sources(column, span[1])
    corner = (image[:, None] * pixels.shape[1] + y)[:, :, None] * pixels.shape[2] + x[:, None]
    values = (
        pixels.flatten(0, 2).index_select(0, corner.flatten()).view(len(windows), span[0] * span[1], pixels.shape[3])
    )
    most = values.amax(1)
    bar = values.amin(1).amax(1, keepdim=True)
    counts = (most >= bar).sum(1)
    done = 0
    for limit in (*CANDIDATES, pixels.shape[3]):
        limit = min(limit, pixels.shape[3])
        chosen = ((counts > done) & (counts <= limit)).nonzero()[:, 0]
        done = limit
        if not len(chosen):
            continue
        # the classes above the bar are those that reach highest; in ascending order, for argmax to take the first of
        # equals
        classes = most[chosen].topk(limit, sorted=False).indices.sort(1).values
        left = (
            values.index_select(0, chosen)
            .gather(2, classes[:, None].expand(-1, values.shape[1], -1))
            .unflatten(1, span)
        )
        pixels_each = int(rows.windows.counts.max()) * int(columns.windows.counts.max()) * limit
        for start in range(0, len(chosen), max(1, CHUNK // pixels_each)):
            part = slice(start, start + max(1, CHUNK // pixels_each))
            _mix(labels, left[part], classes[part], windows[chosen[part]], rows, columns)


def _mix(labels: Tensor, values: Tensor, classes: Tensor, windows: Tensor, rows: Axis, columns: Axis) -> None:
    """Mixes a few classes for all pixels of some windows and writes the winners.

    Args:
        labels: (N, H, W), written to.
        values: (M, rows, columns, K) logits at the windows' corners.
        classes: (M, K) the classes they are of.
        windows: (M, 3).
        rows: of the map.
        columns: of the map.
    """
    image, row, column = windows.unbind(1)
    line_window, y = rows.members(row)  # one entry per window and line
    weights = rows.weights.index_select(0, y)
    lines: Any = sum(
        weights[:, k, None, None] * values[:, k].index_select(0, line_window) for k in range(values.shape[1])
    )
    pixel_line, x = columns.members(column.index_select(0, line_window))  # one entry per window and pixel
    weights = columns.weights.index_select(0, x)
    mixed: Any = sum(weights[:, k, None] * lines[:, k].index_select(0, pixel_line) for k in range(values.shape[2]))
    window = line_window.index_select(0, pixel_line)
    winner = (mixed[:, 1] > mixed[:, 0]).long() if mixed.shape[1] == 2 else mixed.argmax(1)
    place = ((image.index_select(0, line_window) * labels.shape[1] + y) * labels.shape[2]).index_select(
        0, pixel_line
    ) + x
    labels.view(-1).scatter_(0, place, classes.view(-1).index_select(0, window * classes.shape[1] + winner))


def near_ties(logits: Tensor, tolerance: float) -> Tensor:
    """Where the two largest of full-size logits (N, classes, H, W) are within ``tolerance`` of each other: (N, H, W)
    bool."""
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1] <= tolerance
