"""ONNX: written by torch.onnx's exporter, read by ONNX Runtime. The image is uint8 (1, H, W, 3)."""

import copy
from pathlib import Path

import numpy as np

from ...errors import ArtifactError, first_line
from ..interface import axes, given, input_port, output_ports
from ..quiet import quiet
from ..spec import Spec
from . import Delegation, Session, require

PRECISIONS = ('fp32', 'fp16', 'int8')
HALF = ('fp16',)  # whose arithmetic is meant to be half precision
TYPES = {'uint8': 'tensor(uint8)', 'float32': 'tensor(float)'}  # of images, as ONNX Runtime calls them


def export(network, spec: Spec, path: Path, images: list[np.ndarray], floats: tuple[str, ...] = ()) -> Delegation:
    """Writes an .onnx file.

    Args:
        network: see :class:`~effseg.deploy.program.Program`.
        spec: of the file.
        path: where to.
        images: (H, W, 3) uint8 to calibrate int8 with; without any, int8 is of weights alone.
        floats: layers of ``network`` that int8 leaves in float.

    Raises:
        MissingRuntimeError: without the extra ``onnx``.
    """
    require('onnx', 'onnx', 'onnxscript', 'onnxruntime')
    import onnx
    import torch

    from ..program import Program

    program = Program(suited(network, spec.precision), spec, axes(spec)).eval()
    image = input_port(spec)
    assert image.name  # ONNX has names
    example = torch.zeros(image.shape, dtype=getattr(torch, image.dtype))
    with quiet(), torch.no_grad():
        torch.onnx.export(
            program,
            (example,),
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[image.name],
            output_names=[port.name or '' for port in output_ports(spec)],
        )
    if spec.precision == 'fp16':
        _to_fp16(path)
    if spec.precision == 'int8':
        _to_int8(path, [{image.name: given(one, spec)} for one in images], floats)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {'effseg': spec.to_json()})
    onnx.save(model, path)
    return Delegation('ONNX Runtime CPU', 1)


def suited(network, precision: str):
    """A copy of a network whose fused layers are in the forms that ONNX Runtime is small and fast with."""
    from ...fusion.attention import Attention, HeadMix
    from ...fusion.layers import PoolMixer

    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, Attention):
            layer.expand_when_run = True  # runtimes of ONNX fold constants when they load a file
        if isinstance(layer, HeadMix):
            layer.as_product = True
        if isinstance(layer, PoolMixer):
            layer.as_mean = precision != 'int8'
    return network


def in_torch(network, spec: Spec, path: Path):
    """A file as a torch module in float32: (1, H, W, 3) uint8 -> what it returns.

    Args:
        network, spec: what it was made of.
        path: of the file, which is evaluated node by node, see :class:`~effseg.deploy.backends.graph.Graph`.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    from .graph import Graph

    return Graph(ReferenceEvaluator(onnx.load(path)), axes(spec)[0])


def load(path: Path, threads: int | None = None) -> Session:
    """Opens an .onnx file.

    Raises:
        MissingRuntimeError: without ONNX Runtime.
        ArtifactError: when the file is not one that ONNX Runtime reads.
    """
    require('onnx', 'onnxruntime')
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # threads that wait busily between two runs take the cores from everything else in the process
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime's errors share no base below Exception
        raise ArtifactError(
            f'ONNX Runtime cannot read {path}: {first_line(error)}; it is cut or not an ONNX file'
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    text = session.get_modelmeta().custom_metadata_map.get('effseg')
    spec = Spec.from_json(text, str(path)) if text else None
    kind = TYPES[input_port(spec).dtype if spec else 'uint8']
    if len(inputs) != 1 or len(outputs) not in (1, 2) or inputs[0].type != kind:
        came = ', '.join(f'{one.name} {one.type} {one.shape}' for one in inputs) or 'nothing'
        raise ArtifactError(f'{path} takes {came}; an exported segmenter takes one {kind} and returns one or two')
    (image,) = inputs
    return Session(
        spec=text,
        shapes=tuple(tuple(port.shape) for port in (image, *outputs)),
        run=lambda array: session.run(None, {image.name: array}),
    )


def _to_fp16(path: Path) -> None:
    """Weights and arithmetic in half precision; input and output keep their types."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def _to_int8(path: Path, inputs: list[dict[str, np.ndarray]], floats: tuple[str, ...]) -> None:
    """Quantizes the convs by ONNX Runtime's static quantizer."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    class Images(CalibrationDataReader):
        def __init__(self):
            self._left = iter(inputs)

        def get_next(self):
            return next(self._left, None)

    # the exporter notes with each node the modules it comes from
    scopes = {
        node.name: str([entry.value for entry in node.metadata_props if entry.key == 'pkg.torch.onnx.name_scopes'])
        for node in onnx.load(path).graph.node
    }
    nodes = [name for name, scope in scopes.items() if any(f"'network.{layer}'" in scope for layer in floats)]

    class Weights(QDQQuantizer):
        def quantize_activation_tensor(self, *arguments):
            pass

    with quiet():
        if not inputs:
            options = dict(AddQDQPairToWeight=False, QuantizeBias=False)
            types = QuantType.QInt8, QuantType.QUInt8
            quantizer = Weights(onnx.load(path), True, False, *types, None, [], nodes, ['Conv'], options)
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(path))
            return
        quantize_static(
            str(path),
            str(path),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=['Conv'],
            nodes_to_exclude=nodes,
        )
