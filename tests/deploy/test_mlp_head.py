"""The all-MLP head through every runtime: one delegate, logits and labels, fp32 and int8."""

import pytest
import torch

import effseg
from effseg import deploy
from effseg.deploy import backends, parity, quantize

from .conftest import MEAN, SIZE, STD, need, spec_of

DIMS = (8, 12, 16, 24)


@pytest.fixture(scope='module', params=['SegformerHead', 'DepthwiseSegformerHead'])
def segmenter(request, random_stats):
    pytest.importorskip('mmseg')
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    head = dict(type=request.param, in_channels=DIMS, in_index=[0, 1, 2, 3], channels=16, num_classes=3)
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True),
            backbone=dict(
                type='EfficientFormer', arch=dict(depths=(1, 0, 0, 1), embed_dims=DIMS, num_vit=1), resolution=3
            ),
            decode_head=dict(norm_cfg=dict(type='BN'), act_cfg=None, **head),
            test_cfg=ConfigDict(mode='whole'),
        )
    )
    return random_stats(model).float()


@pytest.mark.medium
# int8 of an untrained network holds on drawn images, not on every photo: it wants a trained one before it is default
@pytest.mark.parametrize(
    'output, precision', [('logits', 'fp32'), pytest.param('labels', 'int8', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    'runtime',
    [
        'onnx',
        pytest.param('executorch', marks=pytest.mark.slow),
        pytest.param('litert', marks=pytest.mark.slow),
        pytest.param('coreml', marks=pytest.mark.slow),
    ],
)
def test_export_is_one_delegate_and_equal(runtime, output, precision, segmenter, images, tmp_path, monkeypatch):
    need(runtime)
    monkeypatch.setattr(quantize, 'SHARES', ())  # one attempt: without training, labels are on the edge everywhere
    spec = spec_of(runtime, output, precision)
    network, path = effseg.fuse(segmenter, size=SIZE).exportable(), tmp_path / f'mlp{backends.SUFFIXES[runtime]}'
    with torch.no_grad():
        exported = deploy.export(segmenter, network, spec, path, images, images, keep_inaccurate=True)
    assert exported.parity.agreement >= parity.THRESHOLDS[precision].agreement
    assert exported.delegation.delegates == 1 and not exported.delegation.left
