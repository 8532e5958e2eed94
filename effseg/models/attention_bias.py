"""Attention bias as a table of offsets, looked up for any grid.

EfficientFormer (https://arxiv.org/abs/2206.01191, section 3) adds to every attention logit a learned number that
depends on the head and on |dy|, |dx| alone, the distance between query and key in positions of the feature map. The
parameter is that table; the N x N matrix is only its expansion. Everything that changes the size of the grid therefore
happens on the
table: square or not, portrait or landscape, an offset keeps its meaning.

A table of resolution (R_h, R_w) has shape (heads, R_h * R_w), offset (dy, dx) at index ``dy * R_w + dx``, as in timm's
and the original ImageNet weights (7 x 7 for 224 x 224 pixels at stride 32).

A grid larger than the table needs offsets that were never learned. ``bias_resize`` says where they come from:

- ``'interpolate'``: the table is stretched linearly so that its last offset lands on the grid's last one.
- ``'hold'``: known offsets stay as they are, the far ones take the value of the table's edge.
- ``'matrix'``: the original segmentation code's way, a bicubic resize of the expanded matrix as if it were an image.
  It scrambles offsets off the table's own grid and exists only to score checkpoints that were trained with it.

A grid smaller than the table reads a corner of it, exactly (except under ``'matrix'``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BIAS_RESIZE = ('interpolate', 'hold', 'matrix')


def resize_table(table: Tensor, source: tuple[int, int], target: tuple[int, int], bias_resize: str) -> Tensor:
    """The offset table for another resolution: (heads, H * W).

    Args:
        table: (heads, R_h * R_w).
        source: (R_h, R_w), the resolution of ``table``.
        target: (H, W), the number of offsets wanted along each axis.
        bias_resize: one of :data:`BIAS_RESIZE`; ``'matrix'`` stretches here like ``'interpolate'``, since the
            original's way has no table of another size.
    """
    heads = table.shape[0]
    grid = table.reshape(1, heads, *source)
    larger = (max(source[0], target[0]), max(source[1], target[1]))
    if larger != tuple(source):
        if bias_resize == 'hold':
            grid = F.pad(grid, (0, larger[1] - source[1], 0, larger[0] - source[0]), mode='replicate')
        else:
            # align_corners: offset 0 stays offset 0 and the last known offset becomes the last one
            grid = F.interpolate(grid, size=larger, mode='bilinear', align_corners=True)
    return grid[:, :, : target[0], : target[1]].reshape(heads, target[0] * target[1])


def expand_table(table: Tensor, grid: tuple[int, int], query_stride: int = 1) -> Tensor:
    """The matrix of one table entry per query and key: (heads, queries, keys), positions in row-major order.

    Args:
        table: (heads, H * W).
        grid: (H, W) of the keys.
        query_stride: the queries sit on every ``query_stride``-th row and column of the keys' grid, starting at the
            first.
    """
    heads, (height, width) = table.shape[0], grid
    rows = _offsets(height, query_stride, table.device)
    columns = _offsets(width, query_stride, table.device)
    # one axis at a time: two short index lists in place of one as long as the matrix
    bias = table.reshape(heads, height, width).index_select(1, rows.flatten()).index_select(2, columns.flatten())
    bias = bias.reshape(heads, *rows.shape, *columns.shape).permute(0, 1, 3, 2, 4)
    return bias.reshape(heads, rows.shape[0] * columns.shape[0], height * width)


def attention_bias(
    table: Tensor,
    resolution: tuple[int, int],
    grid: tuple[int, int],
    bias_resize: str = 'interpolate',
    query_stride: int = 1,
) -> Tensor:
    """The bias to add to the attention logits of a feature map.

    Args:
        table: (heads, R_h * R_w) of offsets.
        resolution: (R_h, R_w).
        grid: (H, W) of the keys, any size.
        bias_resize: one of :data:`BIAS_RESIZE`.
        query_stride: see :func:`expand_table`.

    Returns:
        (heads, queries, keys) on the table's device and in its dtype.
    """
    if bias_resize == 'matrix':
        matrix = expand_table(table, resolution, query_stride)
        queries = -(-grid[0] // query_stride) * -(-grid[1] // query_stride)
        return F.interpolate(matrix[None], size=(queries, grid[0] * grid[1]), mode='bicubic')[0]
    return expand_table(resize_table(table, resolution, grid, bias_resize), grid, query_stride)


def _offsets(length: int, query_stride: int, device: torch.device) -> Tensor:
    """|query - key| along one axis: (queries, keys), int64."""
    key = torch.arange(length, device=device)
    return (key[::query_stride, None] - key[None, :]).abs()
