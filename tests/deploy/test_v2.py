"""EfficientFormerV2 through every runtime: talking heads, strided attention and attention downsampling, all
delegated."""

import pytest
import torch

from effseg import deploy
from effseg.deploy import backends, parity

from .conftest import MEAN, SIZE, STD, need, spec_of


@pytest.fixture(scope='module')
def v2(random_stats):
    pytest.importorskip('mmseg')
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    dims = (8, 12, 16, 24)
    return random_stats(
        MODELS.build(
            dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True),
                backbone=dict(
                    type='EfficientFormerV2',
                    resolution=3,
                    arch=dict(depths=(1, 1, 1, 1), embed_dims=dims, num_vit=1, mlp_ratios=((2,), (2,), (2,), (3,))),
                ),
                neck=dict(type='FPN', in_channels=list(dims), out_channels=16, num_outs=4),
                decode_head=dict(
                    type='FPNHead',
                    in_channels=[16] * 4,
                    in_index=[0, 1, 2, 3],
                    feature_strides=[4, 8, 16, 32],
                    channels=12,
                    num_classes=3,
                    norm_cfg=dict(type='BN'),
                    align_corners=False,
                ),
                test_cfg=ConfigDict(mode='whole'),
            )
        )
    ).float()


@pytest.mark.parametrize(
    'runtime',
    [
        'onnx',
        pytest.param('executorch', marks=pytest.mark.slow),
        pytest.param('litert', marks=pytest.mark.slow),
        pytest.param('coreml', marks=pytest.mark.slow),
    ],
)
def test_export_is_one_delegate_and_equal(runtime, v2, images, tmp_path):
    import effseg

    need(runtime)
    network = effseg.fuse(v2, size=SIZE).exportable()
    with torch.no_grad():
        exported = deploy.export(v2, network, spec_of(runtime), tmp_path / f'v2{backends.SUFFIXES[runtime]}', images)
    assert exported.parity.agreement >= parity.THRESHOLDS['fp32'].agreement
    assert exported.delegation.delegates == 1 and not exported.delegation.left
