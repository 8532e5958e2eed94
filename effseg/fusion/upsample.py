"""Nearest upsampling and what is done behind it, on the small map, without copying a pixel.

All runtimes are faster at these convs than at the transposed conv that would be the same, and at moving whole pixels
than at ``pixel_shuffle``. Not all of them copy natively; all of them add with broadcasting.

*Space-to-depth form*: a map (N, C, H, W) as (N, H / 2, W / 2, 4 C), the channels of 2 x 2 pixels by
(row, column, channel).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .folding import after_upsampling
from .layers import Layer, fixed


class Upsampled(Layer):
    """Nearest upsampling and a 5 x 5 conv without a bias, on the small map: see
    :func:`effseg.fusion.folding.after_upsampling`.

    Args:
        kernel: of the conv (out, in, 5, 5).
        factor: of the upsampling.
    """

    def __init__(self, kernel: Tensor, factor: int):
        super().__init__()
        self.factor = factor
        self.both, self.first, self.second, self.total = map(fixed, after_upsampling(kernel, factor))

    def forward(self, x: Tensor) -> list[Tensor]:
        """
        Args:
            x: (N, in, h, w).

        Returns:
            Three maps, each in space-to-depth form as far as it goes, whose :func:`summed` is the result, with g half
            of the factor: of all pixels (N, h g, w g, 4 C), of what is equal along a row of a tile (N, h g, w, 2 C),
            and along a column (N, h, w g, 2 C).
        """
        parts, margin = self.factor // 2, self.factor // 4
        down = _difference(x, 0)
        both = F.conv2d(_difference(down, 1), self.both).permute(0, 2, 3, 1)
        first = F.conv2d(down, self.first).permute(0, 2, 3, 1)
        second = F.conv2d(_difference(x, 1), self.second).permute(0, 2, 3, 1)
        total = F.conv2d(x, self.total).permute(0, 2, 3, 1)
        if parts > 1:
            both = depth_to_space(both, parts, parts)[:, margin:-margin, margin:-margin]
            first = depth_to_space(first, parts, 1)[:, margin:-margin]
            second = depth_to_space(second, 1, parts)[:, :, margin:-margin]
        batch, height, width, channels = total.shape
        tiles = first.reshape(batch * height, parts, width, 2, channels) + total.reshape(
            batch * height, 1, width, 1, channels
        )
        return [both, tiles.reshape(first.shape), second]


def _difference(x: Tensor, axis: int) -> Tensor:
    """``x[i] - x[i - 1]`` along the first or second axis of the map, zeros around it; a line more than ``x``. As a
    conv, which keeps the layout that runtimes have chosen for ``x``."""
    padding = (1, 0) if axis == 0 else (0, 1)
    ones = torch.ones(x.shape[1], 1, 1, 1, dtype=x.dtype, device=x.device)
    return F.conv2d(x, torch.cat([-ones, ones], 2 + axis), padding=padding, groups=x.shape[1])


def summed(finest: list[Tensor], *coarser: list[Tensor]) -> Tensor:
    """Adds up what several :class:`Upsampled` return; the sum is in space-to-depth form.

    Broadcasting copies what is equal along a side, in sums that are there anyway: not all runtimes copy natively.

    Args:
        finest: of the one with a factor of 2.
        coarser: of the others.
    """
    both, first, second = finest
    batch, height, width, channels = both.shape
    for everywhere, rows, columns in coarser:
        both = both + everywhere
        first = first.reshape(batch * height * rows.shape[2], -1, channels // 2) + rows.reshape(
            batch * height * rows.shape[2], 1, channels // 2
        )
        length = width * channels // 2
        second = second.reshape(batch * columns.shape[1], -1, length) + columns.reshape(
            batch * columns.shape[1], 1, length
        )
    pixels, channels = batch * height * width, channels // 4
    y = (
        both.reshape(pixels, 2, 2, channels)
        + first.reshape(pixels, 2, 1, channels)
        + second.reshape(pixels, 1, 2, channels)
    )
    return y.reshape(batch, height, width, 4 * channels)


def plus_doubled(x: Tensor, small: Tensor) -> Tensor:
    """Adds to ``x`` (N, C, 2 H, 2 W) a map ``small`` (N, C, H, W) of half the size, each of whose pixels goes to 2 x 2
    of ``x``: by broadcasting, since not all runtimes upsample by copies natively."""
    batch, channels, height, width = small.shape
    y = x.permute(0, 2, 3, 1).reshape(batch * height, 2, width, 2, channels) + small.permute(0, 2, 3, 1).reshape(
        batch * height, 1, width, 1, channels
    )
    return y.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def depth_to_space(x: Tensor, rows: int, columns: int) -> Tensor:
    """(N, H, W, rows * columns * C) -> (N, rows * H, columns * W, C): the channels by (row, column, channel) of a tile
    become pixels. Moves whole pixels, which runtimes are faster at than at ``pixel_shuffle``."""
    batch, height, width, channels = x.shape
    if rows > 1:
        x = x.reshape(batch * height, width, rows, channels // rows).transpose(1, 2)
    return x.reshape(batch, rows * height, columns * width, channels // (rows * columns))


def space_to_depth(x: Tensor) -> Tensor:
    """Space-to-depth form (N, H / 2, W / 2, 4 C) of a map (N, C, H, W): the channels of 2 x 2 pixels by (row, column,
    channel)."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)
