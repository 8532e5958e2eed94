"""Core ML off macOS: converted, checked, and evaluated in torch."""

import copy
import dataclasses
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SMALL, SMALL_V2, segmenter

import effseg
from effseg import deploy
from effseg.deploy import parity
from effseg.deploy.backends import coreml
from effseg.deploy.program import Program, Unfused
from effseg.deploy.spec import beside, check_seal
from effseg.errors import ArtifactError, MissingRuntimeError, ParityError
from effseg.fusion.attention import Attention

from .conftest import SIZE, need, spec_of


@pytest.fixture(scope='module')
def exported(tmp_path_factory, model, fused, images):
    need('coreml')
    return deploy.export(model, fused, spec_of('coreml'), tmp_path_factory.mktemp('coreml') / 'model.mlpackage', images)


@pytest.fixture(scope='module')
def converted(fused):
    need('coreml')
    return coreml.convert(fused, spec_of('coreml'))


def test_export_is_proved_and_says_how(exported):
    assert exported.parity.agreement >= parity.THRESHOLDS['fp32'].agreement
    assert exported.interpreted is not coreml.runs_here()
    assert ('interpreted in torch, not run' in str(exported)) is exported.interpreted
    assert exported.path.is_dir() and beside(exported.path).is_file()


def test_image_is_declared_with_mean_and_scale(converted):
    spec = spec_of('coreml')
    divisor = float(np.mean(spec.std))
    (image,) = (
        converted._mil_program.main_input_types
        if hasattr(converted._mil_program, 'main_input_types')
        else converted._mil_program.functions['main'].input_types
    )
    assert image.scale == pytest.approx(1 / divisor)
    assert image.bias == pytest.approx([-mean / divisor for mean in spec.mean])


def assert_converted_right(network, size, folder):
    spec = spec_of('coreml', size=size)
    spec = dataclasses.replace(spec, grid=tuple(network.logits(torch.zeros(1, 3, *size)).shape[2:]))
    coreml.export(network, spec, folder / 'model.mlpackage', [])
    image = np.random.default_rng(0).integers(0, 256, spec.image_shape, np.uint8)
    expected = Program(network, spec).eval()(torch.from_numpy(image[None]))[0].numpy()
    found = coreml.in_torch(network, spec, folder / 'model.mlpackage').run(image, spec)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Cropped(torch.nn.Module):
    def logits(self, x):
        return x[:, :, :64, :96].relu() + x


@torch.no_grad()
def test_a_crop_that_takes_everything_converts(tmp_path):
    need('coreml')
    assert_converted_right(Cropped(), (64, 96), tmp_path)


SIDES = st.integers(1, 7).map(lambda number: 32 * number)


@pytest.mark.slow
@given(size=st.tuples(SIDES, SIDES), second=st.booleans(), mlp=st.booleans(), fuse=st.booleans())
@settings(max_examples=12, deadline=None, derandomize=True)
@torch.no_grad()
def test_every_size_converts(random_stats, tmp_path_factory, size, second, mlp, fuse):
    need('coreml')
    arch, kind = (SMALL_V2, 'EfficientFormerV2') if second else (SMALL, 'EfficientFormer')
    model = random_stats(segmenter(arch, type=kind, head=dict(type='SegformerHead') if mlp else None)).float()
    network = effseg.fuse(model, size).exportable() if fuse else Unfused(model)
    assert_converted_right(network, size, tmp_path_factory.mktemp('size'))


def biases_zeroed(network):
    for name, parameter in network.named_parameters():
        if name.endswith('bias'):
            parameter.zero_()


def attention_biases_zeroed(network):
    (layer,) = [layer for layer in network.modules() if isinstance(layer, Attention)]
    layer.bias.zero_()


def another_checkpoint(network):
    for parameter in network.parameters():
        parameter.mul_(1.05)


@pytest.mark.parametrize(
    'sabotage',
    [
        pytest.param(biases_zeroed, marks=pytest.mark.slow),
        pytest.param(attention_biases_zeroed, marks=pytest.mark.medium),  # of all three the hardest to see
        pytest.param(another_checkpoint, marks=pytest.mark.slow),
    ],
)
def test_another_network_is_refused(sabotage, model, fused, images, tmp_path):
    need('coreml')
    other = copy.deepcopy(fused)
    with torch.no_grad():
        sabotage(other)
    with pytest.raises(ParityError, match='does not compute'):
        deploy.export(model, other, spec_of('coreml'), tmp_path / 'model.mlpackage', images)
    assert not list(tmp_path.iterdir())


@pytest.mark.medium
def test_another_normalisation_is_refused(model, fused, images, tmp_path):
    need('coreml')
    spec = dataclasses.replace(spec_of('coreml', 'labels', 'fp16'), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ParityError, match='does not compute'):
        deploy.export(model, fused, spec, tmp_path / 'model.mlpackage', images)


@pytest.mark.parametrize('place', ['Data/com.apple.CoreML/weights/weight.bin', 'Data/com.apple.CoreML/model.mlmodel'])
def test_a_flipped_bit_in_a_package_is_noticed(exported, tmp_path, place):
    package = tmp_path / 'model.mlpackage'
    shutil.copytree(exported.path, package)
    check_seal(package)
    content = bytearray((package / place).read_bytes())
    content[len(content) // 2] ^= 1
    (package / place).write_bytes(content)
    with pytest.raises(ArtifactError, match='corrupted'):
        check_seal(package)


def test_size_that_contradicts_the_spec_is_refused(exported):
    with pytest.raises(ParityError, match='the spec says otherwise'):
        coreml.check(exported.path, spec_of('coreml', size=(96, 96)))


@pytest.mark.skipif(coreml.runs_here(), reason='macOS runs it')
def test_running_off_macos_is_refused(exported, tmp_path):
    with pytest.raises(MissingRuntimeError, match='macOS only'):
        deploy.load(exported.path)
    shutil.copytree(exported.path, tmp_path / 'moved.mlpackage')
    with pytest.raises(MissingRuntimeError, match='macOS only'):
        deploy.load(tmp_path / 'moved.mlpackage')


def test_int8_weights_of_all_layers_but_those_kept_in_float(converted, fused):
    kept = ('decoder.outputs.2', 'decoder.outputs.3')
    whole, partly = (
        [
            op
            for op in coreml._int8(converted, fused, floats)._mil_program.functions['main'].operations
            if op.op_type.startswith('constexpr')
        ]
        for floats in ((), kept)
    )
    assert len(whole) - len(partly) == len(kept) and len(partly) > 5


class Operators(torch.nn.Module):
    """What foreign networks are made of, each on a channel of the logits."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(3)
        torch.nn.init.normal_(self.norm.weight, 1)

    def logits(self, x):
        F = torch.nn.functional
        x = x[:, :, ::2, ::2]
        of_each_pixel = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        pools = [F.avg_pool2d(x, 3, 1, 1, count_include_pad=include) for include in (True, False)]
        acts = [F.hardsigmoid(x), F.hardswish(x), F.relu6(3 * x), F.leaky_relu(x, 0.2), F.silu(x), F.gelu(x), x.abs()]
        pools += [F.max_pool2d(x, 3, 1, 1), F.interpolate(F.max_pool2d(x, 2, 2), scale_factor=2)]
        sums = x + x.sum((2, 3), keepdim=True) / 1000 + x.amax(1, keepdim=True) + x.square().mean((2, 3), keepdim=True)
        return torch.cat([of_each_pixel, *pools, *acts, sums, F.instance_norm(x)], 1)


def test_operators_of_other_networks_are_evaluated_as_torch_does(images, tmp_path):
    need('coreml')
    spec, network = spec_of('coreml', classes=42, grid=(SIZE[0] // 2, SIZE[1] // 2)), Operators().eval()
    coreml.export(network, spec, tmp_path / 'model.mlpackage', [])
    result = coreml.in_torch(network, spec, tmp_path / 'model.mlpackage').run(images[0], spec)
    with torch.no_grad():
        expected = Program(network, spec)(torch.from_numpy(images[0][None]))[0].numpy()
    assert result.shape == expected.shape == spec.result_shape
    for number, (own, other) in enumerate(zip(result, expected)):
        np.testing.assert_allclose(own, other, atol=1e-4, err_msg=f'channel {number}')
