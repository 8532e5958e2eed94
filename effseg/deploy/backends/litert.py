"""LiteRT: a .tflite file, run by the interpreter under its XNNPACK delegate. The image is float32 (1, H, W, 3)."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from ...errors import ArtifactError
from ..interface import axes, given, input_port, output_ports
from ..quiet import quiet
from ..spec import Spec
from . import Delegation, Session, require
from .gpu import left_by_gpu

PRECISIONS = ('fp32', 'fp16', 'int8')
HALF = ('fp16',)  # the weights are; GPUs compute in it as well
METADATA = b'effseg'
GPU = "LiteRT's GPU delegate"


def export(network, spec: Spec, path: Path, images: list[np.ndarray], floats: tuple[str, ...] = ()) -> Delegation:
    """Writes a .tflite file; arguments and errors as in :func:`effseg.deploy.backends.onnx.export`."""
    require('litert', 'litert_torch', 'ai_edge_litert.interpreter')
    import litert_torch
    import torch

    from ..program import Program

    program = Program(network, spec, axes(spec), compare=True).eval()
    with quiet(), torch.no_grad():
        litert_torch.convert(program, (torch.zeros(input_port(spec).shape),)).export(str(path))
    if spec.precision == 'fp16':
        _to_fp16(path)
    if spec.precision == 'int8':
        inputs = [given(image, spec) for image in images]
        _to_int8(path, inputs, [_scope(program, f'network.{layer}') for layer in floats])
    _describe(path, spec)
    return _delegation(_interpreter(path))


def in_torch(network, spec: Spec, path: Path):
    """As :func:`effseg.deploy.backends.onnx.in_torch`: the program that the file was made of."""
    from ..program import Program

    return Program(network, spec, compare=True)


def load(path: Path, threads: int | None = None) -> Session:
    """Opens a .tflite file; errors as in :func:`effseg.deploy.backends.onnx.load`."""
    require('litert', 'ai_edge_litert.interpreter')
    try:
        spec = _read_metadata(path)
        interpreter = _interpreter(path, threads)
        (image,), results = interpreter.get_input_details(), interpreter.get_output_details()
        # in the order of the spec, which that of the graph need not be
        results.sort(key=lambda result: result['name'] == 'confidence')
    except Exception as error:  # a cut flatbuffer ends in whatever the byte it stops at leads to
        raise ArtifactError(f'LiteRT cannot read {path}: {error}; it is cut or not a .tflite file') from error

    def run(array: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(image['index'], array)
        interpreter.invoke()
        return [interpreter.get_tensor(result['index']) for result in results]

    return Session(spec=spec, shapes=tuple(tuple(port['shape'].tolist()) for port in (image, *results)), run=run)


def _to_fp16(path: Path) -> None:
    """Weights in half precision by ai-edge-quantizer; image and result stay float32."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    recipe = quantizer.Quantizer(str(path))
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
    )
    operators = qtyping.TFLOperationName
    for operator in (
        operators.CONV_2D,
        operators.DEPTHWISE_CONV_2D,
        operators.CONV_2D_TRANSPOSE,
        operators.FULLY_CONNECTED,
    ):
        recipe.update_quantization_recipe('.*', operator, config, algorithm_key=AlgorithmName.FLOAT_CASTING)
    _exchange(path, recipe.quantize)


def _exchange(path: Path, quantize) -> None:
    with quiet():
        result = quantize()
        path.unlink()
        result.export_model(str(path))


def _to_int8(path: Path, inputs: list[np.ndarray], floats: list[str]) -> None:
    """Quantizes the convs by ai-edge-quantizer; ``floats`` are patterns of the names it knows them by."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    recipe = quantizer.Quantizer(str(path))
    for operator in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.DEPTHWISE_CONV_2D):
        if inputs:
            recipe.add_static_config('.*', operator, activation_num_bits=8, weight_num_bits=8)
        else:
            recipe.add_weight_only_config('.*', operator, num_bits=8)
        for scope in floats:
            recipe.update_quantization_recipe(scope, operator, algorithm_key=AlgorithmName.NO_QUANTIZE)
    if not inputs:
        _exchange(path, recipe.quantize)
        return
    signature, declared = next(iter(_interpreter(path).get_signature_list().items()))
    data = {signature: [{declared['inputs'][0]: one} for one in inputs]}
    _exchange(path, lambda: recipe.quantize(recipe.calibrate(data)))


def _scope(program, layer: str) -> str:
    """The pattern of the names that litert_torch gives what a layer makes: the classes and names of the modules around
    it."""
    parts, module = [], program
    for name in layer.split('.'):
        module = getattr(module, name)
        if type(module).__module__.startswith('effseg'):
            parts.append(f'{type(module).__module__}.{type(module).__qualname__}_{name}')
    return re.escape('/'.join(parts[1:] if parts[0].endswith('_network') else parts)) + '(;|$)'


def _interpreter(path: Path, threads: int | None = None):
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def _delegation(interpreter) -> Delegation:
    """The delegate replaces operators and leaves them in the list: what is left is what nothing delegated produces."""
    operators = interpreter._get_ops_details()
    delegates = [op for op in operators if op['op_name'] == 'DELEGATE']
    made_by = {int(tensor): op for op in operators if op['op_name'] != 'DELEGATE' for tensor in op['outputs']}
    delegated = {int(tensor) for op in delegates for tensor in op['outputs']}
    left: Counter[str] = Counter()
    seen = set()
    wanted = [detail['index'] for detail in interpreter.get_output_details()]
    while wanted:
        tensor = int(wanted.pop())
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor in delegated:
            wanted += [i for op in delegates if tensor in op['outputs'] for i in op['inputs']]
        elif tensor in made_by:
            left[made_by[tensor]['op_name']] += 1
            wanted += list(made_by[tensor]['inputs'])
    shapes = {detail['index']: detail['shape'] for detail in interpreter.get_tensor_details()}
    given = [(op['op_name'], shapes.get(op['inputs'][0], ())) for op in operators if op['op_name'] != 'DELEGATE']
    return Delegation('XNNPACK', len(delegates), dict(left), {GPU: left_by_gpu(given)})


def _describe(path: Path, spec: Spec) -> None:
    """Writes the spec into a file, and names its image and results, which the converter only numbers."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    outputs = sorted(signature.outputs, key=lambda one: one.name)  # the converter numbers them
    for port, declared in zip((input_port(spec), *output_ports(spec)), (*signature.inputs, *outputs)):
        declared.name = graph.tensors[declared.tensorIndex].name = port.name
    entries = {METADATA.decode(): spec.to_json().encode()}
    if spec.preset == 'mediapipe':
        from . import litert_mediapipe as mediapipe

        entries[mediapipe.METADATA] = mediapipe.metadata(spec)
    for name, content in entries.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(content, dtype=np.uint8)
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    flatbuffer_utils.write_model(model, str(path))
    if spec.preset == 'mediapipe':
        mediapipe.append_labels(path, spec)


def _read_metadata(path: Path) -> str | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    for i in range(model.MetadataLength()):
        if model.Metadata(i).Name() == METADATA:
            return bytes(model.Buffers(model.Metadata(i).Buffer()).DataAsNumpy()).decode()
    return None
