"""The fused all-MLP decoder against MMSegmentation's own SegformerHead, and against ours with a depthwise conv."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.decode_heads import SegformerHead
from torch import nn

from effseg.errors import FuseError
from effseg.fusion import mlp_head
from effseg.fusion.layers import Conv
from effseg.fusion.mlp_head import fuse_mlp_head
from effseg.fusion.norms import MapNorm
from effseg.models.heads import DepthwiseSegformerHead

EXACT = dict(rtol=1e-9, atol=1e-9)
WIDTHS = (4, 6, 10, 12)
RELU = dict(type='ReLU')


def maps_of(size, widths=WIDTHS, batch=2):
    generator = torch.Generator().manual_seed(1)
    sizes = [[-(-side // 2 ** (index + 2)) for side in size] for index in range(len(widths))]
    return [torch.randn(batch, c, *sides, generator=generator).double() for c, sides in zip(widths, sizes)]


def head_of(random_stats, kind=SegformerHead, in_index=(0, 1, 2, 3), channels=8, classes=5, **options):
    head = kind(
        in_channels=[WIDTHS[index] for index in in_index],
        in_index=list(in_index),
        channels=channels,
        num_classes=classes,
        **{'norm_cfg': dict(type='BN'), 'act_cfg': None, **options},
    )
    return random_stats(head)


def plain_norms():
    return [MapNorm() for _ in WIDTHS]


def fuse(head):
    return fuse_mlp_head(None, head, plain_norms(), [])


def check(head, decoder, maps):
    expected = head(maps)
    stripped = copy.deepcopy(decoder).set_portable()
    stripped.strip_to([])
    for form in (decoder, stripped):
        before = [x.clone() for x in maps]
        torch.testing.assert_close(form(maps), expected, **EXACT)
        assert all(map(torch.equal, maps, before)), 'the decoder wrote into the maps'
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    torch.testing.assert_close(decoder(channels_last), expected, **EXACT)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([SegformerHead, DepthwiseSegformerHead]),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    in_index=st.permutations(range(4)).flatmap(lambda order: st.sampled_from([order[:n] for n in (1, 2, 3, 4)])),
    channels=st.integers(1, 20),
    classes=st.integers(2, 30),
    act_cfg=st.sampled_from([None, RELU, dict(type='GELU')]),
    align_corners=st.booleans(),
)
@torch.no_grad()
def test_any_size_maps_width_activation_and_corners(random_stats, kind, size, in_index, **options):
    head = head_of(random_stats, kind, in_index, **options)
    check(head, fuse(head), maps_of(size))


@pytest.mark.parametrize('kind', [SegformerHead, DepthwiseSegformerHead])
@pytest.mark.parametrize(
    'options',
    [
        dict(in_index=(1, 2, 3)),
        dict(in_index=(-4, -1, 0, 0)),
        dict(norm_cfg=None),
        dict(norm_cfg=dict(type='SyncBN')),
        dict(classes=2, out_channels=1, threshold=0.4),
    ],
    ids=str,
)
@torch.no_grad()
def test_other_settings(random_stats, kind, options):
    head = head_of(random_stats, kind, **options)
    before = copy.deepcopy(head.state_dict())
    check(head, fuse(head), maps_of((64, 72)))
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


@torch.no_grad()
def test_a_level_is_one_conv(random_stats):
    linear, rectified = (fuse(head_of(random_stats, act_cfg=act)) for act in (None, RELU))
    assert all(type(level) is Conv for level in linear.levels)
    assert [[conv.act for conv in level.layers] for level in rectified.levels] == [['relu', 'none']] * 4
    depthwise = fuse(head_of(random_stats, DepthwiseSegformerHead))
    assert depthwise.mixing.groups == 8 and depthwise.mixing.act == 'relu' and depthwise.mixing.padding == (2, 2)


@torch.no_grad()
def test_output_norms_fold_into_the_levels(random_stats):
    head = head_of(random_stats, in_index=(1, 1, 3, 2))  # a map that two levels read
    norms = [random_stats(nn.GroupNorm(groups, width)) for groups, width in zip((1, 1, 2, 1), WIDTHS)]
    maps = [x * 3 + 1 for x in maps_of((64, 96))]
    expected = head([norm(x) for norm, x in zip(norms, maps)])
    fused_norms = [MapNorm(norm.num_groups, norm.eps, norm.weight, norm.bias) for norm in norms]
    decoder = fuse_mlp_head(None, head, fused_norms, [])
    assert not any(norm.scale is not None for norm in fused_norms)
    torch.testing.assert_close(decoder([norm(x) for norm, x in zip(fused_norms, maps)]), expected, **EXACT)


@pytest.mark.parametrize(
    'sabotage',
    [
        lambda decoder: decoder.levels[2].bias.add_(1e-6),
        lambda decoder: setattr(decoder, 'align_corners', True),
        lambda decoder: setattr(decoder, 'in_index', (0, 1, 1, 3)),
        lambda decoder: decoder.mixing.weight[:, :, 2, 2].sub_(1),  # the residual
        lambda decoder: setattr(decoder.mixing, 'act', 'none'),
    ],
)
@torch.no_grad()
def test_the_proof_sees_a_mistake(random_stats, sabotage):
    head = head_of(random_stats, DepthwiseSegformerHead)
    decoder = fuse(head)
    check(head, decoder, maps_of((64, 96)))
    sabotage(decoder)
    with pytest.raises((AssertionError, RuntimeError)):
        check(head, decoder, maps_of((64, 96)))


@torch.no_grad()
def test_a_chain_of_doublings_is_another_function(random_stats, monkeypatch):
    head, resize = head_of(random_stats), nn.functional.interpolate

    def doubling(x, size, **options):
        while x.shape[2:] != size:
            x = resize(x, scale_factor=2, **options)
        return x

    monkeypatch.setattr(mlp_head.F, 'interpolate', doubling)
    decoder = fuse(head)
    actual = decoder(maps_of((64, 96)))
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(actual, head(maps_of((64, 96))), **EXACT)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(interpolate_mode='bicubic'), 'bicubic'),
        (dict(norm_cfg=dict(type='GN', num_groups=2)), 'GroupNorm'),
        (dict(act_cfg=dict(type='Tanh')), 'Tanh'),
    ],
)
def test_what_has_no_exact_form_is_refused(random_stats, options, message):
    head = head_of(random_stats, **options)
    with pytest.raises(FuseError, match=message):
        fuse(head)


def test_a_neck_or_a_map_that_is_missing_is_refused(random_stats):
    head = head_of(random_stats)
    with pytest.raises(FuseError, match='Identity stands in front of the SegformerHead'):
        fuse_mlp_head(nn.Identity(), head, plain_norms(), [])
    with pytest.raises(FuseError, match='of a backbone that returns 3'):
        fuse_mlp_head(None, head, plain_norms()[:3], [])
