"""MMSegmentation's FPN and FPNHead as one decoder.

Semantic FPN: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, https://arxiv.org/abs/1901.02446.

The decoder has two ways to the same logits. Where every level is exactly half the one below and the FPN is linear, the
levels for which it saves work are collapsed (:mod:`effseg.fusion.collapse`); everything else goes step by step, as
MMSegmentation does. In both, levels that end in the same x2 upsampling are added up in front of it.
"""

import functools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import FuseError
from .collapse import CollapsedLevel, cost
from .folding import Affine, linear_part
from .layers import Conv, Layer, Sequential, conv_module
from .norms import MapNorm
from .upsample import plus_doubled

# lines of a level that a collapsed border needs; smaller maps go step by step
SMALLEST_GRID = 4
COLLAPSIBLE = 2


class SemanticFpn(Layer):
    """Maps of the backbone, fine to coarse, to logits at the finest map's size.

    Args:
        laterals: one 1 x 1 conv per level.
        outputs: one 3 x 3 conv per level.
        heads: per level the convs of the head; from the second level on each is followed by a bilinear x2 upsampling.
        classifier: 1 x 1 conv.
        levels: a :class:`CollapsedLevel` for each of the first levels that has one, else None.
        align_corners: of the bilinear upsampling.
    """

    def __init__(
        self,
        laterals: Sequence[Conv],
        outputs: Sequence[Conv],
        heads: Sequence[Sequential],
        classifier: Conv,
        levels: Sequence[CollapsedLevel | None],
        align_corners: bool,
    ):
        super().__init__()
        self.laterals, self.outputs = nn.ModuleList(laterals), nn.ModuleList(outputs)
        self.heads, self.classifier = nn.ModuleList(heads), classifier
        self.levels = nn.ModuleList(levels)
        self.align_corners = align_corners

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """
        Args:
            maps: (N, C_i, H_i, W_i), fine to coarse.

        Returns:
            (N, classes, H_0, W_0).
        """
        levels = self._levels([x.shape[2:] for x in maps])
        # a collapsed level reads P of the level behind the last map it takes, a plain one its own
        tops = [index if level is None else index + len(level.above) for index, level in enumerate(levels)]
        pyramid = self._top_down(maps, min(tops))
        scales = []
        for index, level in enumerate(levels):
            first, *others = self.heads[index].layers
            if level is None:
                y = first(self.outputs[index](pyramid[index]))
            else:
                top = tops[index]
                y = level(maps[index:top], pyramid[top], self.laterals[index:top])
            for conv in others:
                y = conv(self._double(y))
            scales.append(y)
        return self._classify(*scales)

    def _levels(self, grids: Sequence[Sequence[int]]) -> list[CollapsedLevel | None]:
        """For maps of ``grids`` (H, W), each level's collapsed form where it is exact, else None."""
        collapsed = list(self.levels) if halving(grids) else []
        levels = [level if min(grid) >= SMALLEST_GRID else None for level, grid in zip(collapsed, grids)]
        return levels + [None] * (len(self.laterals) - len(levels))

    def strip_to(self, grids: Sequence[Sequence[int]]) -> None:
        """Drops the weights that maps of these sizes do not take; maps of other sizes cannot go through :meth:`forward`
        any more."""
        levels = self._levels(grids)
        for level, grid in zip(levels, grids):
            if level is not None:
                level.lay_out(grid)
        self.strip()
        self.levels = nn.ModuleList(levels if any(levels) else [])
        for index, level in enumerate(levels):
            if level is not None:  # both are inside the level's own kernels
                self.outputs[index] = nn.Identity()
                self.heads[index].layers[0] = nn.Identity()

    def _top_down(self, maps: Sequence[Tensor], lowest: int) -> dict[int, Tensor]:
        """P of the levels from ``lowest`` upwards."""
        pyramid: dict[int, Tensor] = {}
        for index in reversed(range(lowest, len(maps))):
            y = self.laterals[index](maps[index])
            if index + 1 in pyramid:
                above = pyramid[index + 1]
                doubled = halving([y.shape[2:], above.shape[2:]])
                y = plus_doubled(y, above) if doubled else y + F.interpolate(above, size=y.shape[2:], mode='nearest')
            pyramid[index] = y
        return pyramid

    def _double(self, x: Tensor) -> Tensor:
        return self._resize(x, (2 * x.shape[2], 2 * x.shape[3]))

    def _resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(x, size=size, mode='bilinear', align_corners=self.align_corners)

    def _classify(self, finest: Tensor, *others: Tensor) -> Tensor:
        """The logits of the sum of the levels at the finest size; all but the finest still lack their last upsampling.

        Resizing is linear, and so is the classifier: levels are added up in front of a resize they share, and the
        resize is done to whichever has fewer channels, the sum or its logits.
        """
        size = tuple(finest.shape[2:])
        if any(tuple(2 * side for side in y.shape[2:]) != size for y in others):
            grown = [self._resize(self._double(y), size) for y in others]
            return self.classifier(functools.reduce(self.plus, grown, finest))
        coarse = functools.reduce(self.plus, others)
        if self.classifier.out_channels >= self.classifier.in_channels:
            return self.classifier(self.plus(finest, self._double(coarse)))
        return self.plus(self.classifier(finest), self._double(F.conv2d(coarse, self.classifier.weight)))


def halving(grids: Sequence[Sequence[int]]) -> bool:
    """Whether each of ``grids`` (H, W) is exactly twice the next."""
    return all(fine[axis] == 2 * coarse[axis] for fine, coarse in zip(grids, grids[1:]) for axis in (0, 1))


def fuse_semantic_fpn(
    neck: nn.Module, head: nn.Module, norms: Sequence[MapNorm], grids: Sequence[Sequence[int]]
) -> SemanticFpn:
    """The decoder of a trained FPN and FPNHead, in float64.

    Args:
        neck: MMSegmentation's FPN.
        head: MMSegmentation's FPNHead.
        norms: the norm on each of the backbone's maps; the decoder takes their scale and shift over (``release()``).
        grids: (H, W) of each map at the image size to build for.

    Raises:
        FuseError: for a neck or head that is, or is set up as, something else.
    """
    check_neck(neck)
    check_head(head, len(neck.lateral_convs))
    parts, acts = zip(*(conv_module(module) for module in neck.lateral_convs))
    laterals = [part.after(*norm.release()) for part, norm in zip(parts, norms)]
    outputs, output_acts = zip(*(conv_module(module) for module in neck.fpn_convs))
    heads = [[conv_module(module) for module in scale if hasattr(module, 'conv')] for scale in head.scale_heads]
    linear = set(acts + output_acts) == {'none'}
    small = all(part.weight.shape[2:] == (3, 3) for part in (*outputs, *(convs[0][0] for convs in heads)))
    levels = collapse(laterals, outputs, [convs[0] for convs in heads], grids) if linear and small else []
    return SemanticFpn(
        [Conv(part, act=act) for part, act in zip(laterals, acts)],
        [Conv(part, act=act) for part, act in zip(outputs, output_acts)],
        [Sequential([Conv(part, act=act) for part, act in convs]) for convs in heads],
        Conv(linear_part(head.conv_seg)),
        levels,
        bool(head.align_corners),
    )


def collapse(
    laterals: Sequence[Affine],
    outputs: Sequence[Affine],
    heads: Sequence[tuple[Affine, str]],
    grids: Sequence[Sequence[int]],
) -> list[CollapsedLevel | None]:
    """The first levels in the form that needs the fewest multiplications; None for one that is cheapest step by
    step."""
    levels = []
    for index in range(min(COLLAPSIBLE, len(laterals) - 1)):
        head, act = heads[index]
        out, middle = head.weight.shape[:2]
        widths = [part.weight.shape[1] for part in laterals]
        plain = middle * (widths[index] + 9 * middle + 9 * out)
        price, top = min((cost(widths[index:top], middle, out), top) for top in range(index + 1, len(laterals)))
        grid = [max(side + side % 2, SMALLEST_GRID) for side in grids[index]]  # an odd one goes step by step
        levels.append(
            CollapsedLevel(laterals[index:top], outputs[index], head, top - index, grid, act) if price < plain else None
        )
    return levels


def check_neck(neck: nn.Module | None) -> None:
    """Refuses what is not an FPN of nearest upsamplings that gives one map per input.

    Raises:
        FuseError: saying what was found.
    """
    if neck is None or type(neck).__name__ != 'FPN':
        raise FuseError(f"the neck is a {type(neck).__name__}; only MMSegmentation's FPN has a fused form here")
    if any(module.conv.kernel_size != (1, 1) for module in neck.lateral_convs):
        raise FuseError('a lateral conv of the FPN is larger than 1 x 1, which has no fused form here')
    if neck.start_level != 0 or len(neck.lateral_convs) != neck.num_ins or neck.num_outs != neck.num_ins:
        raise FuseError(
            f'the FPN reads {len(neck.lateral_convs)} of {neck.num_ins} maps and gives {neck.num_outs}; '
            'as many outputs as inputs, from level 0, were expected'
        )
    if dict(neck.upsample_cfg) != dict(mode='nearest'):
        raise FuseError(f"the FPN upsamples with {dict(neck.upsample_cfg)}; dict(mode='nearest') was expected")


def check_head(head: nn.Module, levels: int) -> None:
    """Refuses what is not an FPNHead that reads every level of the FPN in order.

    Raises:
        FuseError: saying what was found.
    """
    if type(head).__name__ != 'FPNHead':
        raise FuseError(
            f"the decode head is a {type(head).__name__}; only MMSegmentation's FPNHead has a fused form here"
        )
    strides = list(head.feature_strides)
    doubling = [strides[0] * 2**index for index in range(levels)]
    if levels < 2 or list(head.in_index) != list(range(levels)) or strides != doubling:
        raise FuseError(
            f'the FPNHead reads the maps {list(head.in_index)} at strides {strides}; '
            f'{list(range(levels))} at {doubling}, two levels or more, were expected'
        )
