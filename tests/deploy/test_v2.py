"""EfficientFormerV2 through every runtime: talking heads, strided attention and attention downsampling, all
delegated."""

import pytest
import torch
from networks import DIMS, segmenter

from effseg import deploy
from effseg.deploy import backends, parity

from .conftest import SIZE, need, spec_of


@pytest.fixture(scope='module')
def v2(random_stats):
    arch = dict(depths=(1, 1, 1, 1), embed_dims=DIMS, num_vit=1, mlp_ratios=((2,), (2,), (2,), (3,)))
    return random_stats(segmenter(arch, type='EfficientFormerV2', resolution=3)).float()


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
