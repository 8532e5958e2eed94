"""MMSegmentation's SegformerHead as one 1x1 conv per level, a sum and a classifier.

The all-MLP head of SegFormer: Xie et al., NeurIPS 2021, https://arxiv.org/abs/2105.15203.

The head puts each map through a 1x1 conv, resizes the results to the finest map's size, concatenates them and mixes
them by another 1x1 conv. A 1x1 conv and a resize commute: both are linear, and the weights of a resize sum to one, so
that biases pass as well. The second conv therefore splits into one conv per level at the level's own size, and becomes
one with the first where nothing stands between them:

    y = act(sum over levels of resize(W_i x_i + b_i)).
"""

import functools
import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FuseError
from .folding import Affine, linear_part
from .layers import Conv, Layer, Sequential, activate, conv_module
from .norms import MapNorm


class MlpHead(Layer):
    """Maps of the backbone to logits at the size of the first map that the head reads.

    Args:
        in_index: which of the maps each level reads.
        levels: (N, C_i, H_i, W_i) -> (N, C, H_i, W_i), one per level.
        act: activation of the sum.
        mixing: a depthwise conv of the sum, with the activation behind it, in place of ``act``; or None.
        classifier: 1x1 conv.
        align_corners: of the bilinear resizes.
    """

    def __init__(
        self,
        in_index: Sequence[int],
        levels: Sequence[Layer],
        act: str,
        mixing: Conv | None,
        classifier: Conv,
        align_corners: bool,
    ):
        super().__init__()
        self.in_index, self.levels = tuple(in_index), nn.ModuleList(levels)
        self.act, self.mixing, self.classifier = act, mixing, classifier
        self.align_corners = align_corners

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """
        Args:
            maps: (N, C_i, H_i, W_i), all that the backbone returns.

        Returns:
            (N, classes, H, W), H and W those of the first map that is read.
        """
        finest, *coarser = [level(maps[index]) for index, level in zip(self.in_index, self.levels)]
        options = dict(size=finest.shape[2:], mode='bilinear', align_corners=self.align_corners)
        resized = (F.interpolate(x, **options) for x in reversed(coarser))
        # the finest last: runtimes add what is there already, and apply the activation, inside its conv
        y = functools.reduce(self.plus, itertools.chain(resized, [finest]))
        return self.classifier(self.mixing(y) if self.mixing else activate(y, self.act, self.portable))

    def strip_to(self, grids: Sequence[Sequence[int]]) -> None:
        """Drops nothing: maps of all sizes take the same weights."""
        self.strip()


def fuse_mlp_head(
    neck: nn.Module | None, head: nn.Module, norms: Sequence[MapNorm], grids: Sequence[Sequence[int]]
) -> MlpHead:
    """The decoder of a trained SegformerHead or DepthwiseSegformerHead, in float64.

    Args:
        neck: None; the head reads the backbone's maps.
        head: the head.
        norms: the norm on each of the backbone's maps; the decoder takes their scale and shift over (``release()``).
        grids: (H, W) of each map; the decoder is the same for all.

    Raises:
        FuseError: for a head that has no exact fused form.
    """
    if neck is not None:
        raise FuseError(
            f'a {type(neck).__name__} stands in front of the {type(head).__name__}, which fuses on the maps of the '
            'backbone: neck=None was expected'
        )
    if head.interpolate_mode != 'bilinear':
        raise FuseError(f"the {type(head).__name__} resizes {head.interpolate_mode}; only 'bilinear' has a fused form")
    if not all(-len(norms) <= index < len(norms) for index in head.in_index):
        raise FuseError(f'the head reads the maps {list(head.in_index)} of a backbone that returns {len(norms)}')
    affine = [norm.release() for norm in norms]
    fusion, act = conv_module(head.fusion_conv)
    # level by level what the fusion conv does to its part of the concatenation, its bias with the first
    split = [Affine(weight, 0 * fusion.bias) for weight in fusion.weight.split(head.channels, 1)]
    split[0] = Affine(split[0].weight, fusion.bias)
    levels = [
        _level(conv, affine[index], part) for conv, index, part in zip(head.convs, head.in_index, split, strict=True)
    ]
    mixing = getattr(head.fusion_conv, 'mixing', None)
    return MlpHead(
        head.in_index,
        levels,
        act,
        None if mixing is None else _mixing(mixing, act),
        Conv(linear_part(head.conv_seg)),
        bool(head.align_corners),
    )


def _level(module: nn.Module, affine: tuple[Tensor | None, Tensor | None], outer: Affine) -> Layer:
    """A level's conv and its part of the fusion conv: one conv, or two with an activation between them."""
    inner, act = conv_module(module)
    inner = inner.after(*affine)
    if act != 'none':
        return Sequential([Conv(inner, act=act), Conv(outer)])
    weight, bias = (outer.weight[:, :, 0, 0] @ part.flatten(1) for part in (inner.weight, inner.bias[:, None]))
    return Conv(Affine(weight[..., None, None], bias[:, 0] + outer.bias))


def _mixing(module: nn.Module, act: str) -> Conv:
    """A depthwise conv added to its input, as one depthwise conv: its input is one more on the tap in the middle."""
    part, none = conv_module(module, module.conv.out_channels)
    assert none == 'none', none
    weight = part.weight.clone()  # without a norm it is the head's own
    weight[:, 0, weight.shape[2] // 2, weight.shape[3] // 2] += 1
    return Conv(Affine(weight, part.bias), groups=len(weight), act=act)
