"""An .onnx file in other engines: the same labels, and one line where one does not take it."""

import os

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
from conftest import randomise, required
from networks import segmenter

from effseg import deploy
from effseg.benchmark import engines
from effseg.benchmark.artifacts import compare_artifacts
from effseg.benchmark.engines import ENGINES, difference, open_in
from effseg.benchmark.measure import spec_of
from effseg.deploy.backends import Session, onnx
from effseg.deploy.spec import seal
from effseg.errors import ArtifactError
from effseg.fusion.segmentor import fuse

SIZE = (64, 96)
required('onnxruntime')
pytestmark = pytest.mark.medium


MODULES = {'openvino': ['openvino'], 'mnn': ['MNN'], 'ncnn': ['ncnn', 'pnnx']}


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    model = randomise(segmenter(resolution=3, head=dict(type='SegformerHead'))).float()
    path = tmp_path_factory.mktemp('engines') / 'model.onnx'
    with torch.no_grad():
        onnx.export(fuse(model, SIZE).exportable(), spec_of(model, 'onnx', SIZE), path, [])
    seal(path)
    return deploy.load(path, 1)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(params=ENGINES)
def engine(request):
    for module in MODULES[request.param]:
        required(module)
    return request.param


def with_run(artifact, run, path=None):
    return deploy.Artifact(path or artifact.path, artifact.spec, Session(None, ((), ()), lambda batch: [run(batch[0])]))


def test_gives_the_same_labels_and_a_shift_is_seen(engine, artifact, image, tmp_path):
    opened = open_in(engine, artifact, tmp_path, 1)
    agreement, largest = difference(opened, artifact, image)
    assert agreement > 0.999 and largest < 2e-3
    assert opened.labels(image).shape == SIZE
    shifted = with_run(artifact, lambda image: np.roll(artifact(image)[None], 1, 3))
    agreement, largest = difference(opened, shifted, image)
    assert agreement < 0.999 and largest > 2e-3


def test_stands_beside_the_file(engine, artifact, capsys):
    compare_artifacts([str(artifact.path)], runs=1, threads=(1,), engines=[engine])
    _, first, row = capsys.readouterr().out.strip().splitlines()
    assert 'model.onnx ' in first and f'model.onnx in {engine} ' in row and 'ms' in row
    assert float(row.split('same label ')[1].split()[0]) > 99.9


def test_what_an_engine_lacks_is_a_row(artifact, capsys, monkeypatch):
    ncnn = required('ncnn')
    monkeypatch.setattr(ncnn, 'layer_to_index', lambda kind: -1 if kind == 'Convolution' else 0)
    compare_artifacts([str(artifact.path)], runs=1, threads=(1,), engines=['ncnn'])
    _, row, _ = capsys.readouterr().out.strip().splitlines()
    assert row.endswith('does not run: ncnn has no layer Convolution')


@pytest.mark.parametrize('name', ['openvino', 'mnn', 'ncnn'])
def test_a_broken_file_is_one_line(name, artifact, tmp_path):
    for module in MODULES[name]:
        required(module)
    path, folder = tmp_path / 'model.onnx', tmp_path / 'out'
    folder.mkdir()
    path.write_bytes(artifact.path.read_bytes()[:5000])
    with pytest.raises(ArtifactError, match=name) as raised:
        open_in(name, with_run(artifact, None, path), folder, 1)
    assert len(str(raised.value).splitlines()) == 1


def test_tells_nobody_what_was_converted(artifact, tmp_path, monkeypatch):  # as MNN's own command would
    required('MNN')
    contact = ('os.system', 'subprocess.Popen', 'socket.connect')
    hook = f'import os, sys\nsys.addaudithook(lambda event, _: event in {contact} and os._exit(9))\n'
    (tmp_path / 'sitecustomize.py').write_text(hook)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    open_in('mnn', artifact, tmp_path, 1)
    (tmp_path / 'model.mnn').unlink()
    own = "import runpy, sys; sys.argv[0] = ''; runpy.run_module('MNN.tools.mnnconvert', run_name='__main__')"
    monkeypatch.setattr(engines, 'MNN_CONVERT', own)
    with pytest.raises(ArtifactError, match='ended with 9'):
        open_in('mnn', artifact, tmp_path, 1)


def test_takes_onnx_files_alone():
    with pytest.raises(ArtifactError, match='none is among model.tflite'):
        compare_artifacts(['model.tflite'], engines=['openvino'])
