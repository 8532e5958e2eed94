import torch

from .conftest import need
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
