"""The layers of a fused network: pure torch, inference only, maps (N, C, H, W) in and out.

Layers have two forms of the same function, equal up to rounding. The *eager* form is written for torch on a CPU: it
works in place and calls the fast kernels. The *portable* form (``set_portable()``) uses only functional operations that
the phone runtimes execute natively: no normalisation operators, no expand, no nearest upsampling. Where one runtime is
faster with a form of its own, the layer has an attribute for it, which that runtime's backend sets.

``fuse()`` methods of the blocks give these layers in float64, the precision that folding is done in; the segmentor
rounds once, at the end.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FuseError
from .folding import Affine, fold_norm

ACTIVATIONS = {'none': nn.Identity, 'relu': nn.ReLU, 'gelu': nn.GELU, 'hardswish': nn.Hardswish}


class Layer(nn.Module):
    """Base of the inference layers: in eval mode from the start, in the eager form until :meth:`set_portable`."""

    def __init__(self):
        super().__init__()
        self.portable = False
        self.train(False)

    def set_portable(self, portable: bool = True) -> 'Layer':
        """Puts this layer and all inside it into the form that exporters take, or back into the one that is fastest in
        torch; returns the layer."""
        for module in self.modules():
            if isinstance(module, Layer):
                module.portable = portable
        return self

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``; the eager form writes it into ``x``."""
        return x + y if self.portable else x.add_(y)

    def strip(self) -> None:
        """Drops, in all layers inside, the weights that only images of another size than the built one take."""
        for module in self.children():
            for layer in [module] if isinstance(module, Layer) else module.children():
                layer.strip()


class Conv(Layer):
    """A conv with the padding k // 2, a bias and an activation."""

    def __init__(self, part: Affine, stride: int = 1, groups: int = 1, act: str = 'none'):
        super().__init__()
        assert act in ACTIVATIONS, act
        self.weight, self.bias = fixed(part.weight), fixed(part.bias)
        self.out_channels, self.in_channels = len(part.weight), part.weight.shape[1] * groups
        self.stride, self.groups, self.act = stride, groups, act
        kernel_size = tuple(part.weight.shape[2:])
        self.padding = tuple(size // 2 for size in kernel_size)
        # With one thread, torch gives an undilated 1 x 1 conv to a matrix product that runs at half the speed of
        # oneDNN's conv. Dilation means nothing to a single tap, and takes the fast way.
        self._dilation = 2 if kernel_size == (1, 1) and groups == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        dilation = self._dilation if x.device.type == 'cpu' and not self.portable else 1
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, dilation, self.groups)
        return activate(x, self.act, self.portable)


class Sequential(Layer):
    """Layers one after the other."""

    def __init__(self, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Residual(Sequential):
    """Layers one after the other, added to their input. The last one must give a new tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return self.plus(super().forward(x), x)


class Sum(Layer):
    """The sum of layers that read the same input."""

    def __init__(self, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.layers
        y = first(x)
        for layer in others:
            y = self.plus(y, layer(x))
        return y


class PoolMixer(Layer):
    """``x + scale * (mean3x3(x) - x)``, padding not counted in the mean.

    One depthwise conv whose taps are ``scale / 9``, times 9 over the number of pixels that each mean has (1 inside the
    image, 9 / 6 at the sides, 9 / 4 in the corners), plus ``(1 - scale) * x``.

    Args:
        scale: layer scale (C,).
        grid: (H, W) that the factor is stored for; for another it is computed.

    Attributes:
        as_mean: whether the portable form is a mean and two depthwise convs of one tap. ONNX Runtime computes these in
            the memory layout of its convs, and copies a map out of it to multiply it by the factors. Elsewhere that
            gains nothing, in torch a mean takes longer than the conv, and int8 would quantize two convs for one.
    """

    def __init__(self, scale: Tensor, grid: Sequence[int]):
        super().__init__()
        scale = scale.detach().double().flatten()
        self.grid, self.as_mean = tuple(grid), False
        self.weight = fixed((scale / 9)[:, None, None, None].expand(-1, 1, 3, 3))
        self.keep = fixed((1 - scale)[None, :, None, None])
        self.factor = nn.Parameter(self._factor(self.grid, self.weight), requires_grad=False)

    @staticmethod
    def _factor(grid: Sequence[int], like: Tensor) -> Tensor:
        ones = torch.ones(1, 1, *grid, dtype=like.dtype, device=like.device)
        return 1 / F.avg_pool2d(ones, 3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.portable and self.as_mean:
            return self._by_mean(x)
        grid = tuple(x.shape[2:])
        factor = self.factor if grid == self.grid else self._factor(grid, x)
        y = F.conv2d(x, self.weight, None, 1, 1, 1, len(self.weight))
        return y * factor + x * self.keep if self.portable else y.mul_(factor).addcmul_(x, self.keep)

    def _by_mean(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        keep, scale, channels = self.keep.transpose(0, 1), 9 * self.weight[:, :, :1, :1], len(self.weight)
        return F.conv2d(x, keep, groups=channels) + F.conv2d(mean, scale, groups=channels)


class FusedBackbone(Layer):
    """A fused backbone: a stem and stages, and a norm on each map that is returned.

    Args:
        stem: the layer in front.
        stages: in order.
        norms: one per map that is returned.
        out_indices: the stages whose maps are returned.
    """

    def __init__(self, stem: Layer, stages: Sequence[Layer], norms: Sequence[Layer], out_indices: Sequence[int]):
        super().__init__()
        self.stem, self.stages, self.norms = stem, nn.ModuleList(stages), nn.ModuleList(norms)
        self.out_indices = tuple(out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(self.norms[len(maps)](x))
        return maps


def fixed(values: Tensor) -> nn.Parameter:
    """A copy in float64 as a weight that is not trained."""
    copied = values.detach().to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    return nn.Parameter(copied, requires_grad=False)


def activation_name(module: nn.Module | None) -> str:
    """The name in :data:`ACTIVATIONS` of an activation layer.

    Raises:
        FuseError: for one that has no fused form.
    """
    for name, kind in ACTIVATIONS.items():
        if type(module) is kind and getattr(module, 'approximate', 'none') == 'none':
            return name
    if module is None:
        return 'none'
    raise FuseError(f'the activation {module} has no fused form; the fused layers know {", ".join(ACTIVATIONS)}')


def conv_module(module: nn.Module, groups: int = 1) -> tuple[Affine, str]:
    """An mmcv ``ConvModule`` as one conv and the name of its activation.

    Raises:
        FuseError: for one that is more than conv, BatchNorm and a known activation.
    """
    conv = module.conv
    if (
        type(conv) is not nn.Conv2d
        or conv.groups != groups
        or conv.padding_mode != 'zeros'
        or getattr(module, 'with_explicit_padding', False)
    ):
        raise FuseError(
            f'{conv} has no fused form here; a plain zero-padded nn.Conv2d of {groups} group(s) was expected'
        )
    same = tuple(size // 2 for size in conv.kernel_size)
    if (conv.stride, conv.dilation, conv.padding) != ((1, 1), (1, 1), same):
        raise FuseError(
            f'{conv} changes the size of its map or is dilated; stride 1, dilation 1, padding {same} were expected'
        )
    if tuple(module.order) != ('conv', 'norm', 'act') or module.with_spectral_norm:
        raise FuseError(
            f'a ConvModule in the order {module.order} or with spectral norm has no fused form; conv, norm, act was '
            'expected'
        )
    part = fold_norm(conv, module.norm if module.with_norm else None)
    return part, activation_name(module.activate if module.with_activation else None)


def activate(x: Tensor, name: str, portable: bool) -> Tensor:
    """Applies an activation; the eager form overwrites ``x``, which saves allocating the largest maps twice."""
    if name == 'relu':
        return F.relu(x, inplace=not portable)
    if name == 'gelu':
        return F.gelu(x) if portable else torch.ops.aten.gelu_(x)
    if name == 'hardswish':
        return F.hardswish(x, inplace=not portable)
    return x
