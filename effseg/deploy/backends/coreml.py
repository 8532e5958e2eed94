"""Core ML: an .mlpackage that takes an RGB picture, mean and scale set. Converts anywhere, runs on macOS only.

Off macOS the export checks what can be checked without running: :func:`check`.
"""

import sys
from pathlib import Path

import numpy as np

from ...errors import ArtifactError, MissingRuntimeError, ParityError
from ..quiet import quiet
from ..spec import Spec
from . import Delegation, Session, require

PRECISIONS = ('fp32', 'fp16', 'int8')
TARGET = 'iOS16'  # the first whose ML programs run int8 weights
METADATA = 'effseg'


def runs_here() -> bool:
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
        package.short_description = f'Semantic segmentation, {len(spec.classes)} classes; returns {spec.output}'
        package.save(str(path))
    check(path, network, spec)
    return Delegation('Core ML', 1)


def convert(network, spec: Spec):
    """The coremltools model, not saved."""
    import coremltools as ct
    import torch

    from ..program import Program

    divisor = float(np.mean(spec.std))  # Core ML divides all channels by one number; the program does the rest
    program = Program(network, spec, channels_first=True, divisor=divisor).eval()
    example = torch.zeros(1, 3, spec.height, spec.width)
    with torch.no_grad():
        exported = torch.export.export(program, (example,)).run_decompositions({})
    image = ct.ImageType(
        name='image',
        shape=tuple(example.shape),
        color_layout=ct.colorlayout.RGB,
        scale=1 / divisor,
        bias=[-mean / divisor for mean in spec.mean],
    )
    precision = ct.precision.FLOAT32 if spec.precision == 'fp32' else ct.precision.FLOAT16
    return ct.convert(
        exported,
        inputs=[image],
        outputs=[ct.TensorType(name=spec.output)],
        convert_to='mlprogram',
        minimum_deployment_target=getattr(ct.target, TARGET),
        compute_precision=precision,
        skip_model_load=not runs_here(),
    )


def check(path: Path, network, spec: Spec) -> None:
    """What can be proved of a package without running it.

    Every operator is one that Core ML has at :data:`TARGET`; the input is an RGB picture and the output is named and
    shaped as the spec says; every conv's weights are the network's, bit for bit at the file's precision (int8
    excepted).

    Raises:
        ParityError: naming what differs.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load as load_mil
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    proto = ct.utils.load_spec(str(path))
    target = getattr(ct.target, TARGET)
    with quiet():
        program = load_mil(
            model_spec=proto,
            specification_version=proto.specificationVersion,
            file_weights_dir=str(path / 'Data' / 'com.apple.CoreML' / 'weights'),
        )
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
    image, result = proto.description.input[0], proto.description.output[0]
    layout = image.type.imageType
    if (layout.width, layout.height, layout.colorSpace) != (
        spec.width,
        spec.height,
        layout.RGB,
    ) or result.name != spec.output:
        raise ParityError(
            f'the package takes {layout.width}x{layout.height} and returns {result.name!r}; the spec says otherwise'
        )
    if spec.precision != 'int8':
        _check_weights(operators, network, np.float16 if spec.precision == 'fp16' else np.float32)


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
    output = package.get_spec().description.output[0].name
    spec = Spec.from_json(spec_text, str(path)) if spec_text else None
    return Session(
        spec=spec_text,
        shapes=((1, layout.height, layout.width, 3), (1, *spec.result_shape) if spec else ()),
        run=lambda array: np.asarray(package.predict({'image': Image.fromarray(array)})[output]),
    )


def _check_weights(operators, network, dtype) -> None:
    """Each conv's kernel is a parameter of the network or rows of one, as it is or with its sides exchanged."""
    own = [tensor.detach().cpu().numpy() for tensor in network.state_dict().values() if tensor.dim() == 4]
    own = [form.astype(dtype).tobytes() for tensor in own for form in (tensor, tensor.swapaxes(2, 3))]
    count = 0
    for op in operators:
        if op.op_type not in ('conv', 'conv_transpose') or op.inputs['weight'].val is None:
            continue
        kernel = np.asarray(op.inputs['weight'].val)
        if np.ptp(np.abs(kernel)) == 0:  # averages and differences are ours, not the network's
            continue
        count += 1
        if not any(kernel.astype(dtype).tobytes() in tensor for tensor in own):
            raise ParityError(f'the weights of {op.name} {kernel.shape} are not in the network that was converted')
    if not count:
        raise ParityError('the package holds no conv with weights')


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
