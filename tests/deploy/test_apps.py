"""The libraries that apps are built on open what ``--for`` writes, and see what effseg sees: transformers.js in Node,
MediaPipe Tasks in an environment of its own, and react-native-executorch as far as it runs without a phone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effseg
from effseg import deploy
from effseg.demo.scenes import draw_scene
from effseg.deploy import presets

from .conftest import SIZE, need, spec_of

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
MEDIAPIPE = """
import sys
import numpy as np
from mediapipe import Image
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions
options = vision.ImageSegmenterOptions(BaseOptions(model_asset_path=sys.argv[1]), output_category_mask=True)
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    result = segmenter.segment(Image.create_from_file(sys.argv[2]))
    np.squeeze(result.category_mask.numpy_view()).astype(np.uint8).tofile(sys.argv[3])
    sums = sum(mask.numpy_view() for mask in result.confidence_masks)
    assert np.abs(sums - 1).max() < 1e-5
    print(*segmenter.labels, sep='\\n')
"""


def fetched(*command, cwd) -> None:
    """Fetches a library; skips where there is no network, fails in CI."""
    program = shutil.which(command[0])
    done = program and subprocess.run([program, *command[1:]], cwd=cwd, capture_output=True, text=True)
    if not done or done.returncode:
        why = f'{" ".join(command)}: {done.stderr[-300:] if done else "no such program"}'
        pytest.fail(why) if os.environ.get('CI') else pytest.skip(why)


def ran(*command, cwd) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def exported(trained, scenes, tmp_path_factory):
    """Writes a preset's file of the eight classes, and gives it."""
    with torch.no_grad():
        network = effseg.fuse(trained, size=SIZE).exportable()

    def call(preset: str, name: str):
        to, output, fit = presets.settle(preset, 'executorch' if preset == 'raw' else None, None, None)
        need(to)
        spec = spec_of(to, output, classes=8, fit=fit, preset=preset)
        out = tmp_path_factory.mktemp('app') / name
        return deploy.export(trained, network, spec, out, [image for image, _ in scenes[:2]])

    return call


@pytest.fixture
def photos(scenes, tmp_path) -> list[Path]:
    """One of the file's size, and one that the library resizes."""
    large = draw_scene((96, 240), np.random.default_rng(1))[0]
    for name, image in (('same.png', scenes[5][0]), ('large.png', large)):
        Image.fromarray(image).save(tmp_path / name)
    return [tmp_path / 'same.png', tmp_path / 'large.png']


def agreement(done, photo: Path, labels: Path) -> float:
    expected = deploy.load(done.path).labels(np.asarray(Image.open(photo)))
    assert len(np.unique(expected)) > 3
    return float((np.fromfile(labels, np.uint8).reshape(expected.shape) == expected).mean())


def test_transformers_js_segments(exported, photos, tmp_path):
    # without the script of onnxruntime-node that fetches CUDA
    fetched('npm', 'install', '--ignore-scripts', '--no-save', '@huggingface/transformers@4.3.1', cwd=tmp_path)
    done = exported('transformers.js', 'app')
    for photo, least in zip(photos, (0.9999, 0.8)):  # it shrinks photos by another filter
        said = ran('node', HERE / 'segment.mjs', done.path.parents[1], photo, 'labels', cwd=tmp_path)
        assert agreement(done, photo, tmp_path / 'labels') >= least
        assert {line.rpartition(' ')[0] for line in said.splitlines()} <= set(done.spec.classes)


def test_mediapipe_segments(exported, photos, tmp_path):
    # apart: it brings an OpenCV that replaces the one here
    ran(sys.executable, '-m', 'venv', tmp_path / 'venv', cwd=tmp_path)
    python = str(tmp_path / 'venv/bin/python')
    fetched(python, '-m', 'pip', 'install', '-q', 'mediapipe==1.2.3', cwd=tmp_path)
    done = exported('mediapipe', 'model.tflite')
    for photo, least in zip(photos, (0.9999, 0.7)):
        said = ran(python, '-c', MEDIAPIPE, done.path, photo, tmp_path / 'labels', cwd=tmp_path)
        assert agreement(done, photo, tmp_path / 'labels') >= least
        assert said.splitlines() == list(done.spec.classes)


def test_react_native_executorch_takes_it_and_refuses_others(exported, tmp_path):
    package = 'react-native-executorch-0.10.2.tgz'
    fetched('npm', 'pack', 'react-native-executorch@0.10.2', cwd=tmp_path)
    shutil.unpack_archive(tmp_path / package, tmp_path)

    def said(path: Path, classes) -> str:
        given = json.dumps(methods(path)), json.dumps(classes)
        return ran('node', HERE / 'schema.mjs', 'package', *given, cwd=tmp_path)

    done = exported('react-native-executorch', 'model.pte')
    assert said(done.path, done.spec.classes) == 'taken\n'
    assert 'Model outputs 8 classes, but 7' in said(done.path, done.spec.classes[1:])
    assert said(exported('raw', 'raw.pte').path, done.spec.classes).startswith('SCHEMA_MISMATCH')


def methods(path: Path) -> dict:
    """What a file declares of ``forward``, in the words of the library's schema."""
    from executorch.runtime import Runtime

    meta = Runtime.get().load_program(path).load_method('forward').metadata
    kinds = {3: 'int32', 6: 'float32'}  # ExecuTorch's numbers of types

    def tensor(port) -> dict:
        shape = [dict(kind='constant', value=side) for side in port.sizes()]
        return dict(kind='Tensor', dtype=kinds[int(port.dtype())], shape=shape)

    ports = dict(inputs=[tensor(meta.input_tensor_meta(0))], outputs=[tensor(meta.output_tensor_meta(0))])
    return dict(forward=dict(ports, runtimeConstraints=[]))
