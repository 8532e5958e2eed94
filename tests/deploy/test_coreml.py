"""Core ML off macOS: converted, checked, and evaluated by the interpreter in mil.py."""

import shutil

import numpy as np
import pytest
import torch

from effseg import deploy
from effseg.deploy import parity
from effseg.deploy.backends import coreml
from effseg.deploy.program import Program, Unfused
from effseg.deploy.spec import beside
from effseg.errors import MissingRuntimeError, ParityError

from . import mil
from .conftest import need, spec_of


@pytest.fixture(scope='module')
def exported(tmp_path_factory, model, fused, images):
    need('coreml')
    return deploy.export(model, fused, spec_of('coreml'), tmp_path_factory.mktemp('coreml') / 'model.mlpackage', images)


@pytest.fixture(scope='module')
def converted(fused):
    need('coreml')
    return coreml.convert(fused, spec_of('coreml'))


def test_export_says_that_it_was_not_run(exported):
    if coreml.runs_here():
        assert exported.parity.agreement >= parity.THRESHOLDS['fp32'].agreement
    else:
        assert exported.parity is None and 'converted, not run' in str(exported)
    assert exported.path.is_dir() and beside(exported.path).is_file()


def test_converted_program_computes_what_torch_computes(converted, model, images):
    spec = spec_of('coreml')
    declared = converted.get_spec().description.input[0].type.imageType
    assert (declared.width, declared.height) == (spec.width, spec.height)
    for image in images[:3]:
        # the scale and bias of the picture are operators of the converted program
        picture = image.astype(np.float32).transpose(2, 0, 1)[None]
        with torch.no_grad():
            result = mil.run(converted._mil_program, np.ascontiguousarray(picture))
            expected = Program(Unfused(model), spec)(torch.from_numpy(image[None]))
        torch.testing.assert_close(
            result, expected, rtol=0, atol=parity.THRESHOLDS['fp32'].difference * expected.abs().max().item()
        )


def test_picture_is_declared_with_mean_and_scale(converted):
    spec = spec_of('coreml')
    divisor = float(np.mean(spec.std))
    (picture,) = (
        converted._mil_program.main_input_types
        if hasattr(converted._mil_program, 'main_input_types')
        else converted._mil_program.functions['main'].input_types
    )
    assert picture.scale == pytest.approx(1 / divisor)
    assert picture.bias == pytest.approx([-mean / divisor for mean in spec.mean])


def test_weights_of_another_network_are_refused(exported, fused):
    import copy

    other = copy.deepcopy(fused)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    with pytest.raises(ParityError, match='not in the network'):
        coreml.check(exported.path, other, exported.spec)


def test_size_that_contradicts_the_spec_is_refused(exported, fused):
    with pytest.raises(ParityError, match='the spec says otherwise'):
        coreml.check(exported.path, fused, spec_of('coreml', size=(96, 96)))


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
