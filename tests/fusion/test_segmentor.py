"""The fused segmenter against MMSegmentation's own model, end to end."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmseg.registry import MODELS
from networks import SMALL, segmenter
from tolerances import FUSED_FP32
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import effseg
from effseg.errors import FuseError
from effseg.fusion.labels import near_ties

EXACT = dict(rtol=1e-9, atol=1e-9)
SLOW = pytest.mark.slow


def segmentor(arch=SMALL, classes=11, neck=32, channels=16, head=None, **backbone):
    # SyncBN is what the published configs name
    return segmenter(arch, classes, neck, channels, dict(norm_cfg=dict(type='SyncBN')) | (head or {}), **backbone)


def mlp_segmentor(arch=SMALL, kind='SegformerHead', classes=11, channels=16, **head):
    return segmentor(arch, classes, channels=channels, head=dict(type=kind, act_cfg=None) | head)


@pytest.fixture
def small(random_stats):
    return random_stats(segmentor())


def images(batch, size, dtype=torch.float64):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(3)).to(dtype)


def predicted(model, x):
    return torch.cat([sample.pred_sem_seg.data for sample in model.predict(x)])


def check(model, fused, x):
    before = copy.deepcopy(model.state_dict())
    logits = model(x, mode='tensor')
    for form in (fused, fused.exportable()) if tuple(x.shape[2:]) == fused.size else (fused,):
        torch.testing.assert_close(form.logits(x), logits, **EXACT)
    assert torch.equal(fused(x), predicted(model, x))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


pixels = st.one_of(st.sampled_from([8, 16, 32, 64]), st.integers(1, 100))


@pytest.fixture(scope='module')
def by_stages(random_stats):
    """Models that read consecutive stages, by the first and the number of them."""
    return {(first, count): random_stats(stages(first, count)) for count in (2, 3, 4) for first in range(5 - count)}


def stages(first, count):
    model = segmentor(out_indices=tuple(range(first, first + count)))
    widths = model.backbone.embed_dims[first : first + count]
    head = dict(in_channels=[32] * count, in_index=list(range(count)), channels=16, num_classes=11)
    strides = [4 * 2 ** (first + index) for index in range(count)]
    model.neck = MODELS.build(dict(type='FPN', in_channels=list(widths), out_channels=32, num_outs=count))
    model.decode_head = MODELS.build(
        dict(type='FPNHead', feature_strides=strides, norm_cfg=dict(type='BN'), align_corners=False, **head)
    )
    return model


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=st.data(), size=st.tuples(pixels, pixels))
@example(case=None, size=(32, 32))
@torch.no_grad()
def test_any_stages_at_any_size(by_stages, case, size):
    for key in by_stages if case is None else [case.draw(st.sampled_from(sorted(by_stages)))]:
        model = by_stages[key]
        check(model, effseg.fuse(model, size), images(1, size))


@pytest.mark.medium
@pytest.mark.parametrize('arch', ['l1', pytest.param('l3', marks=SLOW), pytest.param('l7', marks=SLOW)])
@torch.no_grad()
def test_the_published_models(random_stats, arch):
    model = random_stats(segmentor(arch, classes=5, neck=64, channels=16))
    fused = effseg.fuse(model, size=(64, 96))
    for batch, size in ((1, (64, 96)), (3, (64, 64)), (1, (96, 32))):
        check(model, fused, images(batch, size))


@pytest.mark.slow  # beside test_segmentor_v2.py
@pytest.mark.parametrize('size', [(64, 96), (75, 50)])
@torch.no_grad()
def test_the_second_generation(random_stats, size):
    model = random_stats(segmentor('s0', classes=5, neck=64, channels=16, type='EfficientFormerV2'))
    fused = effseg.fuse(model, size=size)
    for batch, other in ((1, size), (3, size), (2, (64, 64)), (1, (41, 90))):
        check(model, fused, images(batch, other))


@pytest.mark.parametrize('size', [(64, 64), (96, 160), (160, 96), (100, 75), (31, 33), (1, 1)])
@torch.no_grad()
def test_built_for_any_size_and_right_at_all_others(small, size):
    fused = effseg.fuse(small, size=size)
    for batch, other in ((1, size), (3, size), (2, (64, 128)), (1, (50, 130))):
        check(small, fused, images(batch, other))


@pytest.mark.parametrize(
    'options',
    [
        dict(out_norm=None),
        dict(out_norm=dict(type='BN')),
        dict(out_norm=dict(type='GN', num_groups=2)),
        dict(act='HardSwish'),
        dict(act='ReLU'),
        dict(bias_resize='hold', resolution=3),
        dict(bias_resize='matrix', resolution=4),
        dict(head=dict(align_corners=True)),
        dict(classes=2, head=dict(out_channels=1, threshold=0.6)),
    ],
    ids=str,
)
@torch.no_grad()
def test_every_option(random_stats, options):
    model = random_stats(segmentor(**options))
    fused = effseg.fuse(model, size=(64, 96))
    check(model, fused, images(2, (64, 96)))
    check(model, fused, images(1, (72, 40)))


@pytest.mark.parametrize('kind', ['SegformerHead', 'DepthwiseSegformerHead'])
@pytest.mark.parametrize(
    'options', [{}, dict(in_index=(1, 2, 3)), dict(act_cfg=dict(type='ReLU')), dict(align_corners=True)], ids=str
)
@torch.no_grad()
def test_the_all_mlp_head(random_stats, kind, options):
    model = random_stats(mlp_segmentor(kind=kind, **options))
    fused = effseg.fuse(model, size=(64, 96))
    for batch, size in ((1, (64, 96)), (3, (64, 64)), (2, (75, 50))):
        check(model, fused, images(batch, size))


@torch.no_grad()
def test_single_precision(random_stats):
    model = random_stats(segmentor('l1')).float()
    fused, x = effseg.fuse(model, size=(128, 128)), images(2, (128, 128), torch.float32)
    logits = model(x, mode='tensor')
    for form in (fused, fused.exportable()):
        assert (form.logits(x) - logits).abs().max() <= FUSED_FP32 * logits.abs().max()
    full = nn.functional.interpolate(logits, size=(128, 128), mode='bilinear')
    differ = fused(x) != predicted(model, x)
    assert not (differ & ~near_ties(full, 2 * FUSED_FP32 * float(logits.abs().max()))).any()


def gmac(run) -> float:
    """Multiply-accumulates of a 512 x 512 image in 1e9, counted on shapes alone."""
    with FlopCounterMode(display=False) as work:
        run(torch.zeros(1, 3, 512, 512, device='meta'))
    return work.get_total_flops() / 2e9


@torch.no_grad()
def test_work():
    model = segmentor('l1', classes=150, neck=256, channels=128).eval()
    fused = effseg.fuse(model)
    assert all(gmac(form.logits) <= 19.6 for form in (fused.exportable().to('meta'), fused.to('meta')))
    model.to('meta')
    assert 28.0 <= gmac(lambda x: model(x, mode='tensor')) <= 28.2


@torch.no_grad()
@pytest.mark.parametrize('kind, limit', [('SegformerHead', 8.0), ('DepthwiseSegformerHead', 8.1)])
def test_work_with_the_all_mlp_head(kind, limit):
    fused = effseg.fuse(mlp_segmentor('l1', kind, classes=150, channels=256).eval())
    assert all(gmac(form.logits) <= limit for form in (fused.exportable().to('meta'), fused.to('meta')))


def test_holds_nothing_of_training(small):
    fused = effseg.fuse(small, size=(64, 64))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fused.modules())
    assert all(tensor.is_floating_point() for tensor in fused.state_dict().values()), 'an index table'
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with pytest.raises(FuseError, match='cannot be trained'):
        fused.train()


def test_a_batch_norm_left_over_is_an_error(small, monkeypatch):
    from effseg.models.blocks import Downsample

    made = Downsample.fuse

    def leaves_one(block, *grids):
        conv = made(block, *grids)
        conv.norm = nn.BatchNorm2d(conv.out_channels)
        return conv

    monkeypatch.setattr(Downsample, 'fuse', leaves_one)
    with pytest.raises(FuseError, match='still a BatchNorm2d'):
        effseg.fuse(small)


@pytest.mark.skipif(
    torch.__version__ < '2.5',
    reason="torch 2.3 decomposes a bilinear resize into an index; no runtime's exporter takes it",
)
@pytest.mark.medium
@pytest.mark.parametrize('size', [(64, 96), pytest.param((50, 70), marks=SLOW)])
@torch.no_grad()
def test_exportable_form_uses_what_runtimes_execute(small, size):
    class Logits(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network.logits(x)

    small = small.float()
    network = effseg.fuse(small, size=size).exportable()
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    x = images(1, size, torch.float32)
    program = torch.export.export(Logits(network), (x,)).run_decompositions({})
    used = {str(node.target).split('.')[1] for node in program.graph.nodes if str(node.target).startswith('aten.')}
    slow = {
        'native_layer_norm',
        'native_group_norm',
        'layer_norm',
        'group_norm',
        'expand',
        'split',
        'split_with_sizes',
        'matmul',
        'index',
        'copy_',
        'add_',
        'mul_',
    }
    slow |= {'upsample_nearest2d'} if size == (64, 96) else set()
    assert not used & slow, used & slow
    torch.testing.assert_close(program.module()(x), small(x, mode='tensor'), rtol=1e-3, atol=1e-4)


def test_bad_input(small):
    for size in ((0, 64), (64, -1), (64,), 64, (64.5, 64), 'ab', None):
        with pytest.raises(FuseError, match='both positive'):
            effseg.fuse(small, size=size)
    with pytest.raises(FuseError, match='training mode'):
        effseg.fuse(segmentor(), size=(64, 64))
    with pytest.raises(FuseError, match='EncoderDecoder'):
        effseg.fuse(nn.Conv2d(3, 3, 1))
    with pytest.raises(FuseError, match=r'\(N, 3, H, W\)'):
        effseg.fuse(small, size=(64, 64)).logits(torch.zeros(3, 64, 64).double())
    for replaced, message in (
        (dict(backbone=nn.Identity()), 'does not run'),
        (dict(neck=nn.Identity()), 'does not run'),
        (dict(decode_head=nn.Identity()), 'Identity'),
    ):
        other = copy.deepcopy(small)
        for name, module in replaced.items():
            setattr(other, name, module.eval())
        with pytest.raises((FuseError, AttributeError), match=message):
            effseg.fuse(other)
    small.decode_head.conv_seg.weight.data[0, 0] = float('nan')
    with pytest.raises(FuseError, match='conv_seg.weight'):
        effseg.fuse(small)
