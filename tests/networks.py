"""The segmenters of the tests: EfficientFormers of a few blocks, or the published ones, in MMSegmentation's model."""

from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
TINY = str(Path(__file__).with_name('tiny.py'))  # a config that trains in seconds
EPOCHS = str(Path(__file__).with_name('tiny_epochs.py'))  # the same by epochs
# what running a file must do without
TRAINING = {'torch', 'timm', 'mmseg', 'mmengine', 'mmcv', 'yaml', 'safetensors', 'huggingface_hub'}

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
DIMS = (8, 12, 16, 24)
TWO_BLOCKS = dict(depths=(1, 0, 0, 1), embed_dims=DIMS, num_vit=1)  # one that pools and one that attends
SMALL = dict(depths=(1, 1, 1, 2), embed_dims=DIMS, num_vit=1)
SMALL_V2 = dict(depths=(1, 1, 2, 2), embed_dims=DIMS, num_vit=1, mlp_ratios=((2,), (2,), (2, 3), (3, 2)))
WIDTHS = {
    'l1': (48, 96, 224, 448),
    'l3': (64, 128, 320, 512),
    'l7': (96, 192, 384, 768),
    's0': (32, 48, 96, 176),
    's1': (32, 48, 120, 224),
    's2': (32, 64, 144, 288),
    'l': (40, 80, 192, 384),
}


def segmenter(arch=TWO_BLOCKS, classes=3, neck=16, channels=12, head=None, **backbone) -> torch.nn.Module:
    """An untrained EncoderDecoder, the same one at every call.

    Args:
        arch: of the backbone, a name or a dict.
        classes: how many.
        neck: channels of the FPN that stands before Semantic FPN's head.
        channels: of the head.
        head: options laid over Semantic FPN's head; of a head that stands alone if they name a ``type``.
        backbone: options of the backbone; EfficientFormer is its type unless they say otherwise.
    """
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    torch.manual_seed(0)
    widths = list(WIDTHS[arch] if isinstance(arch, str) else arch['embed_dims'])
    common = dict(channels=channels, num_classes=classes, norm_cfg=dict(type='BN'), align_corners=False)
    if 'type' in (head or {}):
        index = head.get('in_index', [0, 1, 2, 3])
        decoder = dict(decode_head=dict(common, in_channels=[widths[i] for i in index], in_index=index) | head)
    else:
        fpn = dict(type='FPNHead', in_channels=[neck] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32])
        decoder = dict(
            neck=dict(type='FPN', in_channels=widths, out_channels=neck, num_outs=4),
            decode_head=dict(fpn, **common) | (head or {}),
        )
    return MODELS.build(
        ConfigDict(
            type='EncoderDecoder',
            train_cfg={},
            test_cfg=dict(mode='whole'),
            data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True),
            backbone={'type': 'EfficientFormer', 'arch': arch, **backbone},
            **decoder,
        )
    )
