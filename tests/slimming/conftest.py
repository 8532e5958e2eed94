"""Small trained-looking segmenters of both generations with both heads."""

import pytest
import torch
from mmengine.config import ConfigDict

from effseg.models.arch import resolve_arch
from effseg.slimming.evaluate import build
from effseg.slimming.slicing import Network

ARCHS = {
    'EfficientFormer': dict(
        depths=(2, 1, 1, 3), embed_dims=(8, 12, 16, 24), num_vit=2, mlp_ratios=((2, 3), (2,), (3,), (2, 2, 3))
    ),
    'EfficientFormerV2': dict(
        depths=(2, 1, 3, 2), embed_dims=(8, 12, 16, 24), num_vit=1, mlp_ratios=((2, 3), (2,), (2, 3, 2), (3, 2))
    ),
}
ATTENTION = {'EfficientFormer': (3,), 'EfficientFormerV2': (2, 3)}
DECODERS = {
    'semantic FPN': dict(
        neck=dict(type='FPN', in_channels=[8, 12, 16, 24], out_channels=12, num_outs=4),
        decode_head=dict(type='FPNHead', in_channels=[12] * 4, feature_strides=[4, 8, 16, 32]),
    ),
    'all-MLP': dict(decode_head=dict(type='SegformerHead', in_channels=[8, 12, 16, 24], act_cfg=None)),
    'all-MLP, depthwise': dict(decode_head=dict(type='DepthwiseSegformerHead', in_channels=[8, 12, 16, 24])),
}


def model_config(backbone: str, decoder: str) -> dict:
    parts = DECODERS[decoder]
    head = dict(channels=10, num_classes=5, in_index=[0, 1, 2, 3], norm_cfg=dict(type='BN'))
    return ConfigDict(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True),
            backbone=dict(type=backbone, arch=ARCHS[backbone], resolution=2),
            neck=parts.get('neck'),
            decode_head={**parts['decode_head'], **head},
            train_cfg=dict(),
            test_cfg=dict(mode='whole'),
        )
    ).to_dict()


def trained_looking(random_stats, backbone: str, decoder: str) -> Network:
    """A network with random weights, statistics and scales, in float64."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    config = model_config(backbone, decoder)
    arch = resolve_arch(ARCHS[backbone], {}, ATTENTION[backbone])
    torch.manual_seed(0)
    state = random_stats(MODELS.build(ConfigDict(config))).state_dict()
    network = Network(config, arch, state)
    build(network)
    return network


@pytest.fixture(params=[(one, other) for one in ARCHS for other in DECODERS], ids=' '.join)
def network(request, random_stats) -> Network:
    return trained_looking(random_stats, *request.param)
