"""Each folded operation does what the two operations before it did."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effseg.errors import FuseError
from effseg.fusion import folding, upsample

EXACT = dict(rtol=1e-9, atol=1e-9)


def random_norm(channels, kind=nn.BatchNorm2d):
    norm = kind(channels).double().eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.2, 3)
    return norm


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('kind', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_conv_and_batch_norm(groups, bias, kind):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, padding=1, groups=groups, bias=bias).double()
    norm = random_norm(12, kind)
    x = torch.randn(2, 8, 5, 7).double()
    weight, shift = folding.fold_norm(conv, norm)
    torch.testing.assert_close(F.conv2d(x, weight, shift, padding=1, groups=groups), norm(conv(x)), **EXACT)


def test_scale_behind_and_affine_in_front():
    torch.manual_seed(0)
    linear = nn.Linear(6, 4).double()
    scale, gain, shift = torch.randn(4).double(), torch.randn(6).double(), torch.randn(6).double()
    x = torch.randn(3, 6).double()
    weight, bias = folding.linear_part(linear).scaled(scale).after(gain, shift)
    torch.testing.assert_close(F.linear(x, weight[:, :, 0, 0], bias), linear(x * gain + shift) * scale, **EXACT)


@pytest.mark.parametrize('outer, inner', [((3, 3), (3, 3)), ((5, 3), (1, 1)), ((1, 3), (1, 5))])
def test_composed_kernel_equals_two_convs(outer, inner):
    torch.manual_seed(0)
    first, second = torch.randn(4, 2, *inner).double(), torch.randn(3, 4, *outer).double()
    x = torch.randn(1, 2, 9, 11).double()
    expected = F.conv2d(F.conv2d(x, first), second)
    torch.testing.assert_close(F.conv2d(x, folding.compose(second, first)), expected, **EXACT)


@pytest.mark.parametrize('factor', [2, 4, 8])
@pytest.mark.parametrize('size', [1, 3, 5])
def test_conv_after_nearest_upsampling(factor, size):
    torch.manual_seed(0)
    maps, kernels, layers, expected = {}, {}, {}, 0
    for each in sorted({2, factor}):  # the coarser are added onto the finest
        maps[each] = torch.randn(2, 2, 3 * factor // each, 5 * factor // each).double()
        kernels[each] = torch.randn(3, 2, size, size).double()
        expected = expected + F.conv2d(F.interpolate(maps[each], scale_factor=each), kernels[each], padding=size // 2)
        layers[each] = upsample.Upsampled(kernels[each], each)
    result = upsample.summed(*(layers[each](maps[each]) for each in layers))
    torch.testing.assert_close(upsample.depth_to_space(result, 2, 2).permute(0, 3, 1, 2), expected, **EXACT)


def test_what_is_no_fixed_scale_is_refused():
    with pytest.raises(FuseError, match='GroupNorm'):
        folding.fold_norm(nn.Conv2d(4, 4, 1), nn.GroupNorm(1, 4))
    with pytest.raises(FuseError, match='running statistics'):
        folding.fold_norm(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
