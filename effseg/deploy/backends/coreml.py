"""Core ML: an .mlpackage that takes an RGB image, mean and scale set. Converts anywhere, runs on macOS only.

Off macOS the export checks what is declared (:func:`check`) and evaluates the program in torch (:func:`in_torch`).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArtifactError, MissingRuntimeError, ParityError
from .. import presets
from ..interface import output_ports
from ..quiet import quiet
from ..spec import Spec
from . import Delegation, Session, require

PRECISIONS = ('fp32', 'fp16', 'int8')
HALF = ('fp16',)
TARGET = 'iOS16'  # the first whose ML programs run int8 weights
METADATA = 'effseg'
PREVIEW = 'com.apple.coreml.model.preview'  # where Xcode reads the names and colors of a segmenter's classes


def runs_here(spec: Spec | None = None) -> bool:
    """Whether this machine can execute Core ML programs."""
    return sys.platform == 'darwin'


def export(network, spec: Spec, path: Path, images: list[np.ndarray], floats: tuple[str, ...] = ()) -> Delegation:
    """Writes an .mlpackage; arguments and errors as in :func:`effseg.deploy.backends.onnx.export`.

    Raises:
        ParityError: when the written package fails :func:`check`.
    """
    require('coreml', 'coremltools')
    with quiet():
        package = convert(network, spec)
        if spec.precision == 'int8':
            package = _int8(package, network, floats)
        package.user_defined_metadata[METADATA] = spec.to_json()
        if spec.preset == 'vision':
            looks = {'labels': list(spec.classes), 'colors': presets.color_codes(spec)}
            package.user_defined_metadata[f'{PREVIEW}.type'] = 'imageSegmenter'
            package.user_defined_metadata[f'{PREVIEW}.params'] = json.dumps(looks)
        package.short_description = f'Semantic segmentation, {len(spec.classes)} classes; returns {spec.output}'
        package.save(str(path))
    check(path, spec)
    return Delegation('Core ML', 1)


def convert(network, spec: Spec):
    """The coremltools model, not saved."""
    import coremltools as ct
    import torch

    from ..program import Program

    divisor = float(np.mean(spec.std))  # Core ML divides all channels by one number; the program does the rest
    program = Program(network, spec, ('NCHW', 'NCHW'), divisor=divisor).eval()
    example = torch.zeros(1, 3, spec.height, spec.width)
    with torch.no_grad():
        exported = torch.export.export(program, (example,)).run_decompositions({})
    _know_alias()
    image = ct.ImageType(
        name='image',
        shape=tuple(example.shape),
        color_layout=ct.colorlayout.RGB,
        scale=1 / divisor,
        bias=[-mean / divisor for mean in spec.mean],
    )
    return ct.convert(
        exported,
        inputs=[image],
        outputs=[ct.TensorType(name=port.name) for port in output_ports(spec)],
        convert_to='mlprogram',
        skip_model_load=not runs_here(),
        **aim(spec),
    )


def aim(spec: Spec) -> dict[str, Any]:
    """What system and which arithmetic coremltools converts for."""
    import coremltools as ct

    precision = ct.precision.FLOAT32 if spec.precision == 'fp32' else ct.precision.FLOAT16
    return dict(minimum_deployment_target=getattr(ct.target, TARGET), compute_precision=precision)


def _know_alias() -> None:
    """Tells coremltools of ``aten.alias``, which torch makes of a slice that takes everything: crops and windows do at
    some sizes."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    @register_torch_op(override=True)
    def alias(context, node):
        context.add(context[node.inputs[0]], torch_name=node.name)


def check(path: Path, spec: Spec) -> None:
    """What a package declares.

    Every operator is one that Core ML has at :data:`TARGET`; the input is an RGB image and the output is named as
    the spec says.

    Raises:
        ParityError: naming what differs.
    """
    import coremltools as ct
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    proto, program = read(path)
    target = getattr(ct.target, TARGET)
    operators = program.functions['main'].operations
    unknown = sorted(
        {
            op.op_type
            for op in operators
            if not any(version <= target for version in SSAOpRegistry.core_ops.get(op.op_type, {}))
        }
    )
    if unknown:
        raise ParityError(f'Core ML has no {", ".join(unknown)} at {TARGET}')
    layout, results = proto.description.input[0].type.imageType, [port.name for port in proto.description.output]
    wanted = [port.name for port in output_ports(spec)]
    if (layout.width, layout.height, layout.colorSpace, results) != (spec.width, spec.height, layout.RGB, wanted):
        raise ParityError(
            f'the package takes {layout.width}x{layout.height} and returns {results}; the spec says otherwise'
        )


def in_torch(network, spec: Spec, path: Path):
    """As :func:`effseg.deploy.backends.onnx.in_torch`: slow, and in float32 throughout, but with the operators, the
    weights and the scaling of the image that are in the package."""
    from .mil import Interpreted

    return Interpreted(read(path)[1])


def read(path: Path):
    """The description of a package, and its program with its weights."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    proto = ct.utils.load_spec(str(path))
    with quiet():
        program = load(
            model_spec=proto,
            specification_version=proto.specificationVersion,
            file_weights_dir=str(path / 'Data' / 'com.apple.CoreML' / 'weights'),
        )
    return proto, program


def load(path: Path, threads: int | None = None) -> Session:
    """Opens an .mlpackage on macOS; errors as in :func:`effseg.deploy.backends.onnx.load`.

    Raises:
        MissingRuntimeError: on any other system.
    """
    if not runs_here():
        raise MissingRuntimeError(f'{path.name} runs on macOS only; here Core ML packages can be written and checked')
    require('coreml', 'coremltools')
    import coremltools as ct
    from PIL import Image

    try:
        package = ct.models.MLModel(str(path))
    except Exception as error:  # coremltools passes on whatever the system says
        raise ArtifactError(f'Core ML cannot read {path}: {error}; it is cut or not an .mlpackage') from error
    layout = package.get_spec().description.input[0].type.imageType
    spec_text = package.user_defined_metadata.get(METADATA)
    ports = output_ports(Spec.from_json(spec_text, str(path))) if spec_text else ()

    def run(array: np.ndarray) -> list[np.ndarray]:
        results = package.predict({'image': Image.fromarray(array[0])})
        return [np.asarray(results[port.name]) for port in ports]

    shapes = (1, layout.height, layout.width, 3), *(port.shape for port in ports)
    return Session(spec=spec_text, shapes=shapes, run=run)


def _int8(package, network, floats: tuple[str, ...]):
    """Weights in int8 with a scale per output channel, by coremltools; arithmetic stays in half precision, and so do
    the kernels of ``floats``."""
    import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(
        global_config=cto.OpLinearQuantizerConfig(mode='linear_symmetric', weight_threshold=2048)
    )
    kernels = {
        weight.detach().numpy().astype(dtype).tobytes()
        for layer in floats
        for weight in network.get_submodule(layer).parameters()
        for dtype in (np.float16, np.float32)
    }
    for op in package._mil_program.functions['main'].operations:
        if (
            op.op_type == 'conv'
            and op.inputs['weight'].val is not None
            and np.asarray(op.inputs['weight'].val).tobytes() in kernels
        ):
            config.set_op_name(op.name, None)
    return cto.linear_quantize_weights(package, config)
