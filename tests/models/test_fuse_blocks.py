"""Each block's inference form gives what the block gives, in all its forms, at the stored grid and at any other."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')
from effseg.deploy.backends.onnx import suited
from effseg.models.blocks import Downsample, MetaBlock1d, MetaBlock2d, Stem

EXACT = dict(rtol=1e-9, atol=1e-9)
GRIDS = [(4, 4), (3, 5), (7, 2), (1, 4), (1, 1)]


def check(block, fused, x, expected):
    portable = copy.deepcopy(fused).set_portable()
    for form in (fused, portable, suited(portable, 'fp32')):
        before = x.clone()
        torch.testing.assert_close(form(x), expected, **EXACT)
        assert torch.equal(x, before), 'a fused block wrote into its input'
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fused.modules())


@pytest.mark.parametrize('size', [(8, 8), (9, 14), (1, 3)])
@torch.no_grad()
def test_stem_and_downsample(random_stats, size):
    x = torch.randn(2, 3, *size).double()
    stem, downsample = random_stats(Stem(8)), random_stats(Downsample(8, 12))
    check(stem, stem.fuse(), x, stem(x))
    y = stem(x)
    check(downsample, downsample.fuse(), y, downsample(y))


@pytest.mark.parametrize('act', [nn.GELU, nn.Hardswish, nn.ReLU])
@pytest.mark.parametrize('grid', GRIDS)
@torch.no_grad()
def test_pooling_block(random_stats, grid, act):
    block = random_stats(MetaBlock2d(8, 32, act, 0.0))
    for fused_for in (grid, (6, 6)):
        x = torch.randn(3, 8, *grid).double()
        check(block, block.fuse(fused_for), x, block(x))


@pytest.mark.parametrize('bias_resize', ['interpolate', 'hold', 'matrix'])
@pytest.mark.parametrize('grid', GRIDS)
@torch.no_grad()
def test_attention_block(random_stats, grid, bias_resize):
    block = random_stats(MetaBlock1d(32, 128, nn.GELU, 0.0, resolution=3, bias_resize=bias_resize))
    for batch, fused_for in ((1, grid), (3, grid), (1, (2, 6)), (2, (2, 6))):
        x = torch.randn(batch, 32, *grid).double()
        expected = block(x.flatten(2).transpose(1, 2), grid).transpose(1, 2).unflatten(2, grid)
        check(block, block.fuse(fused_for), x, expected)
        check(block, block.fuse(fused_for), x.contiguous(memory_format=torch.channels_last), expected)
