import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from networks import ROOT, TRAINING

import effseg
from effseg import deploy
from effseg.deploy.backends import backend
from effseg.deploy.spec import seal
from effseg.errors import ArtifactError
from effseg.fusion.attention import Attention, HeadMix
from effseg.fusion.layers import PoolMixer

from .conftest import need, spec_of
from .contract import WITHOUT_TORCH, BackendContract


class TestOnnx(BackendContract):
    runtime = 'onnx'
    runtime_module = 'onnxruntime'

    def declared(self, path):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        types = {'tensor(uint8)': 'uint8', 'tensor(int32)': 'int32', 'tensor(float)': 'float32'}
        ports = (*session.get_inputs(), *session.get_outputs())
        return [(port.name, types[port.type], tuple(port.shape)) for port in ports]


def test_the_file_has_the_forms_of_its_runtime_and_the_network_keeps_its_own(model, make_spec, tmp_path):
    need('onnx')
    import onnx

    network = effseg.fuse(model, (512, 512)).exportable()  # a table of some size: the exporter folds tiny ones itself
    layers = [layer for layer in network.modules() if isinstance(layer, Attention)]
    heads = layers[0].heads
    layers[0].mix_in = HeadMix(torch.randn(heads, heads, 1, 1)).set_portable().to(layers[0].bias.dtype)
    backend('onnx').export(network, make_spec('onnx', size=(512, 512)), tmp_path / 'model.onnx', [])
    graph = onnx.load(tmp_path / 'model.onnx').graph
    shapes = {tuple(tensor.dims) for tensor in graph.initializer}
    assert layers and not shapes & {tuple(layer.bias.shape) for layer in layers}
    assert (heads, heads, 1, 1) not in shapes, 'talking heads are a conv'
    mixers = [layer for layer in network.modules() if isinstance(layer, PoolMixer)]
    assert mixers and [node.op_type for node in graph.node].count('AveragePool') == len(mixers)
    changed = [*(layer.expand_when_run for layer in layers), *(layer.as_mean for layer in mixers)]
    assert not any(changed), 'the network was changed'


@pytest.mark.slow
def test_a_fresh_install_of_the_runtime_alone_runs_a_file(model, fused, images, tmp_path):
    path, source, python = tmp_path / 'model.onnx', tmp_path / 'source', tmp_path / 'venv/bin/python'
    done = deploy.export(model, fused, spec_of('onnx', 'labels'), path, images)
    # building leaves folders behind
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.*', 'work_dirs', 'data', 'build'))
    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'venv'], check=True)
    subprocess.run([python, '-m', 'pip', 'install', '-q', f'{source}[onnx]'], check=True)
    np.save(tmp_path / 'image.npy', images[0])
    run = dict(capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': ''})
    said = subprocess.run([python, '-c', WITHOUT_TORCH, path, 'result.npy', 'image.npy'], **run)
    assert said.returncode == 0, said.stderr
    np.testing.assert_array_equal(np.load(tmp_path / 'result.npy'), deploy.load(done.path)(images[0]))
    listed = subprocess.run([python, '-m', 'pip', 'list', '--format', 'freeze'], **run).stdout.lower()
    assert 'effseg==' in listed and not {name for name in TRAINING if f'{name}==' in listed}
    command = tmp_path / 'venv/bin/effseg'
    said = subprocess.run([command, 'train', 'a.py'], **run)
    assert said.returncode == 2 and said.stderr.startswith('error: ') and "'effseg[mmseg]'" in said.stderr
    said = subprocess.run(
        [tmp_path / 'venv/bin/effseg', 'web_demo', path, '--out', 'site', '--runtime', 'no.tgz'], **run
    )
    assert said.returncode == 2 and 'no.tgz' in said.stderr, said.stderr


@pytest.mark.parametrize('kind, shape', [('UINT8', ['n', 64, 96, 3]), ('FLOAT', [1, 64, 96, 3]), ('UINT8', None)])
def test_other_inputs_are_one_error(tmp_path, kind, shape):
    need('onnx')
    import onnx
    from onnx import TensorProto, helper

    spec = spec_of('onnx')
    value = onnx.numpy_helper.from_array(np.zeros((1, *spec.result_shape), np.float32), 'value')
    inputs = [helper.make_tensor_value_info('image', getattr(TensorProto, kind), shape)] if shape else []
    output = helper.make_tensor_value_info('logits', TensorProto.FLOAT, value.dims)
    graph = helper.make_graph([helper.make_node('Identity', ['value'], ['logits'])], 'g', inputs, [output], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    helper.set_model_props(model, {'effseg': spec.to_json()})
    onnx.save(model, tmp_path / 'model.onnx')
    seal(tmp_path / 'model.onnx')
    with pytest.raises(ArtifactError, match='takes') as raised:
        deploy.load(tmp_path / 'model.onnx')
    assert len(str(raised.value).splitlines()) == 1
