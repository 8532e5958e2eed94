"""The probability of every label: in the file and on the host it is the softmax of the model's own logits, and a file
that returns anything else is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effseg import deploy
from effseg.deploy import backends, exporting
from effseg.deploy.fit import confident_of, labels_of
from effseg.deploy.program import Program
from effseg.deploy.reference import Reference
from effseg.deploy.spec import beside
from effseg.errors import ConfigError, ParityError

from . import conftest
from .conftest import SIZE, need, spec_of

BOTH = 'labels+confidence'


@pytest.fixture(params=['many classes', 'one logit'])
def network(request, model, fused, binary):
    """A model, its fused form, and what a spec says of its head."""
    return binary if request.param == 'one logit' else (model, fused, {})


@pytest.fixture
def play(in_torch, monkeypatch):
    monkeypatch.setattr(exporting, 'accelerated', lambda *given: None)


class Tempered(Program):
    """Divides what the softmax is of, which no label shows."""

    def forward(self, image):
        labels, confidence = super().forward(image)
        odds = (confidence / (1 - confidence)).sqrt()
        return labels, odds / (1 + odds)


class AtAQuarter(Program):
    """Takes the softmax before the resize: right inside of regions, too sure between them."""

    def forward(self, image):
        labels, confidence = super().forward(image)
        small = F.max_pool2d(confidence[:, None], 4)
        return labels, F.interpolate(small, confidence.shape[1:], mode='bilinear')[:, 0]


class OfTheOthers(Program):
    def forward(self, image):
        labels, confidence = super().forward(image)
        return labels, 1 - confidence


class NoNumbers(Program):
    def forward(self, image):
        labels, confidence = super().forward(image)
        return labels, confidence / 0


@pytest.mark.parametrize('runtime', ['onnx', 'litert'])  # by argmax and by arithmetic
def test_the_proof_covers_confidence(play, network, images, tmp_path, monkeypatch, runtime):
    model, fused, head = network
    spec = spec_of(runtime, BOTH, **head)
    path = tmp_path / f'm{backends.SUFFIXES[runtime]}'
    done = deploy.export(model, fused, spec, path, images[:3])
    assert done.parity.agreement > 0.999 and done.parity.confidence[0] < 1e-4 and len(done.parity.classes) > 1
    assert 'confidence differs by' in str(done) and '"confidence": [' in beside(path).read_text()
    for sabotage in (Tempered, AtAQuarter, OfTheOthers, NoNumbers):
        monkeypatch.setattr(conftest, 'Program', sabotage)
        with pytest.raises(ParityError, match='confidence of the artifact is not the softmax|are not numbers'):
            deploy.export(model, fused, spec, tmp_path / f'other{path.suffix}', images[:3])
            pytest.fail(f'{sabotage.__name__} was accepted')


def test_half_precision_sees_the_same_labels_and_their_confidence(network, images):
    model, fused, head = network
    spec = spec_of('litert', BOTH, **head)
    program = backends.backend('litert').in_torch(fused, spec, None)
    proof = exporting.accelerated(program, Reference(model, spec, images[:1]), spec)
    assert proof.parity.agreement > 0.95 and proof.parity.confidence[1] < 0.01


@pytest.mark.parametrize('fit', ['letterbox', 'stretch', 'windows'])
@pytest.mark.parametrize('changes', [{}, dict(align_corners=True), dict(classes=2, threshold=0.4)])
def test_the_host_gives_the_softmax_of_the_resized_logits(fit, changes):
    spec = spec_of('onnx', fit=fit, **changes)
    logits = 3 * np.random.default_rng(0).standard_normal((spec.channels, *spec.grid)).astype(np.float32)
    photo = np.zeros((64, 96, 3), np.uint8)
    labels, confidence = confident_of(photo, spec, lambda image: logits)
    full = F.interpolate(torch.from_numpy(logits)[None], SIZE, mode='bilinear', align_corners=spec.align_corners)[0]
    likely = full.softmax(0) if len(full) > 1 else torch.cat([1 - full.sigmoid(), full.sigmoid()])
    np.testing.assert_array_equal(labels, labels_of(photo, spec, lambda image: logits))
    expected = likely.gather(0, torch.from_numpy(labels)[None].long())[0].numpy()
    np.testing.assert_allclose(confidence, expected, atol=1e-5)


@pytest.mark.parametrize('fit', ['letterbox', 'stretch', 'windows'])
def test_labels_and_confidence_of_a_file_go_the_same_way(fit):
    spec = spec_of('onnx', BOTH, fit=fit)
    labels = np.arange(64 * 96).reshape(SIZE).astype(np.int32)
    photo = np.zeros((70, 130, 3), np.uint8)
    found, confidence = confident_of(photo, spec, lambda image: (labels, labels.astype(np.float32)))
    assert found.shape == (70, 130) and confidence.dtype == np.float32
    np.testing.assert_array_equal(found, confidence)
    np.testing.assert_array_equal(found, labels_of(photo, spec, lambda image: (labels, labels)))


def test_labels_alone_have_no_confidence(tmp_path):
    session = backends.Session(None, (), lambda array: [array])
    artifact = deploy.Artifact(tmp_path / 'model.onnx', spec_of('onnx', 'labels'), session)
    with pytest.raises(ConfigError, match='model.onnx returns labels alone.*--output labels.confidence'):
        artifact.confident(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize('runtime', backends.SUFFIXES)
def test_every_runtime_gives_confidence(network, images, tmp_path, runtime):
    need(runtime)
    model, fused, head = network
    path = tmp_path / f'm{backends.SUFFIXES[runtime]}'
    done = deploy.export(model, fused, spec_of(runtime, BOTH, **head), path, images[:2])
    assert done.parity.confidence[0] < 1e-4 and done.delegation.delegates == 1 and not done.delegation.left
    if runtime != 'coreml':
        labels, confidence = deploy.load(path)(images[0])
        assert labels.dtype == np.int32 and confidence.shape == labels.shape == SIZE
