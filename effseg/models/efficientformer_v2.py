"""EfficientFormerV2, the second generation: S0, S1, S2, L.

Li et al., "Rethinking Vision Transformers for MobileNet Size and Speed", ICCV 2023, https://arxiv.org/abs/2212.08059.
Written from the paper and timm's public parameter names.
"""

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import nn

from ..checkpoint import names
from .arch import resolve_arch
from .backbone import Backbone, Stage, drop_path_rates
from .blocks import activation
from .blocks_v2 import Attention2d, AttentionDownsample, Block, Downsample, Stem

ARCHS = {
    's0': dict(
        depths=(2, 2, 6, 4),
        embed_dims=(32, 48, 96, 176),
        num_vit=2,
        mlp_ratios=((4, 4), (4, 4), (4, 3, 3, 3, 4, 4), (4, 3, 3, 4)),
    ),
    's1': dict(
        depths=(3, 3, 9, 6),
        embed_dims=(32, 48, 120, 224),
        num_vit=2,
        mlp_ratios=((4, 4, 4), (4, 4, 4), (4, 4, 3, 3, 3, 3, 4, 4, 4), (4, 4, 3, 3, 4, 4)),
    ),
    's2': dict(
        depths=(4, 4, 12, 8),
        embed_dims=(32, 64, 144, 288),
        num_vit=4,
        mlp_ratios=((4,) * 4, (4,) * 4, (4, 4, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4), (4, 4, 3, 3, 3, 3, 4, 4)),
    ),
    'l': dict(
        depths=(5, 5, 15, 10),
        embed_dims=(40, 80, 192, 384),
        num_vit=6,
        mlp_ratios=((4,) * 5, (4,) * 5, (4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4), (4, 4, 4, 3, 3, 3, 3, 4, 4, 4)),
    ),
}


@MODELS.register_module()
class EfficientFormerV2(Backbone):
    """Conv blocks, with attention in front of the last ones of the third stage (on a map of half its size) and of the
    fourth, and attention beside the conv that leads from the third to the fourth.

    Args:
        arch: ``'s0'``, ``'s1'``, ``'s2'``, ``'l'``, or a dict of ``depths`` (blocks per stage), ``embed_dims``
            (channels per stage), ``num_vit`` (how many of the last blocks of the third and of the fourth stage attend;
            four numbers where they differ) and ``mlp_ratios`` (hidden channels per channel, a tuple per stage of one
            number per block) or ``hidden_dims`` (:func:`effseg.models.arch.resolve_arch`).
        out_norm: norm on each returned map; none in the published segmenters.
        resolution: side of the attention bias tables, in positions of the last map: 7 as in the ImageNet weights, or
            the crop size / 32. The table of the attention between the stages has twice the side. Loading tables of
            another size carries them over by offset.
        out_indices, drop_path_rate, act, norm_eval, frozen_stages, with_cp, bias_resize, init_cfg: as of
            :class:`~effseg.models.efficientformer.EfficientFormer`.

    Raises:
        ConfigError: for an unknown arch, option value or stage.
    """

    original_names = names.EFFICIENTFORMER_V2

    def __init__(
        self,
        arch: str | dict = 's0',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        act: str = 'GELU',
        out_norm: dict | None = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        resolution: int = 7,
        bias_resize: str = 'interpolate',
        init_cfg: dict | None = None,
    ):
        numbers = resolve_arch(arch, ARCHS, attention_stages=(2, 3))
        dims = numbers.embed_dims
        act_layer = activation(act)
        rates = drop_path_rates(drop_path_rate, numbers.depths)
        stages = []
        for index, dim in enumerate(dims):
            blocks = []
            for j, (hidden, rate) in enumerate(zip(numbers.hidden_dims[index], rates[index])):
                mixer = None
                if numbers.attends(index, j):
                    mixer = Attention2d(dim, act_layer, resolution, bias_resize, stride=2 if index == 2 else None)
                blocks.append(Block(dim, hidden, act_layer, rate, mixer))
            attn = AttentionDownsample(dims[2], dim, act_layer, 2 * resolution, bias_resize) if index == 3 else None
            downsample = Downsample(dims[index - 1], dim, attn) if index else nn.Identity()
            stages.append(Stage(downsample, blocks, with_cp))
        super().__init__(
            Stem(dims[0], act_layer), stages, numbers, out_indices, out_norm, norm_eval, frozen_stages, init_cfg
        )
