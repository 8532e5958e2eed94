"""The figure of a file in half precision: what goes wrong there is refused of fp16, warned of in fp32, written down."""

import json

import numpy as np
import pytest
import torch

import effseg
from effseg import deploy
from effseg.deploy import accelerator, exporting
from effseg.deploy.program import Unfused
from effseg.deploy.reference import Reference
from effseg.errors import ParityError
from effseg.fusion import norms

from .conftest import SIZE, need, spec_of
from .test_half import with_large_map


def squared(x, mean, eps):
    """A norm as it was once written: half precision does not hold the square."""
    centred = x - mean(x)
    return centred * torch.rsqrt(mean(centred * centred) + eps)


def fused(model):
    with torch.no_grad():
        return effseg.fuse(model, size=SIZE).exportable()


@pytest.fixture
def images(scenes):
    return [image for image, _ in scenes[:6]]


@pytest.fixture
def large(trained, monkeypatch):
    """A model whose last map is four hundred times as large, and its fused form with norms that square it."""
    monkeypatch.setattr(norms, '_normalise', squared)
    with torch.no_grad():
        return with_large_map(trained, 400)


def test_what_keeps_its_labels_says_so(trained, images, in_torch, tmp_path):
    for precision in ('fp32', 'fp16'):
        spec = spec_of('onnx', 'labels', precision, classes=8)
        done = deploy.export(trained, fused(trained), spec, tmp_path / 'm.onnx', images)
        half = done.accelerated
        assert half.shortfall is None and 0.99 < half.parity.agreement < 1 and half.parity.images == 3
        assert half.sums.images == 1 and half.sums.agreement > 0.98
        assert 'on an fp16 accelerator: 99.' in str(done) and 'WARNING' not in str(done)
        written = json.loads((tmp_path / 'm.onnx.spec.json').read_text())['proof']['fp16_accelerator']
        assert written['parity']['agreement'] == half.parity.agreement and written['overflow'] is None
    done = deploy.export(trained, Unfused(trained), spec, tmp_path / 'm.onnx', images)
    assert done.accelerated.parity.agreement > 0.99


@pytest.mark.parametrize('runtime, suffix', [('onnx', 'onnx'), ('litert', 'tflite')])
def test_fp32_of_a_norm_that_squares_is_kept_with_a_warning(large, images, in_torch, tmp_path, runtime, suffix):
    done = deploy.export(large, fused(large), spec_of(runtime, 'labels', classes=8), tmp_path / f'm.{suffix}', images)
    assert 'WARNING, run it on CPUs alone' in str(done)
    assert 'mul in Program.network.backbone.norms.3 reaches ' in str(done) and 'where 65,504 is' in str(done)
    written = json.loads((tmp_path / f'm.{suffix}.spec.json').read_text())['proof']['fp16_accelerator']
    assert 'norms.3' in written['shortfall'] and written['overflow']['largest'] > 65504


@pytest.mark.parametrize('keep', [False, True])
def test_fp16_of_a_norm_that_squares_is_refused(large, images, in_torch, tmp_path, keep):
    spec = spec_of('onnx', 'labels', 'fp16', classes=8)
    with pytest.raises(ParityError, match='norms.3 reaches .* --precision fp32') as raised:
        deploy.export(large, fused(large), spec, tmp_path / 'm.onnx', images, keep_inaccurate=keep)
    assert '--keep-inaccurate' not in str(raised.value) and len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_overflow_is_named_where_the_labels_are_lost_already(large, images, in_torch, tmp_path, monkeypatch):
    judge = exporting.parity.judge

    def judged(proof, precision, *keep):
        if precision == 'fp16':
            raise ParityError('the same label at 80 %')
        judge(proof, precision, *keep)

    monkeypatch.setattr(exporting.parity, 'judge', judged)
    spec = spec_of('onnx', 'labels', 'fp16', classes=8)
    with pytest.raises(ParityError, match='norms.3 reaches'):
        deploy.export(large, fused(large), spec, tmp_path / 'm.onnx', images[:1])


@pytest.mark.slow
def test_the_file_itself_is_judged(trained, large, images, tmp_path, monkeypatch):
    need('onnx')
    spec, path = spec_of('onnx', 'labels', 'fp16', classes=8), tmp_path / 'm.onnx'
    with pytest.raises(ParityError, match=r'pow|mul in network\.backbone\.norms\.3 reaches'):
        deploy.export(large, fused(large), spec, path, images)
    monkeypatch.undo()
    done = deploy.export(trained, fused(trained), spec, path, images)
    assert done.accelerated.shortfall is None and 0.99 < done.accelerated.parity.agreement


def test_ties_decided_by_a_huge_constant_are_refused(trained, images, in_torch, tmp_path, monkeypatch):
    monkeypatch.setattr('effseg.deploy.program._STEP', 1e30)
    done = deploy.export(trained, fused(trained), spec_of('litert', 'labels', classes=8), tmp_path / 'm.tflite', images)
    assert done.accelerated.parity is None and 'a constant in Program reaches' in str(done)
    monkeypatch.setattr('effseg.deploy.backends.litert.PRECISIONS', ('fp32', 'fp16'))
    monkeypatch.setattr('effseg.deploy.backends.litert.HALF', ('fp16',))
    with pytest.raises(ParityError, match='a constant in Program reaches'):
        spec = spec_of('litert', 'labels', 'fp16', classes=8)
        deploy.export(trained, fused(trained), spec, tmp_path / 'h.tflite', images)


def test_what_is_merely_inaccurate_is_kept_when_asked(trained, images, in_torch, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, 'LABELS', 1.0)
    spec = spec_of('onnx', 'labels', 'fp16', classes=8)
    with pytest.raises(ParityError, match='% of the labels stay, .* --keep-inaccurate'):
        deploy.export(trained, fused(trained), spec, tmp_path / 'm.onnx', images)
    done = deploy.export(trained, fused(trained), spec, tmp_path / 'm.onnx', images, keep_inaccurate=True)
    assert 'INACCURATE' in str(done) and 'of the labels stay' in done.inaccuracy


def test_the_images_are_those_that_show_most_classes(trained, scenes):
    spec = spec_of('onnx', 'labels', classes=8)
    reference = Reference(trained, spec, [np.zeros((*SIZE, 3), np.uint8), *(image for image, _ in scenes[:8])])
    shown = reference.showing_most(3)
    counts = [len(np.unique(labels)) for labels in reference.labels]
    assert len(shown.images) == 3 and len(np.unique(shown.labels[0])) == max(counts)
    assert len(np.unique(shown.labels)) == len(np.unique(reference.labels))
    assert len(reference.showing_most(100).images) == 9


def test_large_images_are_fewer(trained, monkeypatch):
    monkeypatch.setattr(accelerator, 'PIXELS', 2 * SIZE[0] * SIZE[1])
    spec = spec_of('onnx', 'labels', classes=8)
    reference = Reference(trained, spec, [np.zeros((*SIZE, 3), np.uint8)] * 4)
    program = deploy.backends.backend('litert').in_torch(fused(trained), spec, None)
    half = accelerator.accelerated(program, reference, spec)
    assert half.parity.images == 2
