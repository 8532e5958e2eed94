"""An exported .onnx file in other engines, by their own converters: no format of ours, and no proof but a comparison
with ONNX Runtime, which the file was proven in.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..deploy.artifact import Artifact
from ..deploy.backends import Session, require
from ..deploy.spec import Spec
from ..errors import ArtifactError

# the function behind MNN's command mnnconvert, which itself installs a package and tells its makers of every conversion
MNN_CONVERT = 'import sys, MNN, _tools; _tools.mnnconvert(sys.argv)'
Run = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 to what the file returns, batch included


def open_in(engine: str, artifact: Artifact, folder: Path, threads: int) -> Artifact:
    """The same file in another engine.

    Args:
        engine: of :data:`ENGINES`.
        artifact: an .onnx file, opened.
        folder: for what the engine's converter writes; what is there already is taken.
        threads: of the engine.

    Raises:
        ArtifactError: with what the engine or its converter says.
        MissingRuntimeError: when the engine is not installed.
    """
    path, spec = artifact.path, artifact.spec
    if path.suffix != '.onnx':
        raise ArtifactError(f'{path.name} is no ONNX file, and {engine} takes no other')
    if spec.preset != 'raw' or spec.confident:
        raise ArtifactError(f'{path.name} is for {spec.preset}, {spec.output}; {engine} takes raw files of one output')
    run = ENGINES[engine](path, spec, folder, threads)
    expected = (1, *spec.result_shape)
    came = run(np.zeros(spec.image_shape, np.uint8)).shape
    if came != expected:
        raise ArtifactError(f'{engine} returns {came} where the file says {expected}')
    return Artifact(path, spec, Session(None, ((1, *spec.image_shape), expected), lambda batch: [run(batch[0])]))


def difference(artifact: Artifact, own: Artifact, image: np.ndarray) -> tuple[float, float | None]:
    """What two files of one network differ by.

    Args:
        artifact, own: in another engine, and in ONNX Runtime.
        image: (H, W, 3) uint8 of their size.

    Returns:
        The share of pixels, or of cells of logits, with the same label; and the largest difference of a logit relative
        to the largest logit, None for files of labels.
    """
    came, expected = artifact(image), own(image)
    if own.spec.output == 'labels':
        return float((came == expected).mean()), None
    largest = float(np.abs(came - expected).max() / max(np.abs(expected).max(), 1e-30))
    same = came.argmax(0) == expected.argmax(0) if len(came) > 1 else (came > 0) == (expected > 0)
    return float(same.mean()), largest


def _openvino(path: Path, spec: Spec, folder: Path, threads: int) -> Run:
    require('engines', 'openvino')
    import openvino

    settings = {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}
    try:
        network = openvino.Core().compile_model(str(path), 'CPU', settings)
    except Exception as error:  # OpenVINO's are RuntimeErrors of its own
        raise ArtifactError(f'openvino does not read {path.name}: {_last_line(str(error))}') from error
    return lambda image: network([image[None]])[0]


def _mnn(path: Path, spec: Spec, folder: Path, threads: int) -> Run:
    require('engines', 'MNN')
    import MNN

    written = folder / f'{path.stem}.mnn'
    if not written.exists():
        options = ['-f', 'ONNX', '--modelFile', path, '--MNNModel', written, '--bizCode', 'effseg']
        _convert('mnn', [sys.executable, '-c', MNN_CONVERT, *options], written)
    settings = {'backend': 'CPU', 'numThread': threads, 'precision': 'high'}
    runtime = MNN.nn.create_runtime_manager((settings,))
    network = MNN.nn.load_module_from_file(
        str(written), ['image'], [spec.output], runtime_manager=runtime, shape_mutable=False
    )

    def run(image: np.ndarray) -> np.ndarray:
        x = MNN.expr.const(image, [1, *image.shape], MNN.expr.NHWC, MNN.expr.uint8)
        return np.array(MNN.expr.convert(network.forward([x])[0], MNN.expr.NCHW).read())

    return run


def _ncnn(path: Path, spec: Spec, folder: Path, threads: int) -> Run:
    require('engines', 'ncnn', 'pnnx')
    import ncnn
    import pnnx

    copy, graph = folder / path.name, folder / f'{path.stem}.ncnn.param'
    if not graph.exists():
        copy.write_bytes(path.read_bytes())  # the converter writes beside what it reads
        _convert('ncnn', [pnnx.EXEC_PATH, copy, 'fp16=0'], graph)
    # images come as float already; the cast has no layer in ncnn
    text = re.sub(r'(?m)^Tensor\.to ', 'Noop ', graph.read_text())
    missing = {kind for kind in re.findall(r'(?m)^([A-Za-z]\S*) ', text) if ncnn.layer_to_index(kind) < 0}
    if missing:
        raise ArtifactError(f'ncnn has no layer {", ".join(sorted(missing))}')
    network = ncnn.Net()
    network.opt.num_threads = threads
    network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = network.opt.use_fp16_packed = False
    if network.load_param_mem(text) or network.load_model(str(graph.with_suffix('.bin'))):
        raise ArtifactError(f'ncnn does not read what its converter made of {path.name}; a file of logits may do')

    def run(image: np.ndarray) -> np.ndarray:
        floats = image.astype(np.float32)  # named: ncnn.Mat holds no reference
        with network.create_extractor() as extractor:
            extractor.input('in0', ncnn.Mat(floats).clone())
            return np.array(extractor.extract('out0')[1])[None]

    return run


ENGINES: dict[str, Callable[[Path, Spec, Path, int], Run]] = {'openvino': _openvino, 'mnn': _mnn, 'ncnn': _ncnn}


def _convert(engine: str, command: list, written: Path) -> None:
    """Runs a converter, a process of its own. Raises ArtifactError when it leaves no file."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors='replace')
    if done.returncode or not written.exists():
        raise ArtifactError(
            f"{engine}'s converter ended with {done.returncode}: {_last_line(done.stderr + done.stdout)}"
        )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ['it said nothing'])[-1][:200]
