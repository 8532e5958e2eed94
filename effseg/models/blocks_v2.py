"""The building blocks of EfficientFormerV2, in training form, from small to large.

Li et al., "Rethinking Vision Transformers for MobileNet Size and Speed", ICCV 2023, https://arxiv.org/abs/2212.08059.
Class and parameter names are timm's, so that weights of its hub load without a table:
https://github.com/huggingface/pytorch-image-models/blob/03fa149147b1/timm/models/efficientformer_v2.py
(Apache-2.0). Everything is a map (N, C, H, W), of any height and width.

Each block's ``fuse()`` gives its inference form in float64 (:mod:`effseg.fusion.layers`); ``grid`` is the (H, W) of its
input.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale2d
from torch import Tensor, nn

from ..fusion import layers as fused
from ..fusion.attention import Attention as FusedAttention
from ..fusion.folding import Affine, fold_norm, linear_part
from ..fusion.layers import activation_name
from .attention_bias import attention_bias
from .blocks import HEADS, KEY_DIM, LAYER_SCALE, VALUE_DIM, check_table, init_layers

DOWN_KEY_DIM, DOWN_VALUE_DIM = 16, 64  # of the attention between stages


class ConvNorm(nn.Module):
    """A conv of padding k // 2, BatchNorm, and an activation if one is given."""

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act_layer: type[nn.Module] = nn.Identity,
    ):
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, kernel_size, stride, kernel_size // 2, groups=groups)
        self.bn = nn.BatchNorm2d(dim_out)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def folded(self) -> Affine:
        """Conv and BatchNorm as one conv's weight and bias."""
        return fold_norm(self.conv, self.bn)

    def fuse(self, scale: Tensor | None = None) -> fused.Conv:
        """Returns the fused form: one conv, multiplied per channel by ``scale``."""
        part = self.folded() if scale is None else self.folded().scaled(scale)
        act = 'none' if isinstance(self.act, nn.Identity) else activation_name(self.act)
        return fused.Conv(part, self.conv.stride[0], self.conv.groups, act)


class Stem(nn.Sequential):
    """Two strided convs: (N, 3, H, W) -> (N, dim, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, dim: int, act_layer: type[nn.Module]):
        super().__init__()
        self.add_module('conv1', ConvNorm(3, dim // 2, 3, stride=2, act_layer=act_layer))
        self.add_module('conv2', ConvNorm(dim // 2, dim, 3, stride=2, act_layer=act_layer))

    def fuse(self) -> fused.Sequential:
        """Returns the fused form: two convs."""
        return fused.Sequential([self.conv1.fuse(), self.conv2.fuse()])


class ConvMlp(nn.Module):
    """1 x 1 conv, depthwise 3 x 3 conv, 1 x 1 conv, each followed by BatchNorm."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: type[nn.Module]):
        super().__init__()
        self.fc1 = ConvNorm(dim, hidden_dim, act_layer=act_layer)
        self.mid = ConvNorm(hidden_dim, hidden_dim, 3, groups=hidden_dim, act_layer=act_layer)
        self.fc2 = ConvNorm(hidden_dim, dim)
        init_layers(self.fc1.conv, self.fc2.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.mid(self.fc1(x)))

    def fuse(self, scale: Tensor) -> list[fused.Conv]:
        """Returns the fused form: three convs, the last multiplied by the layer scale behind the block."""
        return [self.fc1.fuse(), self.mid.fuse(), self.fc2.fuse(scale)]


class Attention2d(nn.Module):
    """Multi-head self-attention with talking heads (Shazeer et al., https://arxiv.org/abs/2003.02436) and a local
    branch.

    With a stride it attends on a map of (ceil(H / stride), ceil(W / stride)) and is upsampled bilinearly to (H, W).

    Args:
        dim: channels of the map.
        act_layer: activation in front of the output conv.
        resolution: side of the square offset table, in positions of the map it attends on.
        bias_resize: see :mod:`effseg.models.attention_bias`.
        stride: of the map it attends on, or None.
    """

    def __init__(
        self, dim: int, act_layer: type[nn.Module], resolution: int, bias_resize: str, stride: int | None = None
    ):
        super().__init__()
        check_table(resolution, bias_resize)
        self.scale = KEY_DIM**-0.5
        self.resolution, self.bias_resize = (resolution, resolution), bias_resize
        keys, values = HEADS * KEY_DIM, HEADS * VALUE_DIM
        self.stride_conv = ConvNorm(dim, dim, 3, stride=stride, groups=dim) if stride else None
        self.q = ConvNorm(dim, keys)
        self.k = ConvNorm(dim, keys)
        self.v = ConvNorm(dim, values)
        self.v_local = ConvNorm(values, values, 3, groups=values)
        self.talking_head1 = nn.Conv2d(HEADS, HEADS, 1)
        self.talking_head2 = nn.Conv2d(HEADS, HEADS, 1)
        self.act = act_layer()
        self.proj = ConvNorm(values, dim)
        self.attention_biases = nn.Parameter(torch.zeros(HEADS, resolution * resolution))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        height, width = x.shape[2:]
        bias = attention_bias(self.attention_biases, self.resolution, (height, width), self.bias_resize)
        logits = attention_logits(q, k, bias, self.scale)
        weights = self.talking_head2(self.talking_head1(logits).softmax(dim=-1))
        x = attended(weights, v, (height, width)) + self.v_local(v)
        if self.stride_conv is not None:
            x = F.interpolate(x, size=size, mode='bilinear')
        return self.proj(self.act(x))

    def fuse(self, scale: Tensor, grid: tuple[int, int]) -> FusedAttention:
        """Returns the fused form: attention of convs alone with its talking heads, its output multiplied by
        the layer scale behind it."""
        before = None
        if self.stride_conv is not None:
            before = self.stride_conv.fuse()
            grid = -(-grid[0] // before.stride), -(-grid[1] // before.stride)
        return FusedAttention(
            fused.Conv(scaled(self.q.folded(), self.scale)),
            self.k.fuse(),
            self.v.fuse(),
            self.proj.fuse(scale),
            self.attention_biases,
            grid,
            self.resolution,
            self.bias_resize,
            before=before,
            local=self.v_local.fuse(),
            mix_in=linear_part(self.talking_head1),
            mix_out=linear_part(self.talking_head2),
            act=activation_name(self.act),
        )


class LocalGlobalQuery(nn.Module):
    """Queries on every second row and column: a depthwise conv added to the map itself, then a 1 x 1 conv."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.local = nn.Conv2d(dim_in, dim_in, 3, stride=2, padding=1, groups=dim_in)
        self.proj = ConvNorm(dim_in, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.local(x) + x[:, :, ::2, ::2])

    def fuse(self, scale: float) -> fused.Sequential:
        """Returns the fused form: two convs, where the map itself is one more on the depthwise kernel's centre."""
        local = linear_part(self.local)
        itself = torch.zeros_like(local.weight)
        itself[:, :, 1, 1] = 1
        local = Affine(local.weight + itself, local.bias)
        return fused.Sequential(
            [fused.Conv(local, stride=2, groups=self.local.groups), fused.Conv(scaled(self.proj.folded(), scale))]
        )


class AttentionDownsample(nn.Module):
    """Attention whose queries sit on every second row and column of the keys:
    (N, dim_in, H, W) -> (N, dim_out, ceil(H / 2), ceil(W / 2)).

    Args:
        resolution: side of the square offset table, in positions of the input.
        bias_resize: see :mod:`effseg.models.attention_bias`.
    """

    def __init__(self, dim_in: int, dim_out: int, act_layer: type[nn.Module], resolution: int, bias_resize: str):
        super().__init__()
        check_table(resolution, bias_resize)
        self.scale = DOWN_KEY_DIM**-0.5
        self.resolution, self.bias_resize = (resolution, resolution), bias_resize
        keys, values = HEADS * DOWN_KEY_DIM, HEADS * DOWN_VALUE_DIM
        self.q = LocalGlobalQuery(dim_in, keys)
        self.k = ConvNorm(dim_in, keys)
        self.v = ConvNorm(dim_in, values)
        self.v_local = ConvNorm(values, values, 3, stride=2, groups=values)
        self.act = act_layer()
        self.proj = ConvNorm(values, dim_out)
        self.attention_biases = nn.Parameter(torch.zeros(HEADS, resolution * resolution))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        height, width = x.shape[2:]
        bias = attention_bias(self.attention_biases, self.resolution, (height, width), self.bias_resize, query_stride=2)
        weights = attention_logits(q, k, bias, self.scale).softmax(dim=-1)
        return self.proj(self.act(attended(weights, v, (q.shape[2], q.shape[3])) + self.v_local(v)))

    def fuse(self, grid: tuple[int, int]) -> FusedAttention:
        """Returns the fused form: attention of convs alone."""
        return FusedAttention(
            self.q.fuse(self.scale),
            self.k.fuse(),
            self.v.fuse(),
            self.proj.fuse(),
            self.attention_biases,
            grid,
            self.resolution,
            self.bias_resize,
            query_stride=2,
            local=self.v_local.fuse(),
            act=activation_name(self.act),
        )


class Downsample(nn.Module):
    """A strided conv between two stages, and attention beside it if given:
    (N, dim_in, H, W) -> (N, dim_out, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, dim_in: int, dim_out: int, attn: AttentionDownsample | None = None):
        super().__init__()
        self.conv = ConvNorm(dim_in, dim_out, 3, stride=2)
        self.attn = attn

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.attn is None else self.attn(x) + self.conv(x)

    def fuse(self, grid: tuple[int, int]) -> fused.Conv | fused.Sum:
        """Returns the fused form: one conv, or its sum with the attention."""
        return self.conv.fuse() if self.attn is None else fused.Sum([self.attn.fuse(grid), self.conv.fuse()])


class Block(nn.Module):
    """A conv MLP, behind attention in some blocks; each is scaled per channel and added to its input."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act_layer: type[nn.Module],
        drop_path: float,
        token_mixer: Attention2d | None = None,
    ):
        super().__init__()
        self.token_mixer = token_mixer
        self.ls1 = LayerScale2d(dim, LAYER_SCALE) if token_mixer is not None else None
        self.mlp = ConvMlp(dim, hidden_dim, act_layer)
        self.ls2 = LayerScale2d(dim, LAYER_SCALE)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.token_mixer is not None and self.ls1 is not None:
            x = x + self.drop_path(self.ls1(self.token_mixer(x)))
        return x + self.drop_path(self.ls2(self.mlp(x)))

    def fuse(self, grid: tuple[int, int]) -> fused.Layer:
        """Returns the fused form: residual convs, behind residual attention."""
        mlp = fused.Residual(self.mlp.fuse(self.ls2.gamma))
        if self.token_mixer is None or self.ls1 is None:
            return mlp
        return fused.Sequential([fused.Residual([self.token_mixer.fuse(self.ls1.gamma, grid)]), mlp])


def attention_logits(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(N, heads * d, H_q, W_q) queries and (N, heads * d, H, W) keys -> (N, heads, queries, keys), with the bias
    added."""
    query, key = (x.unflatten(1, (HEADS, -1)).flatten(3) for x in (query, key))
    return query.transpose(2, 3) @ key * scale + bias.to(query.dtype)


def attended(weights: Tensor, value: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean of the values (N, heads * e, H, W) under weights (N, heads, queries, keys), as a map of ``grid`` = (H_q,
    W_q)."""
    value = value.unflatten(1, (weights.shape[1], -1)).flatten(3)
    return (value @ weights.transpose(2, 3)).flatten(1, 2).unflatten(2, tuple(grid))


def scaled(part: Affine, factor: float) -> Affine:
    """Followed by a multiplication with a number."""
    return Affine(part.weight * factor, part.bias * factor)
