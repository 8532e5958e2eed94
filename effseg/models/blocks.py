"""The building blocks of EfficientFormer, in training form, from small to large.

Li et al., "EfficientFormer: Vision Transformers at MobileNet Speed", NeurIPS 2022, https://arxiv.org/abs/2206.01191.
Class and parameter names are timm's, so that weights of its hub load without a table:
https://github.com/huggingface/pytorch-image-models/blob/ab7ca62a6eed/timm/models/efficientformer.py
(Apache-2.0).

Maps are (N, C, H, W); tokens are (N, L, C) with L = H * W in row-major order. Each block's ``fuse()`` gives its
inference form, on maps throughout and in float64 (:mod:`effseg.fusion.layers`); ``grid`` is the (H, W) of the block's
map.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, LayerScale2d, Mlp, trunc_normal_
from torch import Tensor, nn

from ..errors import ConfigError
from ..fusion import layers as fused
from ..fusion.attention import Attention as FusedAttention
from ..fusion.folding import Affine, fold_norm, linear_part
from ..fusion.layers import activation_name
from ..fusion.norms import ChannelNorm
from .attention_bias import BIAS_RESIZE, attention_bias

HEADS, KEY_DIM, VALUE_DIM = 8, 32, 128  # channels of keys and of values per head
LAYER_SCALE = 1e-5  # at the start of a training
ACTIVATIONS = {'GELU': nn.GELU, 'HardSwish': nn.Hardswish, 'ReLU': nn.ReLU}


def activation(name: str) -> type[nn.Module]:
    """The activation layer of that name.

    Raises:
        ConfigError: for a name outside :data:`ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f'act={name!r} is unknown; use one of {", ".join(map(repr, ACTIVATIONS))}')
    return ACTIVATIONS[name]


def init_layers(*layers: nn.Module) -> None:
    """Initialises convs or linear layers as the published networks are: small normal weights, biases of zero."""
    for layer in layers:
        trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)


def check_table(resolution: int, bias_resize: str) -> None:
    """Raises ConfigError for a side of a bias table that there cannot be, or a way of resizing that does not exist."""
    if type(resolution) is not int or resolution < 1:
        raise ConfigError(f'resolution={resolution!r} came; a whole number of 1 or more was expected')
    if bias_resize not in BIAS_RESIZE:
        raise ConfigError(f'bias_resize={bias_resize!r} is unknown; use one of {", ".join(map(repr, BIAS_RESIZE))}')


class Stem(nn.Sequential):
    """Two strided convs: (N, 3, H, W) -> (N, dim, ceil(H / 4), ceil(W / 4)). ReLU whatever ``act`` is, as published."""

    def __init__(self, dim: int):
        super().__init__()
        self.add_module('conv1', nn.Conv2d(3, dim // 2, kernel_size=3, stride=2, padding=1))
        self.add_module('norm1', nn.BatchNorm2d(dim // 2))
        self.add_module('act1', nn.ReLU())
        self.add_module('conv2', nn.Conv2d(dim // 2, dim, kernel_size=3, stride=2, padding=1))
        self.add_module('norm2', nn.BatchNorm2d(dim))
        self.add_module('act2', nn.ReLU())

    def fuse(self) -> fused.Sequential:
        """Returns the fused form: two convs."""
        return fused.Sequential(
            [
                fused.Conv(fold_norm(self.conv1, self.norm1), stride=2, act=activation_name(self.act1)),
                fused.Conv(fold_norm(self.conv2, self.norm2), stride=2, act=activation_name(self.act2)),
            ]
        )


class Downsample(nn.Module):
    """A strided conv between two stages: (N, dim_in, H, W) -> (N, dim_out, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, kernel_size=3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fuse(self, grid: tuple[int, int] | None = None) -> fused.Conv:
        """Returns the fused form: one conv; it does not depend on ``grid``, the (H, W) of its input."""
        return fused.Conv(fold_norm(self.conv, self.norm), stride=2)


class Pooling(nn.Module):
    """PoolFormer's token mixer: the 3 x 3 mean (padding not counted) minus the map itself."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class ConvMlpWithNorm(nn.Module):
    """Two 1 x 1 convs, each followed by BatchNorm, on a map."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: type[nn.Module]):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.norm1 = nn.BatchNorm2d(hidden_dim)
        self.act = act_layer()
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        init_layers(self.fc1, self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.fc2(self.act(self.norm1(self.fc1(x)))))

    def fuse(self, scale: Tensor) -> list[fused.Conv]:
        """Returns the fused form: two convs, the second multiplied by the layer scale behind the block."""
        return [
            fused.Conv(fold_norm(self.fc1, self.norm1), act=activation_name(self.act)),
            fused.Conv(fold_norm(self.fc2, self.norm2).scaled(scale)),
        ]


class MetaBlock2d(nn.Module):
    """Pooling mixer and conv MLP on a map, each scaled per channel and added to its input."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: type[nn.Module], drop_path: float):
        super().__init__()
        self.token_mixer = Pooling()
        self.ls1 = LayerScale2d(dim, LAYER_SCALE)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.mlp = ConvMlpWithNorm(dim, hidden_dim, act_layer)
        self.ls2 = LayerScale2d(dim, LAYER_SCALE)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(x)))
        return x + self.drop_path2(self.ls2(self.mlp(x)))

    def fuse(self, grid: tuple[int, int]) -> fused.Sequential:
        """Returns the fused form: a depthwise conv and a residual pair of convs."""
        return fused.Sequential([fused.PoolMixer(self.ls1.gamma, grid), fused.Residual(self.mlp.fuse(self.ls2.gamma))])


class Attention(nn.Module):
    """Multi-head self-attention over tokens with a bias looked up by offset.

    Args:
        dim: channels of the tokens.
        resolution: side of the square offset table.
        bias_resize: see :mod:`effseg.models.attention_bias`.
    """

    def __init__(self, dim: int, resolution: int = 7, bias_resize: str = 'interpolate'):
        super().__init__()
        check_table(resolution, bias_resize)
        self.scale = KEY_DIM**-0.5
        self.resolution, self.bias_resize = (resolution, resolution), bias_resize
        self.qkv = nn.Linear(dim, HEADS * (2 * KEY_DIM + VALUE_DIM))
        self.proj = nn.Linear(HEADS * VALUE_DIM, dim)
        self.attention_biases = nn.Parameter(torch.zeros(HEADS, resolution * resolution))
        init_layers(self.qkv, self.proj)

    def bias(self, grid: tuple[int, int]) -> Tensor:
        """The bias (heads, L, L) for a map of ``grid`` = (H, W); computed anew, so that it can never be stale."""
        return attention_bias(self.attention_biases, self.resolution, grid, self.bias_resize)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, HEADS, -1).transpose(1, 2)
        q, k, v = qkv.split([KEY_DIM, KEY_DIM, VALUE_DIM], dim=3)
        bias = self.bias(grid).to(q.dtype).expand(batch, -1, -1, -1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return self.proj(x.transpose(1, 2).reshape(batch, length, -1))

    def fuse(self, norm: nn.LayerNorm, scale: Tensor, grid: tuple[int, int]) -> FusedAttention:
        """Returns the fused form: attention with the bias stored for ``grid``, on a map that ``norm`` has
        centred and normalised but not scaled."""
        whole = linear_part(self.qkv).after(norm.weight, norm.bias)
        sizes = [KEY_DIM, KEY_DIM, VALUE_DIM]
        query, key, value = (
            Affine(weight.flatten(0, 1), bias.flatten())
            for weight, bias in zip(
                whole.weight.unflatten(0, (HEADS, -1)).split(sizes, 1),
                whole.bias.unflatten(0, (HEADS, -1)).split(sizes, 1),
            )
        )
        query = Affine(query.weight * self.scale, query.bias * self.scale)
        proj = linear_part(self.proj).scaled(scale)
        return FusedAttention(
            fused.Conv(query),
            fused.Conv(key),
            fused.Conv(value),
            fused.Conv(proj),
            self.attention_biases,
            grid,
            self.resolution,
            self.bias_resize,
        )


class MetaBlock1d(nn.Module):
    """Attention and MLP over tokens, each behind a LayerNorm, scaled per channel and added to its input."""

    def __init__(
        self, dim: int, hidden_dim: int, act_layer: type[nn.Module], drop_path: float, resolution: int, bias_resize: str
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_mixer = Attention(dim, resolution=resolution, bias_resize=bias_resize)
        self.ls1 = LayerScale(dim, LAYER_SCALE)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features=hidden_dim, act_layer=act_layer)
        self.ls2 = LayerScale(dim, LAYER_SCALE)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        init_layers(self.mlp.fc1, self.mlp.fc2)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(self.norm1(x), grid)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def fuse(self, grid: tuple[int, int]) -> fused.Sequential:
        """Returns the fused form: attention and a pair of 1 x 1 convs, each behind a bare normalisation
        and added to its input."""
        attention = self.token_mixer.fuse(self.norm1, self.ls1.gamma, grid)
        hidden = linear_part(self.mlp.fc1).after(self.norm2.weight, self.norm2.bias)
        return fused.Sequential(
            [
                fused.Residual([ChannelNorm(self.norm1.eps), attention]),
                fused.Residual(
                    [
                        ChannelNorm(self.norm2.eps),
                        fused.Conv(hidden, act=activation_name(self.mlp.act)),
                        fused.Conv(linear_part(self.mlp.fc2).scaled(self.ls2.gamma)),
                    ]
                ),
            ]
        )
