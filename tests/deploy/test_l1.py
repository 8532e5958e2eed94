"""EfficientFormer-L1 with 150 classes at 512 x 512 through every runtime that executes here."""

import numpy as np
import pytest
from networks import segmenter

import effseg
from effseg import deploy
from effseg.deploy import backends, parity
from effseg.deploy.images import fit

from .conftest import need, spec_of

SIZE = (512, 512)


@pytest.fixture(scope='module')
def l1(random_stats):
    return random_stats(segmenter('l1', classes=150, neck=256, channels=128)).float()


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
