"""EfficientFormer-L1 with 150 classes at 512 x 512 through every runtime that executes here."""

import numpy as np
import pytest

import effseg
from effseg import deploy
from effseg.deploy import backends, parity
from effseg.deploy.images import fit

from .conftest import MEAN, STD, need, spec_of

SIZE = (512, 512)


@pytest.fixture(scope='module')
def l1(random_stats):
    pytest.importorskip('mmseg')
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    return random_stats(
        MODELS.build(
            dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True),
                backbone=dict(type='EfficientFormer', arch='l1'),
                neck=dict(type='FPN', in_channels=[48, 96, 224, 448], out_channels=256, num_outs=4),
                decode_head=dict(
                    type='FPNHead',
                    in_channels=[256] * 4,
                    in_index=[0, 1, 2, 3],
                    feature_strides=[4, 8, 16, 32],
                    channels=128,
                    num_classes=150,
                    norm_cfg=dict(type='BN'),
                    align_corners=False,
                ),
                test_cfg=ConfigDict(mode='whole'),
            )
        )
    ).float()


@pytest.mark.slow
@pytest.mark.parametrize('runtime', ['onnx', 'executorch', 'litert'])
def test_l1_is_proven_and_delegated_whole(runtime, l1, images, tmp_path):
    need(runtime)
    images = [fit(np.kron(image, np.ones((6, 6, 1), np.uint8)), SIZE, 0, (124, 116, 104)) for image in images[:2]]
    network = effseg.fuse(l1, size=SIZE).exportable()
    done = deploy.export(
        l1, network, spec_of(runtime, size=SIZE, classes=150), tmp_path / f'l1{backends.SUFFIXES[runtime]}', images
    )
    assert done.parity.agreement >= parity.THRESHOLDS['fp32'].agreement
    assert done.delegation.delegates == 1 and not done.delegation.left
