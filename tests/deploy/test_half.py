"""What half precision makes of a network: the fused one keeps the labels, and what leaves the range is named."""

import copy

import numpy as np
import pytest
import torch
from networks import MEAN, STD, segmenter

import effseg
from effseg.demo.scenes import draw_scene
from effseg.deploy.half import HalfProgram, _HalfMode
from effseg.deploy.program import Program, Unfused, largest
from effseg.fusion import norms

from .conftest import SIZE, spec_of


def agreement(model, network, scenes, compare, sums=False):
    """Share of the labels that half precision keeps, and what overflowed."""
    spec = spec_of('onnx', 'labels', classes=8)
    expected, half = Program(Unfused(model), spec).eval(), HalfProgram(Program(network, spec, compare=compare), sums)
    with torch.no_grad():
        same = [half(image) == expected(torch.from_numpy(image[None]))[0].numpy() for image, _ in scenes[:3]]
    return np.mean(same), half.overflow


def with_large_map(model, factor):
    """The model with the last of its maps, which are normalised behind, so many times as large."""
    other = copy.deepcopy(model)
    block = other.backbone.stages[3].blocks[-1]
    block.ls2.gamma.fill_(1)
    for tensor in (block.mlp.fc2.weight, block.mlp.fc2.bias):
        tensor.mul_(factor)
    return other


@pytest.mark.parametrize('compare', [False, True])  # by argmax and by arithmetic
@pytest.mark.parametrize('factor', [1, 400, 2000])
@torch.no_grad()
def test_large_maps_keep_their_labels(trained, scenes, factor, compare):
    model = with_large_map(trained, factor)
    network = effseg.fuse(model, size=SIZE).exportable()
    for sums in (False, True):
        kept, overflow = agreement(model, network, scenes, compare, sums)
        assert kept > 0.995 and overflow is None


@pytest.mark.slow
@pytest.mark.parametrize('side', [512, 1024])
@torch.no_grad()
def test_maps_of_five_thousand_and_150_classes_are_held(random_stats, side, capsys):
    """EfficientFormer-L1 with the all-MLP head, the last map brought to 5,000."""
    model = random_stats(segmenter('l1', 150, channels=256, head=dict(type='SegformerHead'), resolution=16)).float()
    image = draw_scene((side, side), np.random.default_rng(0))[0]
    pixels = (torch.from_numpy(image).float() - torch.tensor(MEAN)) / torch.tensor(STD)
    last = []
    for goal in (None, 5000):
        large = with_large_map(model, 1e4 * goal / last[0] if goal else 1e4)
        hook = large.backbone.stages[3].register_forward_hook(
            lambda module, given, x: last.append(float(x.abs().max()))
        )
        large.extract_feat(pixels.permute(2, 0, 1)[None])
        hook.remove()
    network = effseg.fuse(large, size=(side, side)).exportable()
    spec = spec_of('onnx', size=(side, side), classes=150)
    expected = Program(network, spec)(torch.from_numpy(image)[None])[0]
    for sums in (False, True):
        half = HalfProgram(Program(network, spec), sums)
        found = torch.from_numpy(half(image))
        error = float((found - expected).abs().mean() / expected.std())
        kept = float((found.argmax(0) == expected.argmax(0)).float().mean())
        with capsys.disabled():
            print(f'\n{side}: maps to {last[1]:,.0f}, sums {sums}: logits off by {error:.5f}, {kept:.4f} of labels')
        assert half.overflow is None and error < 0.005 and kept > 0.999


@torch.no_grad()
def test_a_norm_that_squares_large_values_is_named(trained, scenes, monkeypatch):
    def squared(x, mean, eps):
        centred = x - mean(x)
        return centred * torch.rsqrt(mean(centred * centred) + eps)

    monkeypatch.setattr(norms, '_normalise', squared)
    model = with_large_map(trained, 400)
    kept, overflow = agreement(model, effseg.fuse(model, size=SIZE).exportable(), scenes, True)
    assert kept < 0.9
    assert overflow.layer.endswith('backbone.norms.3') and overflow.operation == 'mul' and overflow.largest > 65504


class Constant(torch.nn.Module):
    """Logits that do not depend on the image."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def logits(self, x):
        return self.values + 0 * x[:, :1, ::4, ::4]


def test_ties_are_decided():
    values = torch.tensor([3.0, 7.0, 7.0, -2.0, 7.0, 0.0, 7.0, 1.0]).reshape(1, 8, 1, 1)
    program = HalfProgram(Program(Constant(values), spec_of('onnx', 'labels', classes=8), compare=True))
    labels = program(np.full((*SIZE, 3), 200, np.uint8))
    assert np.isin(labels, [1, 2, 4, 6]).all() and program.overflow is None


def test_comparisons_by_a_huge_constant_are_seen(monkeypatch):
    monkeypatch.setattr('effseg.deploy.program._STEP', 1e30)
    program = HalfProgram(
        Program(Constant(torch.zeros(1, 8, 1, 1)), spec_of('onnx', 'labels', classes=8), compare=True)
    )
    assert not np.isfinite(program(np.zeros((*SIZE, 3), np.uint8))).all()
    assert program.overflow is not None


@pytest.mark.parametrize('classes', [2, 7, 150])
def test_labels_of_close_logits_are_those_of_argmax(classes):
    values = torch.randn(1, 32, 32, classes).half().float()
    values[..., 1:] += torch.randint(0, 2, (1, 32, 32, classes - 1)) * 1e-6
    found, value = largest(values, torch.arange(classes, dtype=torch.float32))
    assert torch.equal(value, values.amax(3, keepdim=True))
    assert torch.equal(values.gather(3, found.long()), value)  # of equal logits, any class is right


def test_a_sum_that_half_precision_cannot_hold_is_seen():
    class Mean(torch.nn.Module):
        def forward(self, image):
            return image.float().mean((1, 2, 3))

    image = np.full((*SIZE, 3), 200, np.uint8)
    assert HalfProgram(Mean())(image) == 200
    assert HalfProgram(Mean(), sums=True)(image) != 200


@pytest.mark.parametrize(
    'layer, shape',
    [
        (torch.nn.Conv2d(40, 6, 3, 2, 1), (1, 40, 9, 9)),
        (torch.nn.Conv2d(80, 6, 3, padding=2, dilation=2, groups=2), (2, 80, 9, 9)),
        (torch.nn.Conv2d(20, 40, 3, groups=20), (1, 20, 9, 9)),
        (torch.nn.Conv1d(40, 6, 3, bias=False), (1, 40, 9)),
        (torch.nn.Conv3d(20, 6, 3), (1, 20, 4, 4, 4)),
        (torch.nn.ConvTranspose2d(40, 6, 3, 2, 1, output_padding=1), (1, 40, 5, 5)),
        (torch.nn.ConvTranspose2d(40, 6, 2, 2, groups=2), (1, 40, 5, 5)),
        (torch.nn.Linear(40, 6), (2, 3, 40)),
    ],
    ids=str,
)
@torch.no_grad()
def test_running_sums_are_those_of_the_layer(layer, shape):
    x, found = torch.randn(shape), {}
    for sums in (False, True):
        with _HalfMode(lambda: '', sums):
            found[sums] = layer(x)
    torch.testing.assert_close(found[True], layer(x), atol=2e-2, rtol=2e-2)
    assert not torch.equal(found[True], found[False]) or layer.in_channels <= 16 * layer.groups


class Written(torch.nn.Module):
    """Through views and in place; with integers, comparisons and an infinite mask."""

    def forward(self, image):
        x = image.float().flatten()[:12].reshape(3, 4) / 7
        y = torch.zeros(3, 8)
        y[:, ::2] = x
        y[1].mul_(torch.full((8,), 1 / 3))
        torch.add(y[:, :4], y[:, 4:], out=y[:, :4])
        order = y.argsort(1, descending=True)
        mask = torch.where(order > 5, -torch.inf, 0.0)
        return (y + mask).softmax(1)[None]


def test_what_is_written_in_place_and_through_views_is_kept():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    program = HalfProgram(Written())
    result = program(image)
    np.testing.assert_allclose(result, Written()(torch.from_numpy(image[None]))[0], atol=1e-3)
    np.testing.assert_array_equal(result, result.astype(np.float16))
    assert program.overflow is None and (result == 0).any()


def test_attention_is_products_and_a_softmax():
    class Attention(torch.nn.Module):
        def forward(self, image):
            x = image.float().reshape(1, 1, -1, 4) * 64
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    program = HalfProgram(Attention())
    program(np.full((4, 4, 3), 255, np.uint8))
    assert program.overflow is not None and program.overflow.largest > 65504
