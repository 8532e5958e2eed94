"""The norms of a fused network, which half precision holds: its largest number is 65,504, so nothing is squared before
it is divided by its own size, and no sum runs over more terms than it can still add to."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import Layer, fixed


class MapNorm(Layer):
    """Normalisation of a whole map (GroupNorm) and a scale and shift per channel.

    Args:
        groups: of channels with a mean and variance of their own; 0 leaves the map as it is.
        eps: added to the variance.
        scale, shift: (C,), that follow, or both None. The layer behind may take them over: :meth:`release`.
    """

    def __init__(self, groups: int = 0, eps: float = 0.0, scale: Tensor | None = None, shift: Tensor | None = None):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.scale, self.shift = (None if values is None else fixed(values) for values in (scale, shift))

    def release(self) -> tuple[Tensor | None, Tensor | None]:
        """Gives the scale and shift away; from then on the layer only normalises."""
        released = self.scale, self.shift
        self.scale = self.shift = None
        return released

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1 and self.portable:
            x = _normalise(x, lambda y, factor=1.0: _map_mean(_channel_mean(y, factor)), self.eps)
        elif self.groups:
            x = F.group_norm(x, self.groups, eps=self.eps)
        if self.scale is None or self.shift is None:
            return x
        return x * self.scale[None, :, None, None] + self.shift[None, :, None, None]


class ChannelNorm(Layer):
    """LayerNorm over the channels of each pixel, without scale and shift: the layer behind has taken them over."""

    def __init__(self, eps: float):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self.portable:
            return _normalise(x, _channel_mean, self.eps)
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=self.eps).permute(0, 3, 1, 2)


def _channel_mean(x: Tensor, factor: float = 1.0) -> Tensor:
    """``factor`` times the mean over the channels, (N, C, H, W) -> (N, 1, H, W), as a 1 x 1 conv: runtimes execute a
    mean over height and width, not over channels, and divide behind the sum, which half precision may not hold."""
    return F.conv2d(x, torch.full((1, x.shape[1], 1, 1), factor / x.shape[1], dtype=x.dtype, device=x.device))


def _map_mean(x: Tensor) -> Tensor:
    """The mean over a map of one channel, (N, 1, H, W) -> (N, 1, 1, 1): of tiles of at most 8 x 8, then of their means,
    and so on. A running sum of more would stop growing in half precision."""
    while max(x.shape[2:]) > 1:
        tile = [_tile(side) for side in x.shape[2:]]
        weight = torch.full((1, 1, *tile), 1 / (tile[0] * tile[1]), dtype=x.dtype, device=x.device)
        x = F.conv2d(x, weight, stride=tile)
    return x


def _tile(side: int) -> int:
    """The largest divisor of a side that is 8 at most; the side itself where that is 1."""
    for size in range(min(side, 8), 1, -1):
        if side % size == 0:
            return size
    return side


def _normalise(x: Tensor, mean, eps: float) -> Tensor:
    """``(x - mean) / sqrt(variance + eps)``, in half precision as well.

    The square of what lies more than 255 from the mean is more than half precision holds, that of what lies close
    nothing. So the deviations are divided by their own size first, which has no part in the result: one that is 2,000
    times the mean deviation is still squared.

    Args:
        x: (N, C, H, W), up to some 10,000.
        mean: of what is normalised together; its second argument is a factor.
        eps: added to the variance.
    """
    centred = x - mean(x)
    size = torch.rsqrt(mean(F.relu(centred)) + eps**0.5)  # of half the mean deviation
    size = size * size * (1 / 16)
    centred = centred * size
    spread = mean(centred * centred, 16.0)
    added = size * (4.0 * eps**0.5)
    return centred * (torch.rsqrt(spread + added * added) * 4.0)
