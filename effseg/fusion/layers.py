"""The layers of a fused network: pure torch, inference only, maps (N, C, H, W) in and out.

Layers have two forms of the same function, equal up to rounding. The *eager* form is written for torch on a CPU: it
works in place and calls the fast kernels. The *portable* form (``set_portable()``) uses only functional operations that
the phone runtimes execute natively: no normalisation operators, no expand, no nearest upsampling.

``fuse()`` methods of the blocks give these layers in float64, the precision that folding is done in; the segmentor
rounds once, at the end.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FuseError
from ..models.attention_bias import attention_bias, resize_table
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

    def strip(self) -> None:
        """Drops, in all layers inside, what only images of another size than the built one take."""
        for module in self.children():
            for layer in [module] if isinstance(module, Layer) else module.children():
                layer.strip()


class Conv(Layer):
    """A conv with the padding k // 2, a bias and an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: int = 1,
        groups: int = 1,
        act: str = 'none',
    ):
        super().__init__()
        assert act in ACTIVATIONS, act
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, tuple(kernel_size)
        self.stride, self.groups, self.act = stride, groups, act
        self.padding = tuple(size // 2 for size in self.kernel_size)
        self.weight = empty(out_channels, in_channels // groups, *self.kernel_size)
        self.bias = empty(out_channels)
        # With one thread, torch gives an undilated 1 x 1 conv to a matrix product that runs at half the speed of
        # oneDNN's conv. Dilation means nothing to a single tap, and takes the fast way.
        self._dilation = 2 if self.kernel_size == (1, 1) and groups == 1 else 1

    @classmethod
    def of(cls, part: Affine, stride: int = 1, groups: int = 1, act: str = 'none') -> 'Conv':
        """The layer with these weights."""
        out_channels, in_channels, *kernel_size = part.weight.shape
        layer = cls(in_channels * groups, out_channels, kernel_size, stride, groups, act)
        layer.to(part.weight.device)
        layer.weight.copy_(part.weight)
        layer.bias.copy_(part.bias)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        dilation = 1 if self.portable else self._dilation
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
        y = super().forward(x)
        return x + y if self.portable else y.add_(x)


class Sum(Layer):
    """The sum of layers that read the same input."""

    def __init__(self, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.layers
        y = first(x)
        for layer in others:
            y = y + layer(x) if self.portable else y.add_(layer(x))
        return y


class PoolMixer(Layer):
    """``x + scale * (mean3x3(x) - x)``, padding not counted in the mean.

    One depthwise conv whose taps are ``scale / 9``, times 9 over the number of pixels that each mean has (1 inside the
    image, 9 / 6 at the sides, 9 / 4 in the corners), plus ``(1 - scale) * x``.

    Args:
        channels: C.
        grid: (H, W) that the factor is stored for; for another it is computed.
    """

    def __init__(self, channels: int, grid: Sequence[int]):
        super().__init__()
        self.channels, self.grid = channels, tuple(grid)
        self.weight = empty(channels, 1, 3, 3)
        self.keep = empty(1, channels, 1, 1)
        self.factor = nn.Parameter(self._factor(self.grid, self.weight), requires_grad=False)

    @classmethod
    def of(cls, scale: Tensor, grid: Sequence[int]) -> 'PoolMixer':
        """The mixer with this layer scale (C,)."""
        scale = scale.detach().double().flatten()
        layer = cls(len(scale), grid).to(scale.device)
        layer.weight.copy_((scale / 9)[:, None, None, None])
        layer.keep.copy_((1 - scale)[None, :, None, None])
        return layer

    @staticmethod
    def _factor(grid: Sequence[int], like: Tensor) -> Tensor:
        ones = torch.ones(1, 1, *grid, dtype=like.dtype, device=like.device)
        return 1 / F.avg_pool2d(ones, 3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        grid = tuple(x.shape[2:])
        factor = self.factor if grid == self.grid else self._factor(grid, x)
        y = F.conv2d(x, self.weight, None, 1, 1, 1, self.channels)
        return y * factor + x * self.keep if self.portable else y.mul_(factor).addcmul_(x, self.keep)


class MapNorm(Layer):
    """Normalisation of a whole map (GroupNorm) and a scale and shift per channel.

    Args:
        channels: C.
        groups: of channels with a mean and variance of their own; 0 leaves the map as it is.
        eps: added to the variance.
        affine: whether a scale and shift follow. The layer behind may take them over: :meth:`release`.
    """

    def __init__(self, channels: int, groups: int, eps: float, affine: bool):
        super().__init__()
        self.channels, self.groups, self.eps, self.affine = channels, groups, eps, affine
        self.scale: Any = empty(channels) if affine else None
        self.shift: Any = empty(channels) if affine else None

    @classmethod
    def of(cls, channels: int, groups: int, eps: float, scale: Tensor | None, shift: Tensor | None) -> 'MapNorm':
        """Makes a norm; ``scale`` and ``shift`` are (C,), or both None."""
        layer = cls(channels, groups, eps, affine=scale is not None)
        if scale is not None and shift is not None:
            layer.to(scale.device)
            layer.scale.copy_(scale.detach())
            layer.shift.copy_(shift.detach())
        return layer

    def release(self) -> tuple[Tensor | None, Tensor | None]:
        """Gives the scale and shift away; from then on the layer only normalises."""
        released = self.scale, self.shift
        self.scale = self.shift = None
        self.affine = False
        return released

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1 and self.portable:
            x = _normalise(x, lambda y, factor=1.0: _map_mean(_channel_mean(y, factor)), self.eps)
        elif self.groups:
            x = F.group_norm(x, self.groups, eps=self.eps)
        return x * self.scale[None, :, None, None] + self.shift[None, :, None, None] if self.affine else x


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


class Attention(Layer):
    """Multi-head attention on a map, with a bias per head, query and key.

    ``proj(act(upsample(mix_out(softmax(mix_in(q k) + bias)) v + local(v))))``; every part but q, k, v and proj is
    optional.

    Args:
        query: gives (N, heads * d, H_q, W_q); the scale of the logits is part of its weights.
        key: gives (N, heads * d, H, W).
        value: gives (N, heads * e, H, W).
        proj: the output layer.
        heads: number of heads.
        grid: (H, W) of the keys that the bias is stored for; for another it is expanded from the table.
        resolution: (R_h, R_w) of the table.
        bias_resize: see :mod:`effseg.models.attention_bias`.
        query_stride: distance of the queries on the keys' grid.
        before: a layer in front of query, key and value, such as a strided conv; with one, the result is upsampled
            bilinearly to the size of the input.
        local: (N, heads * e, H, W) -> (N, heads * e, H_q, W_q), added to the attended values.
        mix_in: a 1 x 1 conv over the heads of the logits (talking heads), bias included.
        mix_out: the same over the heads of the probabilities.
        act: activation in front of ``proj``.

    Attributes:
        expand_when_run: expand the bias from the table even at ``grid``: for a file whose runtime does so once, when it
            loads the file, which is smaller for it. Without a table the bias is what is stored.
    """

    def __init__(
        self,
        query: Layer,
        key: Layer,
        value: Layer,
        proj: Layer,
        heads: int,
        grid: Sequence[int],
        resolution: Sequence[int],
        bias_resize: str,
        query_stride: int = 1,
        before: Layer | None = None,
        local: Layer | None = None,
        mix_in: Conv | None = None,
        mix_out: Conv | None = None,
        act: str = 'none',
    ):
        super().__init__()
        self.query, self.key, self.value, self.proj = query, key, value, proj
        self.heads, self.grid, self.resolution = heads, (grid[0], grid[1]), (resolution[0], resolution[1])
        self.bias_resize, self.query_stride, self.act = bias_resize, query_stride, act
        self.before, self.local, self.mix_in, self.mix_out = before, local, mix_in, mix_out
        queries = -(-self.grid[0] // query_stride) * -(-self.grid[1] // query_stride)
        self.expand_when_run = False
        self.table: Any = empty(heads, self.resolution[0] * self.resolution[1])
        self.bias = empty(heads, queries, self.grid[0] * self.grid[1])

    def set_table(self, table: Tensor) -> 'Attention':
        """Takes over an offset table (heads, R_h * R_w) and expands it for the grid; returns the layer."""
        self.to(table.device)
        self.table.copy_(table.detach())
        if self.mix_in is not None:  # what is added before a linear map of the heads can be added behind it
            self.table.copy_(self.mix_in.weight[:, :, 0, 0] @ self.table)
        self.bias.copy_(self._expanded(self.grid))
        return self

    def strip(self) -> None:
        """Drops, in all layers inside, what only other sizes take; of the offset table it keeps the built size's."""
        super().strip()
        if self.bias_resize == 'matrix':  # the bias has no table
            self.table = None
            return
        table = resize_table(self.table, self.resolution, self.grid, self.bias_resize)
        self.table, self.resolution = nn.Parameter(table, requires_grad=False), self.grid

    def _expanded(self, grid: tuple[int, int]) -> Tensor:
        return attention_bias(self.table, self.resolution, grid, self.bias_resize, self.query_stride)

    def forward(self, x: Tensor) -> Tensor:
        source = x if self.before is None else self.before(x)
        batch, grid = x.shape[0], (source.shape[2], source.shape[3])
        query, value = self.query(source), self.value(source)
        size = query.shape[2:]
        q, k, v = (
            y.reshape(batch * self.heads, y.shape[1] // self.heads, y.shape[2] * y.shape[3])
            for y in (query, self.key(source), value)
        )
        logits = torch.bmm(q.transpose(1, 2), k)
        logits = self._heads(self.mix_in, logits, batch)
        stored = grid == self.grid and not (self.expand_when_run and self.table is not None)
        bias = self.bias if stored else self._expanded(grid)
        if not self.portable:
            logits.unflatten(0, (batch, self.heads)).add_(bias)
        elif batch > 1:
            logits = (logits.unflatten(0, (batch, self.heads)) + bias).flatten(0, 1)
        else:
            logits = logits + bias
        attended = self._heads(self.mix_out, logits.softmax(-1), batch)
        y = torch.bmm(attended, v.transpose(1, 2)).transpose(1, 2).reshape(batch, value.shape[1], *size)
        if self.local is not None:
            y = y + self.local(value)
        if self.before is not None:
            y = F.interpolate(y, size=x.shape[2:], mode='bilinear')
        return self.proj(activate(y, self.act, self.portable))

    def _heads(self, mix: Conv | None, maps: Tensor, batch: int) -> Tensor:
        return maps if mix is None else mix(maps.unflatten(0, (batch, self.heads))).flatten(0, 1)


class FusedBackbone(Layer):
    """A fused backbone: a stem and stages, and a norm on each map that is returned.

    Args:
        stem: the layer in front.
        stages: in order.
        norms: one per map that is returned.
        out_indices: the stages whose maps are returned.
    """

    def __init__(self, stem: Layer, stages: Sequence[Layer], norms: Sequence[MapNorm], out_indices: Sequence[int]):
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


def empty(*shape: int) -> nn.Parameter:
    """A weight of that shape, to be filled."""
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64), requires_grad=False)


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
