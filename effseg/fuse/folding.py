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
        """Followed by a multiplication per output channel, such as a layer scale (out,)."""
        scale = scale.detach().double().flatten()
        return Affine(self.weight * scale.reshape(-1, *[1] * (self.weight.dim() - 1)), self.bias * scale)

    def after(self, scale: Tensor | None, shift: Tensor | None) -> 'Affine':
        """Preceded by ``x * scale + shift`` per input channel, such as the affine part of a norm.

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
    bias = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device) if layer.bias is None else layer.bias.detach().double()
    return Affine(weight, bias)


def batch_norm(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm does in eval mode: its scale and shift per channel.

    Raises:
        FuseError: when it keeps no running statistics, or is no BatchNorm.
    """
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise FuseError(f'a {type(norm).__name__} follows a conv; only a BatchNorm is a fixed scale and shift that folds into it')
    if norm.running_mean is None:
        raise FuseError('a BatchNorm without running statistics normalises by the batch and cannot be folded; '
                        'build it with track_running_stats=True')
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
    """The kernel K with ``K * x == outer * (inner * x)`` on an unbounded plane.

    Args:
        outer: (out, mid, kH, kW).
        inner: (mid, in, lH, lW).

    Returns:
        (out, in, kH + lH - 1, kW + lW - 1).
    """
    height, width = outer.shape[2:]
    composed = F.conv2d(inner.transpose(0, 1), outer.flip(2, 3), padding=(height - 1, width - 1))
    return composed.transpose(0, 1)


def after_upsampling(kernel: Tensor, factor: int) -> Tensor:
    """The kernel of the transposed conv that equals nearest upsampling followed by ``kernel``.

    A pixel of the small map becomes a factor x factor tile, and every tap of the kernel that falls into the tile reads
    the same number: their sum is the tap of the result. Use it with ``stride=factor`` and the kernel's own padding k // 2.

    Args:
        kernel: (out, in, k, k), k odd.
        factor: upsampling factor of both axes.

    Returns:
        (in, out, k + factor - 1, k + factor - 1), the layout of ``conv_transpose2d``.
    """
    out_channels, in_channels, *size = kernel.shape
    planes = kernel.flip(2, 3).reshape(out_channels * in_channels, 1, *size)
    tile = torch.ones(1, 1, factor, factor, dtype=kernel.dtype, device=kernel.device)
    summed = F.conv2d(planes, tile, padding=factor - 1)
    return summed.reshape(out_channels, in_channels, *summed.shape[2:]).transpose(0, 1)
