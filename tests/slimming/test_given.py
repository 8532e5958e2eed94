"""A network sliced to an architecture that is named; the published weights of a backbone among them."""

import pytest

pytest.importorskip('mmseg')
import torch
from networks import TINY

import effseg
from effseg.engine.config import build_model, load_config
from effseg.errors import ConfigError
from effseg.slimming.evaluate import build
from effseg.slimming.given import magnitudes, slice_to

from .conftest import trained_looking

ARCHS = {
    'EfficientFormer': dict(depths=(1, 1, 1, 2), embed_dims=(8, 9, 16, 18)),
    'EfficientFormerV2': dict(depths=[1, 1, 2, 1], embed_dims=[8, 9, 16, 18], num_vit=[0, 0, 0, 1]),
}


def weigh(network):
    return magnitudes(network), {}


@pytest.mark.parametrize('backbone', ARCHS)
def test_an_architecture_that_is_named(random_stats, backbone):
    """What it leaves out stays, hidden widths in proportion."""
    network = trained_looking(random_stats, backbone, 'semantic FPN')
    given = dict(ARCHS[backbone], head=7, neck=8)
    sliced = slice_to(network, given, weigh)
    build(sliced)(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert (sliced.shape.head, sliced.shape.neck) == (7, 8)
    assert sliced.arch.depths == tuple(given['depths']) and sliced.arch.embed_dims == tuple(given['embed_dims'])
    assert sliced.arch.num_vit == ((0, 0, 0, 2) if backbone == 'EfficientFormer' else (0, 0, 0, 1))
    assert sliced.arch.hidden_dims[1] == (round(network.arch.hidden_dims[1][0] * 9 / 12),)
    exact = slice_to(
        network, dict(given, hidden_dims=[[5], [6], [7] * given['depths'][2], [8] * given['depths'][3]]), weigh
    )
    assert exact.arch.hidden_dims[3] == (8,) * given['depths'][3]


@pytest.mark.parametrize('block', [0, 1])
@torch.no_grad()
def test_the_block_goes_whose_scales_are_least(random_stats, block):
    network = trained_looking(random_stats, 'EfficientFormerV2', 'all-MLP')
    network.state[f'backbone.stages.0.blocks.{block}.ls2.gamma'].zero_()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    sliced = slice_to(network, dict(depths=(1, 1, 3, 2)), weigh)
    torch.testing.assert_close(build(sliced)(x), build(network)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    'given, said',
    [
        (dict(depths=(3, 1, 3, 2)), r'depths=\(3, 1, 3, 2\) has more than \(2, 1, 3, 2\)'),
        (dict(embed_dims=(8, 12, 16)), '4 whole numbers'),
        (dict(depth=(1, 1, 1, 1)), '--arch has depth; depths, embed_dims'),
        (dict(depths=(0, 1, 3, 2)), 'leave out stage 1'),
        (dict(head=11), 'narrow the head to 11'),
        (dict(hidden_dims=((16, 24), (24,), (32, 48, 32), (72, 999))), 'to 999'),
        (dict(head='wide'), "head='wide'"),
    ],
)
def test_what_is_no_architecture_to_slice_to_is_said(random_stats, given, said):
    network = trained_looking(random_stats, 'EfficientFormerV2', 'all-MLP')
    with pytest.raises(ConfigError, match=said):
        slice_to(network, given, weigh)


def test_a_backbone_alone_starts_from_sliced_weights(scenes, tool, tmp_path):
    """By the config that is written, overrides included."""
    torch.manual_seed(3)
    published = build_model(load_config(TINY)).backbone.state_dict()
    torch.save(published, tmp_path / 'published.pth')
    options = ('--cfg-options', 'model.decode_head.num_classes=5')
    outcome = tool(
        'slim', TINY, tmp_path / 'published.pth', '--arch', 'embed_dims=8,12,24,32', '--out', tmp_path / 'out', *options
    )
    assert outcome.status == 0, outcome.err
    assert f'train it: python tools/train.py {tmp_path}/out/slim.py' in outcome.out
    model = build_model(load_config(str(tmp_path / 'out' / 'slim.py')))
    model.init_weights()
    assert model.decode_head.num_classes == 5 and model.neck.in_channels == [8, 12, 24, 32]
    own = model.backbone.state_dict()
    assert own['norm1.weight'].shape == (12,)
    torch.testing.assert_close(own['stem.conv1.weight'], published['stem.conv1.weight'])


def test_a_segmenter_is_sliced_by_its_gradients(scenes, tool, checkpoint, tmp_path):
    given = ('--arch', 'embed_dims=8,12,16,24', 'head=8', '--images', 2, '--out', tmp_path / 'out')
    outcome = tool('slim', TINY, checkpoint, *given)
    assert outcome.status == 0 and 'head 8' in outcome.out, outcome.err
    segmenter = effseg.open(str(tmp_path / 'out' / 'slim.py'), str(tmp_path / 'out' / 'slim.pth'), device='cpu')
    assert segmenter.trained.backbone.arch.embed_dims == (8, 12, 16, 24)
    outcome = tool('slim', TINY, checkpoint, '--arch', 'depths=9,1,1,1', '--images', 2, '--out', tmp_path / 'other')
    assert outcome.status == 2 and 'nothing can be added' in outcome.err and not (tmp_path / 'other').exists()


@pytest.mark.parametrize('option', [('--budget', 0.5), ('--search', 'exhaustive')])
def test_what_only_a_search_takes_is_refused_beside_an_architecture(tool, tmp_path, option):
    outcome = tool('slim', TINY, 'any.pth', '--arch', 'head=8', *option, '--out', tmp_path / 'out')
    assert outcome.status == 2 and '--budget and --search' in outcome.err and not (tmp_path / 'out').exists()
