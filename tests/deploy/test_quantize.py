"""Which layers stay in float under int8: measured, and taken back until the file is good enough."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import effseg
from effseg import deploy
from effseg.deploy import backends, exporting, quantize
from effseg.deploy.parity import Parity, compare
from effseg.deploy.reference import Reference
from effseg.deploy.spec import beside

from .conftest import SIZE, need, spec_of

NORMS = ('backbone.norms.0', 'backbone.norms.1', 'backbone.norms.2', 'backbone.norms.3')


@pytest.fixture
def spec():
    return spec_of('onnx', precision='int8')


@pytest.fixture(scope='module')
def files(fused, images, tmp_path_factory):
    """A folder with the network as fp32.onnx and int8.onnx."""
    need('onnx')
    folder = tmp_path_factory.mktemp('files')
    for precision in ('fp32', 'int8'):
        spec = spec_of('onnx', precision=precision)
        backends.backend('onnx').export(fused, spec, folder / f'{precision}.onnx', images[:1])
    return folder


def test_every_layer_with_convs_is_ranked_and_norms_stay_in_float(fused, spec, images):
    ranking = quantize.worst_first(fused, spec, images[:1])
    assert len(ranking) == len(set(ranking)) > 20
    assert {
        'backbone.stem.layers.0',
        'decoder.levels.0.own',
        'decoder.levels.0.above.0',
        'decoder.levels.0.border',
        'decoder.classifier',
    } <= set(ranking)
    assert set(NORMS) <= set(next(quantize.attempts(fused, spec, images)))


def test_a_layer_with_an_outlier_is_worst(spec, images):
    torch.manual_seed(0)
    network = torch.nn.Module()
    network.first, network.second, network.third = (torch.nn.Conv2d(3, 3, 1) for _ in range(3))
    network.logits = lambda x: network.third(network.second(network.first(x).relu()).relu())
    with torch.no_grad():
        network.first.weight[0], network.first.bias[0] = 0, -1
        network.second.weight[:, 0] = 1e3  # behind a channel that is always zero: its step swallows the other weights
    assert quantize.worst_first(network, spec, images[:1])[0] == 'second'


def test_attempts_keep_more_and_more_in_float(fused, spec, images):
    sizes = [len(floats) for floats in quantize.attempts(fused, spec, images[:1])]
    assert len(sizes) == 1 + len(quantize.SHARES) and sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    'proof, enough',
    [
        (Parity(1, None, None, 1.0, 0.99, 100), True),
        (Parity(1, None, None, 1.0, 0.97, 100), False),
        (Parity(1, None, None, 1.0, 0.97, 100, miou=40.0, source_miou=40.4), True),
        (Parity(1, None, None, 1.0, 0.99, 100, miou=40.0, source_miou=40.6), False),
    ],
)
def test_where_there_are_masks_the_score_decides(proof, enough):
    assert quantize.survived(proof) is enough


@pytest.mark.parametrize(
    'proofs, best',
    [
        ([dict(agreement=0.91), dict(agreement=0.95), dict(agreement=0.93), dict(agreement=0.92)], 1),
        # what stopped the search is what is kept, though more pixels agreed before
        ([dict(agreement=0.97, miou=39.0, source_miou=40.0), dict(agreement=0.96, miou=39.8, source_miou=40.0)], 1),
    ],
)
def test_the_best_attempt_is_kept(model, fused, spec, images, files, tmp_path, monkeypatch, proofs, best):
    left, tried = iter(proofs), []

    def compared(run, reference, spec):
        proof = dataclasses.replace(compare(run, reference, spec), classes=())
        return proof if spec.precision == 'fp32' else dataclasses.replace(proof, **next(left))

    def export(network, spec, path, images, floats=()):
        if spec.precision == 'int8':
            tried.append(floats)
        shutil.copy(files / f'{spec.precision}.onnx', path)
        return backends.Delegation('ONNX Runtime CPU', 1)

    monkeypatch.setattr(backends.backend('onnx'), 'export', export)
    monkeypatch.setattr(exporting.parity, 'compare', compared)
    done = deploy.export(model, fused, spec, tmp_path / 'model.onnx', images, images[:2], keep_inaccurate=True)
    assert (
        len(tried) == len(proofs) and done.floats == tried[best] and done.parity.agreement == proofs[best]['agreement']
    )
    assert 'kept in float, as measured: ' in str(done) and 'WEIGHTS ALONE' not in str(done)
    assert {file.name for file in tmp_path.iterdir()} == {'model.onnx', 'model.onnx.spec.json'}


@pytest.mark.parametrize(
    'runtime',
    ['onnx', pytest.param('executorch', marks=pytest.mark.slow), pytest.param('litert', marks=pytest.mark.slow)],
)
def test_what_is_kept_in_float_is_float_in_the_file(runtime, fused, images, tmp_path):
    need(runtime)
    spec, sizes = spec_of(runtime, precision='int8'), []
    for number, floats in enumerate(
        [(), ('decoder.levels.0.own', 'decoder.levels.0.above.0', 'decoder.outputs.2', 'decoder.outputs.3')]
    ):
        path = tmp_path / f'{number}{backends.SUFFIXES[runtime]}'
        backends.backend(runtime).export(fused, spec, path, images[:1], floats)
        sizes.append(path.stat().st_size)
    kept = sum(
        weight.numel()
        for name in ('levels.0.own', 'levels.0.above.0', 'outputs.2', 'outputs.3')
        for weight in fused.decoder.get_submodule(name).parameters()
        if weight.dim() == 4
    )
    assert sizes[1] - sizes[0] > 2 * kept  # three bytes more a weight, less what says how to read int8


@pytest.mark.parametrize(
    'runtime',
    ['onnx', pytest.param('executorch', marks=pytest.mark.slow), pytest.param('litert', marks=pytest.mark.slow)],
)
def test_without_images_it_is_written_and_says_so(runtime, trained, scenes, tmp_path, monkeypatch):
    need(runtime)
    with torch.no_grad():
        network = effseg.fuse(trained, size=SIZE).exportable()
    path, images = tmp_path / f'm{backends.SUFFIXES[runtime]}', [image for image, _ in scenes[:4]]
    spec = spec_of(runtime, 'labels', 'int8', classes=8)
    monkeypatch.setattr(quantize, 'SHARES', ())
    done = deploy.export(trained, network, spec, path, images, keep_inaccurate=True, proven=True)
    said = 'ranges of the maps are found in every run' if runtime == 'executorch' else 'INT8 OF WEIGHTS ALONE'
    assert done.calibrated == 0 and said in str(done) and done.parity.agreement > 0.95
    assert done.delegation.delegates == 1 and not done.delegation.left
    assert json.loads(beside(path).read_text())['proof']['calibrated'] == 0
    assert b'DequantizeLinear' in path.read_bytes() or runtime != 'onnx'


def test_scores_of_both_networks_are_counted(model, spec, images):
    spec = dataclasses.replace(spec, output='labels')
    reference = Reference(model, spec, images[:1])
    (labels,) = reference.labels
    reference.masks = [labels.astype(np.uint8)]
    proof = compare(lambda image: np.roll(labels, 3, 1), reference, spec)
    assert proof.source_miou == 100 and 0 < proof.miou < 100
    reference.masks = [np.full_like(labels, 255)]
    assert compare(lambda image: labels, reference, spec).miou is None
