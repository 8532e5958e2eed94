"""The fused segmenter on an EfficientFormerV2 against MMSegmentation's own model, end to end."""

import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import effseg

from .test_segmentor import check, images

WIDTHS = {'s0': (32, 48, 96, 176), 's1': (32, 48, 120, 224), 's2': (32, 64, 144, 288), 'l': (40, 80, 192, 384)}
SMALL = dict(depths=(1, 1, 2, 2), embed_dims=(8, 12, 16, 24), num_vit=1, mlp_ratios=((2,), (2,), (2, 3), (3, 2)))


def segmentor(arch=SMALL, **backbone):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    widths = list(WIDTHS[arch] if isinstance(arch, str) else arch['embed_dims'])
    return MODELS.build(
        ConfigDict(
            type='EncoderDecoder',
            train_cfg={},
            test_cfg=dict(mode='whole'),
            data_preprocessor=dict(
                type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
            ),
            backbone=dict(type='EfficientFormerV2', arch=arch, **backbone),
            neck=dict(type='FPN', in_channels=widths, out_channels=32, num_outs=4),
            decode_head=dict(
                type='FPNHead',
                in_channels=[32] * 4,
                in_index=[0, 1, 2, 3],
                feature_strides=[4, 8, 16, 32],
                channels=16,
                num_classes=11,
                norm_cfg=dict(type='SyncBN'),
            ),
        )
    )


@pytest.mark.medium
@pytest.mark.parametrize('arch', WIDTHS)
@torch.no_grad()
def test_the_published_models(random_stats, arch):
    model = random_stats(segmentor(arch))
    fused = effseg.fuse(model, size=(64, 96))
    check(model, fused, images(1, (64, 96)))


@pytest.mark.parametrize('size', [(64, 64), (96, 160), (160, 96), (100, 75), (31, 33), (1, 1)])
@torch.no_grad()
def test_built_for_any_size_and_right_at_all_others(random_stats, size):
    model = random_stats(segmentor())
    fused = effseg.fuse(model, size=size)
    for batch, other in ((1, size), (3, size), (2, (64, 128)), (1, (50, 130))):
        check(model, fused, images(batch, other))


@pytest.mark.parametrize(
    'options',
    [
        dict(bias_resize='hold', resolution=3),
        dict(bias_resize='matrix', resolution=4),
        dict(act='ReLU'),
        dict(act='HardSwish'),
        dict(out_norm=dict(type='GN', num_groups=1)),
    ],
)
@torch.no_grad()
def test_options(random_stats, options):
    model = random_stats(segmentor(**options))
    check(model, effseg.fuse(model, size=(96, 64)), images(2, (96, 64)))
