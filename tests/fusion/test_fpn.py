"""The fused decoder against MMSegmentation's own FPN and FPNHead."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmseg.models.decode_heads import FPNHead
from mmseg.models.necks import FPN
from torch import nn

from effseg.errors import FuseError
from effseg.fusion.fpn import fuse_semantic_fpn
from effseg.fusion.norms import MapNorm

EXACT = dict(rtol=1e-9, atol=1e-9)
WIDTHS = (4, 6, 10, 12)
SIZES = [(32, 32), (64, 32), (32, 96), (128, 160)]
ODD_SIZES = [(33, 32), (40, 56), (64, 48), (1, 1), (5, 90)]


def maps_of(size, widths=WIDTHS, batch=2):
    torch.manual_seed(1)
    return [
        torch.randn(batch, width, *(-(-side // 2 ** (index + 2)) for side in size)).double()
        for index, width in enumerate(widths)
    ]


def grids_of(size):
    return [tuple(x.shape[2:]) for x in maps_of(size)]


def network(random_stats, widths=WIDTHS, middle=24, channels=8, classes=5, neck=None, head=None):
    levels = len(widths)
    neck = FPN(list(widths), middle, levels, **(neck or {}))
    head = FPNHead(
        feature_strides=[4 * 2**index for index in range(levels)],
        in_channels=[middle] * levels,
        in_index=list(range(levels)),
        channels=channels,
        num_classes=classes,
        **{'norm_cfg': dict(type='BN'), **(head or {})},
    )
    random_stats(neck)
    return neck, random_stats(head, seed=1)


def plain_norms(widths=WIDTHS):
    return [MapNorm() for _ in widths]


def check(neck, head, decoder, maps):
    expected = head([*neck(maps)])
    for form in (decoder, copy.deepcopy(decoder).set_portable()):
        before = [x.clone() for x in maps]
        torch.testing.assert_close(form(maps), expected, **EXACT)
        assert all(map(torch.equal, maps, before)), 'the decoder wrote into the maps'
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    torch.testing.assert_close(decoder(channels_last), expected, **EXACT)


@torch.no_grad()
def test_collapsed_at_the_built_size_and_at_others(random_stats):
    neck, head = network(random_stats)
    for built in SIZES:
        decoder = fuse_semantic_fpn(neck, head, plain_norms(), grids_of(built))
        assert all(decoder.levels)
        for size in SIZES:
            check(neck, head, decoder, maps_of(size))


@pytest.mark.parametrize('size', ODD_SIZES)
@torch.no_grad()
def test_sizes_off_multiples_of_32(random_stats, size):
    neck, head = network(random_stats)
    check(neck, head, fuse_semantic_fpn(neck, head, plain_norms(), grids_of(size)), maps_of(size))
    check(neck, head, fuse_semantic_fpn(neck, head, plain_norms(), grids_of((64, 64))), maps_of(size))


@pytest.mark.parametrize(
    'widths, middle, channels, tops',
    [
        ((4, 6, 20, 24), 24, 8, [2, 1]),  # a narrow second map: its own convs pay
        ((4, 20, 24, 24), 24, 8, [1, 1]),
        ((4, 4, 4, 12), 64, 8, [3, 2]),
        ((40, 40, 40, 40), 8, 16, None),  # a narrow FPN: nothing to gain
        ((6, 8, 10), 24, 8, [2, 1]),
        ((6, 8), 24, 8, [1]),
        ((4, 6, 8, 8, 8), 24, 8, [2, 2]),
    ],
)
@torch.no_grad()
def test_other_widths_and_depths(random_stats, widths, middle, channels, tops):
    neck, head = network(random_stats, widths, middle, channels)
    maps = maps_of((128, 64), widths)
    decoder = fuse_semantic_fpn(neck, head, plain_norms(widths), [x.shape[2:] for x in maps])
    assert [level and len(level.above) for level in decoder.levels] == (tops or [None, None])
    check(neck, head, decoder, maps)


@pytest.mark.parametrize(
    'neck, head, collapsed',
    [
        (dict(norm_cfg=dict(type='BN')), {}, True),  # a BatchNorm alone keeps the chain linear
        (dict(act_cfg=dict(type='ReLU')), {}, False),
        (dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')), {}, False),
        (dict(norm_cfg=dict(type='BN'), no_norm_on_lateral=True), {}, True),
        ({}, dict(norm_cfg=None), True),
        ({}, dict(norm_cfg=dict(type='SyncBN')), True),
        ({}, dict(act_cfg=None), True),
        ({}, dict(act_cfg=dict(type='GELU')), True),
        ({}, dict(align_corners=True), True),
        ({}, dict(num_classes=2, out_channels=1, threshold=0.4), True),
    ],
)
@torch.no_grad()
def test_other_settings(random_stats, neck, head, collapsed):
    classes = head.pop('num_classes', 5)
    neck, head = network(random_stats, classes=classes, neck=neck, head=head)
    decoder = fuse_semantic_fpn(neck, head, plain_norms(), grids_of((64, 96)))
    assert bool(decoder.levels) == collapsed
    for size in ((64, 96), (32, 32), (40, 56)):
        check(neck, head, decoder, maps_of(size))


sides = st.integers(1, 40)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    widths=st.sampled_from([(4, 6), (4, 4, 12), WIDTHS, (4, 4, 4, 12)]), built=st.tuples(sides, sides), run=st.data()
)
@torch.no_grad()
def test_any_grid_of_any_depth(random_stats, widths, built, run):
    """Grids of the finest map down to one pixel, whatever the stride of the first map that is read."""
    neck, head = network(random_stats, widths, middle=48)
    levels = [tuple(x.shape[2:]) for x in maps_of([4 * side for side in built], widths)]
    decoder = fuse_semantic_fpn(neck, head, plain_norms(widths), levels)
    size = run.draw(st.one_of(st.just(built), st.tuples(sides, sides)))
    maps = maps_of([4 * side for side in size], widths)
    check(neck, head, decoder, maps)
    decoder.set_portable().strip_to([tuple(x.shape[2:]) for x in maps])
    torch.testing.assert_close(decoder(maps), head([*neck(maps)]), **EXACT)


@torch.no_grad()
def test_output_norms_fold_into_the_laterals(random_stats):
    neck, head = network(random_stats)
    norms = [random_stats(nn.GroupNorm(groups, width)) for groups, width in zip((1, 1, 2, 1), WIDTHS)]
    maps = [x * 3 + 1 for x in maps_of((64, 96))]
    expected = head([*neck([norm(x) for norm, x in zip(norms, maps)])])
    for portable in (False, True):
        fused_norms = [
            MapNorm(norm.num_groups, norm.eps, norm.weight, norm.bias).set_portable(portable) for norm in norms
        ]
        for norm, fused, x in zip(norms, fused_norms, maps):
            torch.testing.assert_close(fused(x), norm(x), **EXACT)
        decoder = fuse_semantic_fpn(neck, head, fused_norms, grids_of((64, 96)))
        assert not any(norm.scale is not None for norm in fused_norms)
        torch.testing.assert_close(decoder([norm(x) for norm, x in zip(fused_norms, maps)]), expected, **EXACT)


@pytest.mark.parametrize(
    'neck, head, message',
    [
        (dict(upsample_cfg=dict(mode='bilinear')), {}, 'upsamples'),
        ({}, dict(norm_cfg=dict(type='GN', num_groups=2)), 'GroupNorm'),
        ({}, dict(act_cfg=dict(type='Tanh')), 'Tanh'),
    ],
)
def test_what_has_no_exact_form_is_refused(random_stats, neck, head, message):
    neck, head = network(random_stats, neck=neck, head=head)
    with pytest.raises(FuseError, match=message):
        fuse_semantic_fpn(neck, head, plain_norms(), grids_of((64, 64)))


def test_another_neck_or_head_is_refused(random_stats):
    neck, head = network(random_stats)
    with pytest.raises(FuseError, match='NoneType'):
        fuse_semantic_fpn(None, head, plain_norms(), grids_of((64, 64)))
    with pytest.raises(FuseError, match='Identity'):
        fuse_semantic_fpn(neck, nn.Identity(), plain_norms(), grids_of((64, 64)))
