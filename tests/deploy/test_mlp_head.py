"""The all-MLP head through every runtime: one delegate, logits and labels, fp32 and int8."""

import pytest
import torch
from networks import segmenter

import effseg
from effseg import deploy
from effseg.deploy import backends, parity, quantize

from .conftest import SIZE, need, spec_of


@pytest.fixture(
    scope='module', params=[pytest.param('SegformerHead', marks=pytest.mark.slow), 'DepthwiseSegformerHead']
)
def model(request, random_stats):
    return random_stats(segmenter(channels=16, head=dict(type=request.param, act_cfg=None), resolution=3)).float()


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
def test_export_is_one_delegate_and_equal(runtime, output, precision, model, images, tmp_path, monkeypatch):
    need(runtime)
    monkeypatch.setattr(quantize, 'SHARES', ())  # one attempt: without training, labels are on the edge everywhere
    spec = spec_of(runtime, output, precision)
    network, path = effseg.fuse(model, size=SIZE).exportable(), tmp_path / f'mlp{backends.SUFFIXES[runtime]}'
    with torch.no_grad():
        exported = deploy.export(model, network, spec, path, images, images, keep_inaccurate=True)
    assert exported.parity.agreement >= parity.THRESHOLDS[precision].agreement
    assert exported.delegation.delegates == 1 and not exported.delegation.left
