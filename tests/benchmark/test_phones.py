"""What benchmark programs print on phones, read back."""

import pytest

from effseg.benchmark.phones import HEADER, read
from effseg.errors import DataError

LITERT = """INFO: STARTING!
INFO: Graph: [/data/local/tmp/model_fp16.tflite]
INFO: Created TensorFlow Lite delegate for GPU.
VERBOSE: Replacing 328 out of 328 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
INFO: Initialized session in 842.225ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=13 first=115098 curr=36666 min=32079 max=115098 avg=40199.8 std=21694

INFO: count=1694 first=35688 curr=33419 min=30394 max=42335 avg=35134.9 std=1733

INFO: Inference timings in us: Init: 842225, First inference: 115098, Warmup (avg): 40199.8, Inference (avg): 35134.9
INFO: Memory footprint delta from the start of the tool (MB): init=55.4961 overall=55.4961
"""
NEWER = LITERT.replace('std=1733', 'std=1733 p5=31001 median=33419 p95=42335')
PARTLY = LITERT.replace(
    'completely executed by the delegate', 'partially executed by the delegate w/ 3 delegate kernels'
)
LOGCAT = '11-27 08:00:00.1 I tflite  : ' + LITERT.replace('\n', '\n11-27 08:00:00.1 I tflite  : ')
EXECUTORCH = """I 00:00:00.000529 executorch:executor_runner.cpp:171] Resetting threadpool with num threads = 4
I 00:00:00.011 executorch:executor_runner.cpp:292] Model file /data/local/tmp/model_fp32.pte is loaded.
I 00:00:02.311 executorch:executor_runner.cpp:480] Model executed successfully 50 time(s) in 2214.603000 ms.
I 00:00:02.311 executorch:executor_runner.cpp:489] 1 outputs:
"""
ONNX = """Setting intra_op_num_threads to 4
Session creation time cost: 0.217932 s
First inference time cost: 196 ms
Total inference time cost: 4.9481 s
Total inference requests: 50
Average inference time cost total: 98.961997 ms
Total inference run time: 0.494854 s
Number of inferences per second: 10.104
Avg CPU usage: 11 %
Peak working set size: 271122432 bytes
"""
WITH_STATISTICS = ONNX + 'Min Latency: 0.0958204 s\nP50 Latency: 0.0995086 s\nP90 Latency: 0.101519 s\n'
COREML = (
    'MLModelBenchmarker.Measurement(statistics=MLModelBenchmarker.Statistics(minimum=3.1, maximum=4.5, average=3.6, '
    'std_dev=0.4, median=3.25), samples=[3.1, 3.25, 4.5])\n'
)


@pytest.fixture
def output(tmp_path):
    def write(text, name='pixel8-gpu_model_fp16'):
        (tmp_path / f'{name}.txt').write_text(text)
        return tmp_path / f'{name}.txt'

    return write


@pytest.mark.parametrize(
    'text, row',
    [
        (LITERT, ('LiteRT', '35.1', 'mean', '1694', '-', '115.1', '842.2', 'completely')),
        (NEWER, ('LiteRT', '33.4', 'median', '1694', '-', '115.1', '842.2', 'completely')),
        (PARTLY, ('LiteRT', '35.1', 'mean', '1694', '-', '115.1', '842.2', 'partially')),
        (LOGCAT, ('LiteRT', '35.1', 'mean', '1694', '-', '115.1', '842.2', 'completely')),
        (EXECUTORCH, ('ExecuTorch', '44.3', 'mean', '50', '-', '-', '-', '-')),
        (ONNX, ('ONNX Runtime', '99.0', 'mean', '50', '-', '196.0', '217.9', '-')),
        (
            ONNX.replace('cost total', 'cost'),
            ('ONNX Runtime', '99.0', 'mean', '50', '-', '196.0', '217.9', '-'),
        ),
        (WITH_STATISTICS, ('ONNX Runtime', '99.5', 'median', '50', '101.5', '196.0', '217.9', '-')),
        (COREML, ('Core ML', '3.2', 'median', '3', '-', '-', '-', '-')),
    ],
)
def test_what_a_program_prints_is_a_row(output, text, row):
    assert read(output(text)).row() == ('pixel8-gpu_model_fp16', *row)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'no time of a run'),
        ('\x00\xff garbage 12 ms', 'no time of a run'),
        ('Failed to load model', 'no time of a run'),
        (EXECUTORCH.replace(' in 2214.603000 ms', ''), 'no time of a run'),
        (LITERT + LITERT, '2 runs'),
        (LITERT + ONNX, '2 runs'),
        (LITERT.replace('35134.9', '0'), 'took 0.0 ms'),
        (EXECUTORCH.replace('2214.603000', '1e999'), 'took inf ms'),
        (EXECUTORCH.replace('2214.603000', '12.3.4'), 'took nan ms'),
        (EXECUTORCH.replace(' 50 ', ' 0 ').replace('2214.603000', '0.0'), 'took 0.0 ms'),
    ],
)
def test_anything_else_is_refused_in_one_line(output, text, message):
    with pytest.raises(DataError, match=message) as raised:
        read(output(text))
    assert len(str(raised.value).splitlines()) == 1


def test_a_table_and_a_plot_come_of_several(tool, output, tmp_path):
    paths = [output(LITERT, 'pixel-gpu'), output(COREML, 'iphone'), output(EXECUTORCH, 'pixel-cpu')]
    outcome = tool('benchmark', '--phone', *paths, '--plot', tmp_path / 'plot.png')
    assert outcome.status in (0, None), outcome.err
    header, *rows = outcome.out.splitlines()
    assert header.split()[:3] == list(HEADER[:3]) and [row.split()[0] for row in rows] == [
        'iphone',
        'pixel-gpu',
        'pixel-cpu',
    ]
    assert (tmp_path / 'plot.png').read_bytes()[:4] == b'\x89PNG'
    for wrong in ('plot.foo', 'none/plot.png'):
        outcome = tool('benchmark', '--phone', *paths, '--plot', tmp_path / wrong)
        assert outcome.status == 2 and f'{wrong} must lie in a folder that is there, and end in' in outcome.err
    outcome = tool('benchmark', '--phone', tmp_path / 'none.txt')
    assert outcome.status == 2 and 'cannot be read: No such file' in outcome.err
