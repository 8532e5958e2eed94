"""The light heads through every runtime: one delegate, logits and labels, fp32 and int8."""

import pytest
import torch
from networks import segmenter

import effseg
from effseg import deploy
from effseg.deploy import backends

from .conftest import SIZE, learn, need, spec_of

SLOW = pytest.mark.slow
HEADS = [
    pytest.param('SegformerHead', marks=SLOW),
    'DepthwiseSegformerHead',
    pytest.param('EfficientViTHead', marks=SLOW),
]


def light(head: str, **options) -> torch.nn.Module:
    own = dict(in_index=[1, 2, 3], width=16) if head == 'EfficientViTHead' else dict(act_cfg=None)
    return segmenter(head=dict(type=head, **own), resolution=3, **options)


def assert_one_delegate(done):
    assert done.delegation.delegates == 1 and not done.delegation.left


@pytest.mark.medium
@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    'runtime', ['onnx', *(pytest.param(name, marks=SLOW) for name in backends.SUFFIXES if name != 'onnx')]
)
def test_logits_are_one_delegate_and_equal(runtime, head, random_stats, images, tmp_path):
    need(runtime)
    model = random_stats(light(head, channels=16)).float()
    path = tmp_path / f'mlp{backends.SUFFIXES[runtime]}'
    with torch.no_grad():
        network = effseg.fuse(model, size=SIZE).exportable()
    assert_one_delegate(deploy.export(model, network, spec_of(runtime), path, images))


@pytest.fixture(scope='module')
def taught(scenes):
    """A trained model of each head: without training labels are on the edge everywhere, and int8 decides them."""
    models: dict[str, torch.nn.Module] = {}

    def get(head: str) -> torch.nn.Module:
        if head not in models:
            models[head] = learn(light(head, channels=24, classes=8), scenes)
        return models[head]

    return get


@pytest.mark.slow
@pytest.mark.parametrize('head', ['SegformerHead', 'DepthwiseSegformerHead', 'EfficientViTHead'])
@pytest.mark.parametrize('runtime', [name for name in backends.SUFFIXES if name != 'torch'])  # which has no int8
def test_int8_labels_are_one_delegate_and_lose_nothing_that_matters(runtime, head, taught, scenes, tmp_path):
    need(runtime)
    model, (images, masks) = taught(head), zip(*scenes)
    path, spec = tmp_path / f'mlp{backends.SUFFIXES[runtime]}', spec_of(runtime, 'labels', 'int8', classes=8)
    with torch.no_grad():
        network = effseg.fuse(model, size=SIZE).exportable()
    done = deploy.export(model, network, spec, path, images[:10], images[10:], masks[:10])
    assert_one_delegate(done)
    assert done.parity.source_miou > 40 and not done.inaccuracy
