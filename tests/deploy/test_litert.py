import pytest
import torch

import effseg
from effseg import deploy
from effseg.deploy.backends.gpu import left_by_gpu

from .conftest import SIZE, need, spec_of
from .contract import BackendContract


class TestLiteRT(BackendContract):
    runtime = 'litert'
    runtime_module = 'ai_edge_litert.interpreter'
    accelerators = frozenset({"LiteRT's GPU delegate"})
    slow_int8 = True

    def declared(self, path):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        runner = interpreter.get_signature_runner()
        ports = {**runner.get_input_details(), **runner.get_output_details()}
        assert [port['name'] for port in ports.values()] == list(ports)  # for readers of tensors, not of signatures
        return [(name, port['dtype'].__name__, tuple(port['shape'].tolist())) for name, port in ports.items()]


@pytest.mark.medium
def test_what_the_gpu_would_leave_is_named(tmp_path):
    need('litert')
    import litert_torch

    from effseg.deploy.backends.litert import GPU, _delegation, _interpreter

    class Whole(torch.nn.Module):
        def forward(self, x):
            return torch.floor(x).argmax(3).to(torch.int32)

    litert_torch.convert(Whole().eval(), (torch.zeros(1, 4, 4, 3),)).export(str(tmp_path / 'm.tflite'))
    assert _delegation(_interpreter(tmp_path / 'm.tflite')).elsewhere == {GPU: {'ARG_MAX': 1}}


def test_a_slice_of_five_axes_is_left_by_the_gpu():
    taken = [('CONV_2D', (1, 4, 4, 3)), ('SLICE', (1, 4, 4, 3)), ('PAD', (4, 4, 3))]
    assert left_by_gpu(taken) == {}
    assert left_by_gpu([*taken, ('SLICE', (1, 2, 4, 4, 3)), ('RELU_0_TO_1', ())]) == {'SLICE': 1, 'RELU_0_TO_1': 1}


@pytest.mark.medium
def test_fp16_takes_less_room_and_stays_one_delegate(trained, scenes, tmp_path):
    need('litert')
    with torch.no_grad():
        network = effseg.fuse(trained, size=SIZE).exportable()
    images, weights = [image for image, _ in scenes[:4]], sum(p.numel() for p in network.parameters() if p.dim() == 4)
    done = {}
    for precision in ('fp32', 'fp16'):
        spec = spec_of('litert', 'labels', precision, classes=8)
        done[precision] = deploy.export(trained, network, spec, tmp_path / f'{precision}.tflite', images)
    half = done['fp16']
    assert half.delegation.delegates == 1 and not half.delegation.left and half.accelerated.parity.agreement > 0.99
    assert done['fp32'].megabytes - half.megabytes > 1.5 * weights / 1e6
    assert deploy.load(half.path)(images[0]).shape == SIZE
