"""Every file of a checkpoint in one command: what fails is a row, and what can be had is written and timed."""

import json

import pytest
from conftest import required
from networks import TINY
from PIL import Image

from effseg.apis import export_all as module
from effseg.apis import export_images
from effseg.deploy.backends import backend
from effseg.deploy.spec import Spec
from effseg.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images').mkdir()
    for number in range(3):
        Image.effect_noise((96, 64), 80).convert('RGB').save(tmp_path / 'images' / f'{number}.png')
    return tmp_path / 'images'


@pytest.mark.medium
def test_one_failure_is_a_row_and_the_others_are_written(tool, checkpoint, folder, tmp_path, monkeypatch):
    required('onnxruntime')
    monkeypatch.setattr(module, 'RUNS', 2)
    monkeypatch.setattr(backend('onnx'), 'PRECISIONS', ('fp32', 'fp16'))
    monkeypatch.setattr(backend('onnx'), 'MISSING', {'int8': 'taken away'}, raising=False)
    converted = []
    convert = backend('onnx').export

    def export(network, spec, *others):
        converted.append(spec.precision)
        return convert(network, spec, *others)

    monkeypatch.setattr(backend('onnx'), 'export', export)
    options = ['--size', 64, 96, '--images', folder, '-o', tmp_path / 'out', '--keep-inaccurate']
    outcome = tool('export', TINY, checkpoint, '--to', 'onnx', '--precision', 'all', *options)
    assert outcome.status in (0, None), outcome.err
    assert converted == ['fp32', 'fp16']  # which needs no fp32 twin to be proven again
    made = {file.name for file in (tmp_path / 'out').iterdir()}
    assert 'tiny_fp32.onnx' in made and 'tiny_fp32.onnx.spec.json' in made
    *_, header, first = [line for line in outcome.out.splitlines() if line.startswith(('file ', 'tiny_fp32.onnx '))]
    assert header.split()[:2] == ['file', 'MB'] and float(first.split()[2]) > 0
    assert '%' in first and json.loads((tmp_path / 'out' / 'tiny_fp32.onnx.spec.json').read_text())['proof']
    assert 'onnx int8: no file. --precision int8 does not exist for onnx (taken away)' in outcome.out


def test_what_cannot_be_written_is_named(tmp_path):
    def write(runtime, precision):
        raise ConfigError(f'{precision} of {runtime} breaks')

    exports = module.write_all(write, ['onnx', 'executorch'], ['fp16'])
    assert exports.done == () and set(exports.failed) == {('onnx', 'fp16'), ('executorch', 'fp16')}
    assert str(exports).splitlines()[1:] == [
        'onnx fp16: no file. fp16 of onnx breaks',
        'executorch fp16: no file. fp16 of executorch breaks',
    ]


def test_without_images_every_file_is_a_row(tool, checkpoint, tmp_path):
    options = ['--cfg-options', f'data_root={tmp_path}', f'val_dataloader.dataset.data_root={tmp_path / "none"}']
    outcome = tool('export', TINY, checkpoint, '--to', 'litert', '--precision', 'all', *options)
    assert outcome.status in (0, None), outcome.err
    for precision in ('fp32', 'fp16', 'int8'):
        assert f"litert {precision}: no file. the config's val_dataloader gives no images" in outcome.out


def test_without_images_to_calibrate_on_int8_is_of_weights_alone(monkeypatch, capsys):
    def missing(*arguments, **options):
        raise DataError('there is no folder')

    monkeypatch.setattr(export_images.ExportImages, '_read', missing)
    images = export_images.ExportImages(None, Spec.unnamed('onnx', (64, 96)), None, 30, 64)
    assert images.calibration == images.calibration == []
    assert (
        capsys.readouterr().out == 'nothing to calibrate int8 on, so no image chooses its ranges: there is no folder\n'
    )
    with pytest.raises(DataError):
        _ = images.proof
