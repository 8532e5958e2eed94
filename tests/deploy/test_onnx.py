import numpy as np
import pytest

import effseg
from effseg import deploy
from effseg.deploy.backends import backend
from effseg.deploy.spec import seal
from effseg.errors import ArtifactError
from effseg.fusion.layers import Attention

from .conftest import need, spec_of
from .contract import BackendContract


class TestOnnx(BackendContract):
    runtime = 'onnx'
    runtime_module = 'onnxruntime'


def test_the_attention_bias_is_kept_as_its_table(model, make_spec, tmp_path):
    need('onnx')
    import onnx

    network = effseg.fuse(model, (512, 512)).exportable()  # a table of some size: the exporter folds tiny ones itself
    layers = [layer for layer in network.modules() if isinstance(layer, Attention)]
    backend('onnx').export(network, make_spec('onnx', size=(512, 512)), tmp_path / 'model.onnx', [])
    shapes = {tuple(tensor.dims) for tensor in onnx.load(tmp_path / 'model.onnx').graph.initializer}
    assert layers and not shapes & {tuple(layer.bias.shape) for layer in layers}
    assert not any(layer.expand_when_run for layer in layers), 'the network was changed'


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
