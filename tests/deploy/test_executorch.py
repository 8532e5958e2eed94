import weakref

import numpy as np
import pytest
import torch

import effseg
from effseg import deploy
from effseg.deploy.backends import executorch as backend
from effseg.deploy.program import Program
from effseg.errors import ConfigError, MissingRuntimeError, ParityError

from .conftest import SIZE, need, spec_of
from .contract import BackendContract


class TestExecuTorch(BackendContract):
    runtime = 'executorch'
    runtime_module = 'executorch.runtime'
    accelerators = frozenset({"ExecuTorch's Core ML partitioner", "ExecuTorch's QNN partitioner"})
    slow_int8 = True
    needs_torch = True
    refused = 'fp16'

    def declared(self, path):
        from executorch.runtime import Runtime

        meta = Runtime.get().load_program(path).load_method('forward').metadata
        ports = meta.input_tensor_meta(0), meta.output_tensor_meta(0)
        types = {6: 'float32'}  # of executorch.exir.schema.ScalarType
        return [(None, types[int(port.dtype())], tuple(port.sizes())) for port in ports]

    def test_it_has_the_threads_asked_for(self, exported, images, monkeypatch):
        """Which are those of all files of a process, so that they change only while none is open."""
        from executorch.extension.pybindings import portable_lib

        monkeypatch.setattr(backend, '_open', weakref.WeakSet())
        before = portable_lib._threadpool_get_thread_count()
        expected = deploy.load(exported.path)(images[0])
        for count in (before + 1, 1):
            artifact = deploy.load(exported.path, count)
            assert portable_lib._threadpool_get_thread_count() == count
            np.testing.assert_array_equal(artifact(images[0]), expected)
            with pytest.raises(ConfigError, match=f'{count + 1} threads were asked for.* run on {count}'):
                deploy.load(exported.path, count + 1)
            del artifact
        deploy.load(exported.path, before)


def test_what_other_partitioners_would_leave_is_named():
    need('executorch')
    from executorch.exir import to_edge

    from effseg.deploy.backends.executorch import _elsewhere

    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.asinh(x.relu()) + x

    graph = to_edge(torch.export.export(Odd(), (torch.zeros(2, 3),))).exported_program().graph
    left = _elsewhere([node for node in graph.nodes if node.op == 'call_function'])
    assert list(left.values()) == [{'aten.asinh.default': 1}] * len(left) and len(left) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    'precision, output, preset',
    [('fp32', 'logits', 'raw'), ('fp16', 'labels', 'raw'), ('fp16', 'logits', 'react-native-executorch')],
)
def test_core_ml_computes_it_in_one_piece(trained, scenes, tmp_path, precision, output, preset):
    need('executorch')
    need('coreml')
    with torch.no_grad():
        network = effseg.fuse(trained, size=SIZE).exportable()
    spec = spec_of('executorch', output, precision, classes=8, delegate='coreml', preset=preset)
    images, path = [image for image, _ in scenes[:4]], tmp_path / 'm.pte'
    done = deploy.export(trained, network, spec, path, images)
    assert done.delegation.delegates == 1 and not done.delegation.left and done.parity.agreement > 0.999
    assert done.interpreted and done.accelerated.parity.agreement > 0.99
    with pytest.raises(MissingRuntimeError, match='runs on iOS and macOS only'):
        deploy.load(path)
    with torch.no_grad():
        network.decoder.classifier.bias.add_(torch.arange(8.0))
    with pytest.raises(ParityError):
        deploy.export(trained, network, spec, tmp_path / 'other.pte', images)


def test_other_runtimes_have_no_core_ml_inside(model, fused, images, tmp_path):
    for others in (dict(), dict(preset='transformers.js')):
        with pytest.raises(ConfigError, match='--backend coreml is for --to executorch; onnx has no choice'):
            spec_of('onnx', delegate='coreml', **others)
    with pytest.raises(
        ConfigError, match='int8 does not exist for executorch, --backend coreml; use one of fp32, fp16'
    ):
        spec = spec_of('executorch', precision='int8', delegate='coreml')
        deploy.export(model, fused, spec, tmp_path / 'm.pte', images, images)


class Attends(torch.nn.Module):
    """torch's MultiheadAttention, whose queries and keys have one tensor of weights."""

    def __init__(self):
        super().__init__()
        self.conv, self.attention = torch.nn.Conv2d(3, 3, 16, 16), torch.nn.MultiheadAttention(3, 1)
        torch.nn.init.normal_(self.attention.in_proj_weight)

    def logits(self, x):
        x = self.conv(x)
        tokens = x.flatten(2).permute(2, 0, 1)
        return self.attention(tokens, tokens[::2], tokens[::2])[0].permute(1, 2, 0).reshape(x.shape)


@pytest.mark.parametrize('separate', [True, False])
@torch.no_grad()
def test_parts_of_one_tensor_keep_their_numbers(separate, images, tmp_path, monkeypatch):
    need('executorch')
    torch.manual_seed(0)
    network, spec = Attends().eval(), spec_of('executorch')
    if not separate:  # were this to pass, _separate could go
        monkeypatch.setattr(backend, '_separate', lambda exported: None)
    backend.export(network, spec, tmp_path / 'model.pte', [])
    batch = torch.from_numpy(images[0][None].astype('float32'))
    (came,), expected = backend.load(tmp_path / 'model.pte').run(batch.numpy()), Program(network, spec)(batch)
    assert torch.allclose(torch.from_numpy(came), expected, atol=1e-4) == separate


class Folds(torch.nn.Module):
    """A conv behind a reshape, whose map has its channels first."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 16, 16), torch.nn.Conv2d(8, 3, 1)

    def logits(self, x):
        x = self.first(x)
        return self.second(x.reshape(1, 8, x.shape[3], x.shape[2]))


class Splits(torch.nn.Module):
    """A map that two convs read, one of them behind others."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 8, 3, 2, 1)
        self.beside, self.behind = torch.nn.Conv2d(8, 3, 1), torch.nn.Conv2d(8, 3, 1)

    def logits(self, x):
        x = torch.nn.functional.gelu(self.first(x))
        y = self.behind(torch.nn.functional.gelu(self.second(x)))
        return self.beside(x) + torch.nn.functional.interpolate(y, size=x.shape[2:], mode='bilinear')


@pytest.mark.slow
@pytest.mark.parametrize('left', [True, False])
@pytest.mark.parametrize('network', [Folds, Splits])
@torch.no_grad()
def test_convs_that_would_be_wrong_stay_in_float_without_images(network, left, images, tmp_path, monkeypatch):
    need('executorch')
    torch.manual_seed(0)
    network, spec = network().eval(), spec_of('executorch', precision='int8')
    if not left:  # were this to pass, _found_in_every_run could go
        monkeypatch.setattr(backend, '_found_in_every_run', lambda graph: {node.name for node in graph.nodes})
    backend.export(network, spec, tmp_path / 'model.pte', [])
    batch = torch.from_numpy(images[0][None].astype('float32'))
    try:
        (came,) = backend.load(tmp_path / 'model.pte').run(batch.numpy())
    except RuntimeError:  # of the runtime, which refuses the shapes
        assert not left
    else:
        assert torch.allclose(torch.from_numpy(came), Program(network, spec)(batch), atol=0.05) == left
