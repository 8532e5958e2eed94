"""Decode heads that MMSegmentation does not have."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import SegformerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import InvertedResidual, resize
from mmseg.registry import MODELS
from torch import Tensor, nn


class DepthwiseMixing(ConvModule):
    """A ConvModule whose normed map, plus a depthwise 5x5 conv and norm of it, goes through the activation."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict | None):
        super().__init__(in_channels, out_channels, 1, norm_cfg=norm_cfg)
        self.mixing = ConvModule(
            out_channels, out_channels, 5, padding=2, groups=out_channels, norm_cfg=norm_cfg, act_cfg=None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        x = super().forward(x, activate=False)
        return self.activate(x + self.mixing(x))


@MODELS.register_module()
class DepthwiseSegformerHead(SegformerHead):
    """SegFormer's all-MLP head with one depthwise 5x5 conv in front of the ReLU, so that pixels see their neighbours.

    The all-MLP head looks at one pixel at a time. Takes the arguments of ``SegformerHead`` and keeps its parameters'
    names.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fusion_conv = DepthwiseMixing(self.channels * len(self.in_channels), self.channels, self.norm_cfg)


@MODELS.register_module()
class EfficientViTHead(BaseDecodeHead):
    """The head of EfficientViT (Cai et al., ICCV 2023, https://arxiv.org/abs/2205.14756): levels to one width by a 1x1
    conv, summed at the size of the finest, then inverted residual blocks, and a 1x1 conv to ``channels``.

    EfficientViT gives it the strides 8, 16 and 32, ``in_index=[1, 2, 3]``, and upsamples bicubically, which few
    runtimes have; this is bilinear.

    Args:
        width: channels that the levels are summed in.
        depth: blocks.
        expand_ratio: of a block's hidden channels to ``width``.
        options: MMSegmentation's BaseDecodeHead's.
    """

    def __init__(self, width: int, depth: int = 3, expand_ratio: int = 4, **options):
        options = dict(input_transform='multiple_select', act_cfg=dict(type='HSwish')) | options
        super().__init__(**options)
        norm, act = dict(norm_cfg=self.norm_cfg), dict(act_cfg=self.act_cfg)
        self.convs = nn.ModuleList(ConvModule(dim, width, 1, **norm, act_cfg=None) for dim in self.in_channels)
        self.blocks = nn.Sequential(
            *(InvertedResidual(width, width, 1, expand_ratio, **norm, **act) for _ in range(depth))
        )
        self.expand = ConvModule(width, self.channels, 1, **norm, **act)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone, finest first, (N, C, H, W) each -> logits (N, classes, h, w) of the finest in use."""
        x, *coarse = (conv(x) for conv, x in zip(self.convs, self._transform_inputs(inputs)))
        for y in coarse:
            x = x + resize(y, x.shape[2:], mode='bilinear', align_corners=self.align_corners)
        return self.cls_seg(self.expand(self.blocks(x)))
