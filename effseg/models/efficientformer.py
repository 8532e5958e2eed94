"""EfficientFormer, the first generation: L1, L3, L7.

Li et al., "EfficientFormer: Vision Transformers at MobileNet Speed", NeurIPS 2022, https://arxiv.org/abs/2206.01191.
Written from the paper and timm's public parameter names.
"""

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import nn

from ..checkpoint import names
from .arch import resolve_arch
from .backbone import Backbone, Flat, Stage, drop_path_rates
from .blocks import Downsample, MetaBlock1d, MetaBlock2d, Stem, activation

ARCHS = {
    'l1': dict(depths=(3, 2, 6, 4), embed_dims=(48, 96, 224, 448), num_vit=1),
    'l3': dict(depths=(4, 4, 12, 6), embed_dims=(64, 128, 320, 512), num_vit=4),
    'l7': dict(depths=(6, 6, 18, 8), embed_dims=(96, 192, 384, 768), num_vit=8),
}


@MODELS.register_module()
class EfficientFormer(Backbone):
    """Pooling blocks in the first three stages, attention in the last blocks of the fourth.

    Args:
        arch: ``'l1'``, ``'l3'``, ``'l7'``, or a dict of ``depths`` (blocks per stage), ``embed_dims`` (channels per
            stage), ``num_vit`` (how many blocks of the last stage attend) and, where they are not four times the
            width, ``mlp_ratios`` or ``hidden_dims`` (:func:`effseg.models.arch.resolve_arch`).
        out_indices: which stages' maps are returned.
        drop_path_rate: stochastic depth of the last block, falling linearly to 0 at the first.
        act: ``'GELU'`` (as trained on ImageNet), ``'HardSwish'`` or ``'ReLU'``: hardware differs in what it runs fast.
        out_norm: norm on each returned map; the published segmenters use a GroupNorm of one group.
        norm_eval: BatchNorm keeps its running statistics while training.
        frozen_stages: -1 trains everything, 0 freezes the stem, k the stem and the first k stages.
        with_cp: trade computation for memory in training.
        resolution: side of the attention bias table: 7 as in the ImageNet weights, or the crop size / 32. Loading a
            table of another size carries it over by offset.
        bias_resize: where the bias of offsets beyond the table comes from: ``'interpolate'``, ``'hold'``, or
            ``'matrix'`` for checkpoints of the original segmentation code (:mod:`effseg.models.attention_bias`).
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with a name of timm's hub
            (``'timm/efficientformer_l1.snap_dist_in1k'``), a path or a URL.

    Raises:
        ConfigError: for an unknown arch, option value or stage.
    """

    original_names = names.EFFICIENTFORMER

    def __init__(
        self,
        arch: str | dict = 'l1',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        act: str = 'GELU',
        out_norm: dict | None = dict(type='GN', num_groups=1),
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        resolution: int = 7,
        bias_resize: str = 'interpolate',
        init_cfg: dict | None = None,
    ):
        numbers = resolve_arch(arch, ARCHS, attention_stages=(3,))
        dims = numbers.embed_dims
        act_layer = activation(act)
        rates = drop_path_rates(drop_path_rate, numbers.depths)
        stages = []
        for index, dim in enumerate(dims):
            blocks: list[nn.Module] = []
            for j, (hidden, rate) in enumerate(zip(numbers.hidden_dims[index], rates[index])):
                if not numbers.attends(index, j):
                    blocks.append(MetaBlock2d(dim, hidden, act_layer, rate))
                    continue
                if not any(isinstance(block, Flat) for block in blocks):
                    blocks.append(Flat())
                blocks.append(MetaBlock1d(dim, hidden, act_layer, rate, resolution, bias_resize))
            downsample = Downsample(dims[index - 1], dim) if index else nn.Identity()
            stages.append(Stage(downsample, blocks, with_cp))
        super().__init__(Stem(dims[0]), stages, numbers, out_indices, out_norm, norm_eval, frozen_stages, init_cfg)
