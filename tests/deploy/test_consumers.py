"""What docs/deploy.md shows to an app without effseg gives the labels that effseg gives."""

import numpy as np
import pytest
from pages import ROOT, blocks
from PIL import Image

from effseg import deploy
from effseg.deploy import backends
from effseg.deploy.fit import content_of, labels_of
from effseg.deploy.spec import beside, seal, write_beside

from .conftest import need, spec_of

PAGE = ROOT / 'docs' / 'deploy.md'
RUNTIME = 'session = '  # the first of two lines that the other runtimes take the place of


def program(runtime: str) -> str:
    (whole,) = blocks(PAGE, 'python consumer')
    if runtime == 'onnx':
        return whole
    (own,) = blocks(PAGE, f'python {runtime}')
    lines = whole.replace('import onnxruntime\n', '').replace('.onnx', backends.SUFFIXES[runtime]).splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith(RUNTIME)]
    return '\n'.join([*lines[:first], own, *lines[first + 2 :]])


@pytest.mark.parametrize(
    'runtime', ['onnx', *(pytest.param(name, marks=pytest.mark.slow) for name in ('litert', 'executorch', 'torch'))]
)
def test_a_consumer_without_effseg(runtime, fused, images, tmp_path, monkeypatch):
    need(runtime)
    path = tmp_path / f'model{backends.SUFFIXES[runtime]}'
    spec = spec_of(runtime, 'labels')
    backends.backend(runtime).export(fused, spec, path, [])
    seal(path)
    write_beside(beside(path), spec, path, {})
    monkeypatch.chdir(tmp_path)
    artifact = deploy.load(path)
    code = program(runtime)
    assert 'effseg' not in code
    for photo in (np.concatenate([images[0], images[1]]), images[2], images[3][:1, :7]):
        Image.fromarray(photo).save('street.png')
        names: dict = {}
        exec(code.replace('street.jpg', 'street.png'), names)
        np.testing.assert_array_equal(names['labels'], artifact.labels(photo))
    assert len(np.unique(artifact.labels(images[2]))) > 1


def test_the_consumer_of_core_ml_is_a_program():
    code = program('coreml')
    compile(code, 'deploy.md', 'exec')
    assert (
        "MLModel('model.mlpackage').predict({'image': image})['labels']" in code
    )  # as tests/deploy/test_coreml.py has it


@pytest.mark.parametrize('fit', ['letterbox', 'stretch'])
@pytest.mark.parametrize('changes', [{}, dict(align_corners=True), dict(classes=2, threshold=0.4), dict(grid=(2, 3))])
@pytest.mark.parametrize('size', [(100, 77), (20, 200), (1, 1)])
def test_logits_become_labels_as_the_page_says(fit, changes, size):
    spec = spec_of('onnx', fit=fit, **changes)
    logits = np.random.default_rng(0).standard_normal((spec.channels, *spec.grid)).astype(np.float32)
    names = dict(np=np)
    exec(blocks(PAGE, 'python logits')[0], names)
    found = names['labels_of'](logits, spec.as_dict(), content_of(size, spec), size)
    expected = labels_of(np.zeros((*size, 3), np.uint8), spec, lambda image: logits)
    assert found.shape == size and (found == expected).mean() > 0.999  # sums of float32 may tie


def test_a_file_of_another_fit_is_seen(tmp_path):
    """The page's labels are those of the fit, not of any resize."""
    spec = spec_of('onnx', fit='letterbox')
    logits = np.random.default_rng(0).standard_normal((3, 16, 24)).astype(np.float32)
    names = dict(np=np)
    exec(blocks(PAGE, 'python logits')[0], names)
    stretched = names['labels_of'](logits, spec.as_dict(), (64, 96), (200, 100))
    letterboxed = labels_of(np.zeros((200, 100, 3), np.uint8), spec, lambda image: logits)
    assert (stretched == letterboxed).mean() < 0.9
