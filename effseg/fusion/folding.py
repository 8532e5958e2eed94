"""Algebra on weights: what two linear operations in a row are as one. Everything is computed in float64.

``W * x`` is a cross-correlation as PyTorch's ``conv2d`` computes it. Kernels are (out, in, kH, kW), biases (out,).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FuseError


class Affine(NamedTuple):
    """A linear operation's parameters in float64: a conv kernel (out, in / groups, kH, kW) and a bias (out,)."""

    weight: Tensor
    bias: Tensor

    def scaled(self, scale: Tensor) -> 'Affine':
        """The same operation with a multiplication per output channel behind it, such as a layer scale (out,)."""
        scale = scale.detach().double().flatten()
        return Affine(self.weight * scale.reshape(-1, *[1] * (self.weight.dim() - 1)), self.bias * scale)

    def after(self, scale: Tensor | None, shift: Tensor | None) -> 'Affine':
        """The same operation with ``x * scale + shift`` per input channel before it, such as the affine part of a norm.

        Exact for a kernel of 1 x 1; a padded larger one would see the shift in its padding.
        """
        assert self.weight.shape[2:].numel() == 1, 'a shift does not pass through a padded kernel'
        weight, bias = self.weight, self.bias
        if shift is not None:
            bias = bias + torch.einsum('oikl,i->o', weight, shift.detach().double())
        if scale is not None:
            weight = weight * scale.detach().double()[None, :, None, None]
        return Affine(weight, bias)


def linear_part(layer: nn.Module) -> Affine:
    """The kernel and bias of a conv or of a linear layer, the latter as a 1 x 1 conv."""
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.Linear):
        weight = weight[:, :, None, None]
    bias = (
        torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
        if layer.bias is None
        else layer.bias.detach().double()
    )
    return Affine(weight, bias)


def batch_norm(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm does in eval mode: its scale and shift per channel.

    Raises:
        FuseError: when it keeps no running statistics, or is no BatchNorm.
    """
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise FuseError(
            f'a {type(norm).__name__} follows a conv; only a BatchNorm is a fixed scale and shift that folds into it'
        )
    if norm.running_mean is None or norm.running_var is None:
        raise FuseError(
            'a BatchNorm without running statistics normalises by the batch and cannot be folded; '
            'build it with track_running_stats=True'
        )
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def fold_norm(layer: nn.Module, norm: nn.Module | None) -> Affine:
    """A conv (or linear layer) and the BatchNorm behind it as one; ``norm`` may be None or an ``nn.Identity``."""
    part = linear_part(layer)
    if norm is None or isinstance(norm, nn.Identity):
        return part
    scale, shift = batch_norm(norm)
    part = part.scaled(scale)
    return Affine(part.weight, part.bias + shift)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The kernel K with ``K * x == outer * (inner * x)`` on an unbounded plane: (out, in, kH + lH - 1, kW + lW - 1).

    Args:
        outer: (out, mid, kH, kW).
        inner: (mid, in, lH, lW).
    """
    height, width = outer.shape[2:]
    composed = F.conv2d(inner.transpose(0, 1), outer.flip(2, 3), padding=(height - 1, width - 1))
    return composed.transpose(0, 1)


def after_upsampling(kernel: Tensor, factor: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A conv behind nearest upsampling, as convs of the small map and its differences: one product per tap, whatever
    the factor.

    Along one axis, with p the small map, D[i] = p[i] - p[i - 1] (zero outside) and K the taps, pixel q of tile i is

        sum(K) p[i]  -  (sum of the taps that reach below the tile) D[i]  +  (sum of those that reach above it) D[i +
        1].

    Along both axes the three terms multiply out to nine, of four kinds: products with p, with its differences along the
    columns of pixels, along the rows, and along both.

    Args:
        kernel: (out, in, k, k), k odd, k // 2 at most half of a larger factor than 2, at most 2 for ``factor=2``.
        factor: upsampling factor of both axes, even.

    Returns:
        The kernels for the differences along both axes (factor ** 2 * out, in, t, t), along the first (factor * out,
        in, t, 1), along the second (factor * out, in, 1, t), and for p (out, in, 1, 1). For ``factor=2``, t is 2 and
        the results are tiles around the pixels. Otherwise t is 1, since only one end of a tile is ever reached over,
        and the results are tiles around the differences' places between the pixels. Result channels are by place in a
        tile of factor / 2, then by place in a tile of 2, then by ``out``; places by (first axis, second axis).
    """
    out_channels, in_channels, size = kernel.shape[:3]
    reach, half = size // 2, factor // 2
    assert factor % 2 == 0 and reach <= max(2, half), (size, factor)
    reached = torch.arange(factor)[:, None] + torch.arange(-reach, reach + 1)[None]
    below, above = (reached < 0).to(kernel), (reached >= factor).to(kernel)
    if factor == 2:
        steps = torch.stack([-below, above], 1)  # (place, tap of the result, tap of the kernel)
    else:
        steps = torch.cat([above[half:], -below[:half]])[:, None]
    both = torch.einsum('oiuv,qtu,psv->qpoits', kernel, steps, steps)
    both = both.reshape(half, 2, half, 2, *both.shape[2:]).transpose(1, 2).flatten(0, 4)
    first = torch.einsum('oiuv,qtu->qoit', kernel, steps).flatten(0, 1)[..., None]
    second = torch.einsum('oiuv,psv->pois', kernel, steps).flatten(0, 1)[:, :, None]
    return both, first, second, kernel.sum((2, 3), keepdim=True)
