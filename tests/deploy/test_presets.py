"""What ``--for`` writes, with the runtimes played by torch: numbers, names and the files beside. The libraries
themselves open such files in test_apps.py."""

import dataclasses
import json

import numpy as np
import pytest

import effseg
from effseg import deploy
from effseg.deploy import exporting, presets
from effseg.deploy.interface import given, taken
from effseg.deploy.program import Program
from effseg.deploy.spec import Spec
from effseg.errors import ConfigError, ParityError

from . import conftest
from .conftest import SIZE, spec_of

HEIGHT, WIDTH = SIZE
OF = {'transformers.js': 'onnx', 'mediapipe': 'litert', 'react-native-executorch': 'executorch', 'litert': 'litert'}


def spec_for(preset: str, **changes) -> Spec:
    to, output, fit = presets.settle(preset, None, None, None)
    return spec_of(to, output, fit=fit, preset=preset, **changes)


def path_for(preset: str, folder):
    suffix = '' if presets.PRESETS[preset].place else {'litert': '.tflite', 'executorch': '.pte'}[OF[preset]]
    return folder / f'model{suffix}'


@pytest.fixture
def play(in_torch, monkeypatch):
    monkeypatch.setattr(exporting, 'accelerated', lambda *given: None)


@pytest.mark.parametrize(
    'preset, image, result, written',
    [
        (
            'transformers.js',
            ('pixel_values', 'float32', [1, 3, HEIGHT, WIDTH]),
            ('logits', 'float32', [1, 3, HEIGHT // 4, WIDTH // 4]),
            ['config.json', 'onnx/model.onnx', 'onnx/model.onnx.spec.json', 'preprocessor_config.json'],
        ),
        (
            'mediapipe',
            ('image', 'float32', [1, HEIGHT, WIDTH, 3]),
            ('logits', 'float32', [1, HEIGHT, WIDTH, 3]),
            ['../model.tflite', '../model.tflite.spec.json'],
        ),
        (
            'react-native-executorch',
            (None, 'float32', [1, 3, HEIGHT, WIDTH]),
            (None, 'float32', [1, 3, HEIGHT, WIDTH]),
            ['../model.pte', '../model.pte.spec.json'],
        ),
        (
            'litert',
            ('image', 'float32', [1, HEIGHT, WIDTH, 3]),
            ('labels', 'float32', [1, HEIGHT, WIDTH]),
            ['../model.labels.txt', '../model.tflite', '../model.tflite.spec.json'],
        ),
    ],
)
def test_a_preset_is_proven_and_says_what_it_is(play, model, fused, images, tmp_path, preset, image, result, written):
    out = path_for(preset, tmp_path)
    done = deploy.export(model, fused, spec_for(preset), out, images[:2])
    assert done.parity.agreement == 1 and done.path == presets.artifact_path(done.spec, out)
    folder = tmp_path / 'model'
    record = folder / 'effseg-files-7d41c0be93.json'
    made = {file for file in tmp_path.rglob('*') if file.is_file()} - {record}
    assert made == {(folder / name).resolve() for name in written}
    ports = json.loads((done.path.parent / f'{done.path.name}.spec.json').read_text())
    for (port,), wanted in ((ports['inputs'], image), (ports['outputs'], result)):
        assert (port['name'], port['dtype'], port['shape']) == wanted


def test_names_of_somebody_else_stay_and_those_of_an_earlier_export_are_replaced(play, model, fused, images, tmp_path):
    out, names = path_for('litert', tmp_path), tmp_path / 'model.labels.txt'
    names.write_text('mine')
    with pytest.raises(ConfigError, match=r'model\.labels\.txt is there, and tools/export\.py did not write it'):
        deploy.export(model, fused, spec_for('litert'), out, images[:2])
    assert names.read_text() == 'mine' and not out.exists()
    names.unlink()
    deploy.export(model, fused, dataclasses.replace(spec_for('litert'), preset='raw'), out, images[:2])
    names.write_text('mine, beside a raw file, which has none')
    with pytest.raises(ConfigError, match='did not write it'):
        deploy.export(model, fused, spec_for('litert'), out, images[:2])
    names.unlink()
    deploy.export(model, fused, spec_for('litert'), out, images[:2])
    names.write_text('of an earlier export')
    deploy.export(model, fused, spec_for('litert'), out, images[:2])
    assert len(names.read_text().splitlines()) == len(spec_for('litert').classes)


def test_what_transformers_reads(play, model, fused, images, tmp_path):
    for precision, name in (('fp32', 'model'), ('fp16', 'model_fp16')):
        spec = spec_for('transformers.js', precision=precision)
        deploy.export(model, fused, spec, tmp_path / 'app', images[:1])  # into the folder of the last one
        assert (tmp_path / f'app/onnx/{name}.onnx').is_file()
        config = json.loads((tmp_path / 'app/config.json').read_text())
        assert config['transformers.js_config'] == {'dtype': precision}
    assert config['id2label'] == {'0': 'class 0', '1': 'class 1', '2': 'class 2'}
    reading = json.loads((tmp_path / 'app/preprocessor_config.json').read_text())
    assert reading['size'] == dict(height=HEIGHT, width=WIDTH) and not reading['do_normalize']


def test_the_numbers_are_laid_out_as_the_spec_says(images):
    spec = spec_for('transformers.js')
    pixels = given(images[0], spec)
    assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels[0].transpose(1, 2, 0), images[0])
    logits = np.random.default_rng(0).standard_normal((1, HEIGHT, WIDTH, 3)).astype(np.float32)
    np.testing.assert_array_equal(taken([logits], spec_for('mediapipe')), logits[0].transpose(2, 0, 1))


def sabotaged(monkeypatch, change):
    monkeypatch.setattr(conftest, 'Program', change)


def test_logits_resized_otherwise_than_the_model_does_are_refused(play, model, fused, images, tmp_path, monkeypatch):
    sabotaged(monkeypatch, lambda net, spec, axes: Program(net, dataclasses.replace(spec, align_corners=True), axes))
    with pytest.raises(ParityError):
        deploy.export(model, fused, spec_for('mediapipe'), path_for('mediapipe', tmp_path), images[:2])
    assert not list(tmp_path.iterdir())


class Exchanged(Program):
    def forward(self, image):
        return super().forward(image).flip(1)


def test_one_logit_becomes_two_that_the_largest_decides(binary, images, play, tmp_path, monkeypatch):
    model, network, head = binary
    spec = spec_for('react-native-executorch', **head)
    done = deploy.export(model, network, spec, tmp_path / 'model.pte', images[:3])
    assert done.spec.result_shape == (2, *SIZE) and len(done.parity.classes) == 2
    sabotaged(monkeypatch, Exchanged)
    with pytest.raises(ParityError):
        deploy.export(model, network, spec, tmp_path / 'other.pte', images[:3])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(preset='mediapipe', to='onnx'), '--to onnx contradicts --for mediapipe, which takes --to litert'),
        (dict(preset='mediapipe', to='all'), '--to all contradicts --for mediapipe, which takes --to litert'),
        (dict(preset='transformers.js', output='labels'), '--output labels contradicts --for transformers.js'),
        (dict(preset='vision', fit='letterbox'), '--fit letterbox contradicts --for vision, which takes --fit stretch'),
        (dict(preset='raw'), '--to RUNTIME is missing'),
        (dict(preset='flutter'), '--for flutter is unknown; use one of raw, react-native-executorch'),
    ],
)
def test_what_contradicts_a_preset_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as raised:
        effseg.export('no config', 'no checkpoint', **options)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_the_library_could_not_use_is_refused():
    with pytest.raises(ConfigError, match='150 classes at 512x512 are 157 MB, several times over; give a --size of'):
        spec_for('react-native-executorch', classes=150, size=(512, 512))
    assert spec_for('react-native-executorch', classes=19, size=(1024, 1024)).grid == (1024, 1024)
    with pytest.raises(ConfigError, match='without align_corners'):
        spec_for('transformers.js', align_corners=True)


@pytest.mark.parametrize('name', ['model.onnx', 'a file'])
def test_a_file_in_the_place_of_a_folder_is_refused(play, model, fused, images, tmp_path, name):
    (tmp_path / 'a file').write_text('mine')
    with pytest.raises(ConfigError, match='is the name of a file, and --for transformers.js writes a folder'):
        deploy.export(model, fused, spec_for('transformers.js'), tmp_path / name, images[:1])


def test_no_file_of_the_users_is_replaced(play, model, fused, images, tmp_path):
    (tmp_path / 'config.json').write_text('mine')
    with pytest.raises(ConfigError, match='config.json is there and was not written by effseg'):
        deploy.export(model, fused, spec_for('transformers.js'), tmp_path, images[:1])
    assert [file.name for file in tmp_path.iterdir()] == ['config.json']
