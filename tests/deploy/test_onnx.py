import effseg
from effseg.deploy.backends import backend
from effseg.fusion.layers import Attention

from .conftest import need
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
