"""Decode heads that MMSegmentation does not have."""

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import SegformerHead
from mmseg.registry import MODELS
from torch import Tensor


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

    The all-MLP head looks at one pixel at a time. That is enough behind a backbone that attends in several stages;
    EfficientFormer attends in its last blocks only. Takes the arguments of ``SegformerHead`` and keeps its parameters'
    names.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fusion_conv = DepthwiseMixing(self.channels * len(self.in_channels), self.channels, self.norm_cfg)
