"""ExecuTorch with XNNPACK, or with Core ML: a .pte file. The image is float32 (1, H, W, 3): a cast would stay outside
the delegate. Core ML's part is a package inside the file, which is taken out and evaluated off macOS.

Its Python runtime imports torch itself; the phone's runtimes do not need it.
"""

import importlib
import operator
import re
import sys
import tempfile
import weakref
from collections import Counter
from pathlib import Path

import numpy as np

from ...errors import ArtifactError, ConfigError, EffsegError, MissingRuntimeError, first_line
from ..interface import axes, given, input_port
from ..quiet import quiet
from ..spec import Spec
from . import Delegation, Session, require

PRECISIONS = ('fp32', 'int8')
DELEGATES = {'coreml': ('fp32', 'fp16')}
HALF = ('fp16',)
# executorch 1.5: op_conv2d.py of its XNNPACK backend writes kernels with force_fp32, GeluConfig refuses fp16, and no
# config takes a change of dtype
MISSING = {'fp16': 'its XNNPACK backend stores fp16 kernels as fp32, and leaves GELU and casts outside its delegate'}
UNCALIBRATED = 'INT8 WITHOUT IMAGES: the ranges of the maps are found in every run'  # XNNPACK has no weights alone
# what a pass for Qualcomm's NPU takes out before the partitioner looks: _passes/remove_redundancy.py
REDUNDANT = {'dim_order_ops._clone_dim_order.default', 'aten.alias_copy.default', 'aten.lift_fresh_copy.default'}
METHOD = 'effseg_spec'
_open: weakref.WeakSet = weakref.WeakSet()  # the runtime's methods that run on its threads


def runs_here(spec: Spec) -> bool:
    """Whether this machine can run such a file."""
    return spec.delegate is None or sys.platform == 'darwin'


def export(network, spec: Spec, path: Path, images: list[np.ndarray], floats: tuple[str, ...] = ()) -> Delegation:
    """Writes a .pte file; arguments and errors as in :func:`effseg.deploy.backends.onnx.export`."""
    require('executorch', 'executorch.exir')
    if spec.delegate:
        require('coreml', 'coremltools')
    import torch
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    from ..program import Program

    program = Program(network, spec, axes(spec), compare=True).eval()
    example = (torch.zeros(input_port(spec).shape),)
    with quiet(), torch.no_grad():
        # what depends on no input becomes constant: XNNPACK takes convs of constant weights only
        exported = constant_prop_pass(torch.export.export(program, example), custom_skip_targets=set())
        _separate(exported)
        if spec.precision == 'int8':
            exported = torch.export.export(
                _to_int8(exported.module(), [given(image, spec) for image in images], floats, spec), example
            )
        edge = to_edge_transform_and_lower(
            exported, partitioner=[_partitioner(spec)], constant_methods={METHOD: spec.to_json()}
        )
        # counted first: making the file rewrites the graph
        delegation = _delegation(edge.exported_program().graph_module, spec)
        path.write_bytes(edge.to_executorch().buffer)
    return delegation


def _partitioner(spec: Spec):
    if spec.delegate is None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        return XnnpackPartitioner()
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    from .coreml import aim

    return CoreMLPartitioner(compile_specs=CoreMLBackend.generate_compile_specs(**aim(spec)))


def in_torch(network, spec: Spec, path: Path):
    """As :func:`effseg.deploy.backends.onnx.in_torch`: the package inside a file for Core ML; of others, which hold
    XNNPACK's form, the program that they were made of."""
    if not spec.delegate:
        from ..program import Program

        return Program(network, spec, compare=True)
    from executorch.backends.apple.coreml import executorchcoreml
    from executorch.exir._serialize._program import deserialize_pte_binary

    from .coreml import read
    from .mil import Interpreted

    (part,) = deserialize_pte_binary(path.read_bytes()).program.backend_delegate_data
    with tempfile.TemporaryDirectory() as folder:
        executorchcoreml.unflatten_directory_contents(bytes(part.data), folder)
        (package,) = Path(folder).rglob('*.mlpackage')
        return Interpreted(read(package)[1], channels_first=axes(spec)[0] == 'NCHW')


def _separate(exported) -> None:
    """Gives every constant a memory of its own: parts of one tensor, as the projections of torch's MultiheadAttention
    are, would all be read from its beginning (seen with executorch 1.5).
    """
    for name, tensor in exported.constants.items():
        if hasattr(tensor, 'untyped_storage') and tensor.untyped_storage().nbytes() != tensor.nbytes:
            exported.constants[name] = tensor.clone()


def load(path: Path, threads: int | None = None) -> Session:
    """Opens a .pte file; errors as in :func:`effseg.deploy.backends.onnx.load`."""
    require('executorch', 'executorch.runtime')
    import torch
    from executorch.runtime import Runtime, Verification

    if threads:
        _give_threads(threads)
    try:
        with quiet():
            program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            spec = program.load_method(METHOD).execute([])[0] if METHOD in program.method_names else None
            if spec and not runs_here(Spec.from_json(spec, str(path))):
                raise MissingRuntimeError(f'{path.name} is for Core ML, and runs on iOS and macOS only')
            method = program.load_method('forward')
    except EffsegError:
        raise
    except Exception as error:  # the runtime raises bare RuntimeErrors
        raise ArtifactError(
            f'ExecuTorch cannot read {path}: {first_line(error)}; it is cut or not a .pte file'
        ) from error
    _open.add(method)
    meta = method.metadata
    return Session(
        spec=spec,
        shapes=(
            tuple(meta.input_tensor_meta(0).sizes()),
            *(tuple(meta.output_tensor_meta(number).sizes()) for number in range(meta.num_outputs())),
        ),
        run=lambda array: [result.numpy() for result in method.execute([torch.from_numpy(array)])],
    )


def _give_threads(count: int) -> None:
    """Sets the number of threads, of which a process has one pool; methods keep a pointer to the one they were loaded
    with."""
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool

    now = _threadpool_get_thread_count()
    if count == now:
        return
    if _open:
        raise ConfigError(
            f'{count} threads were asked for, and .pte files that are open in this process run on {now}: ExecuTorch '
            'has one number for all; close them first'
        )
    _unsafe_reset_threadpool(count)


def _to_int8(program, inputs: list[np.ndarray], floats: tuple[str, ...], spec: Spec):
    """Quantizes the convs by PT2E with XNNPACK's quantizer; without inputs to choose the ranges of maps on, they are
    found in every run."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    keep = {f'network.{layer}' for layer in floats}
    convs = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=not inputs)
    quantizer, found = XNNPACKQuantizer(), _found_in_every_run(program.graph)
    quantizer.set_operator_type(torch.ops.aten.conv2d.default, convs)
    quantizer.set_filter_function(
        lambda node: (
            not keep & {path for path, _ in node.meta.get('nn_module_stack', {}).values()}
            and (inputs or node.op == 'get_attr' or node.args[0].name in found)
        )
    )
    prepared = prepare_pt2e(program, quantizer)
    for one in inputs or [np.zeros(input_port(spec).shape, np.float32)]:
        prepared(torch.from_numpy(one))
    return convert_pt2e(prepared)


def _found_in_every_run(graph) -> set[str]:
    """The maps, by name, that executorch 1.5 quantizes right where their ranges are found in every run: those that have
    their channels last, and that one conv reads. For others it gives another order to the graph's own input, and the
    file does not run (channels_last_tagged_reshape_pass.py, input_to_nhwc); of a map that several convs read, it gives
    some of them wrong numbers."""
    last: set[str] = set()
    for node in graph.nodes:
        name = getattr(node.target, '__name__', '')
        if name.startswith(('view', 'reshape', 'flatten', 'squeeze', 'unsqueeze', 'linear', 'matmul')):
            continue
        given = any(one.name in last for one in node.all_input_nodes)
        if given or name.startswith(('conv2d', 'upsample', 'avg_pool2d', 'max_pool2d', 'mean')):
            last.add(node.name)
    readers = Counter(node.args[0].name for node in graph.nodes if getattr(node.target, '__name__', '')[:6] == 'conv2d')
    return {name for name in last if readers[name] == 1}


def _delegation(module, spec: Spec) -> Delegation:
    delegates, nodes = [], []
    for node in module.graph.nodes:
        if node.op != 'call_function' or node.target is operator.getitem:
            continue
        if node.target.__name__ == 'executorch_call_delegate':
            delegates.append(getattr(module, node.args[0].target).original_module.graph)
        else:
            nodes.append(node)
    if spec.delegate:
        return Delegation('Core ML through ExecuTorch', len(delegates), _names(nodes))
    inside = [node for graph in delegates for node in graph.nodes if node.op == 'call_function']
    # int8 of those comes of quantizers of their own
    elsewhere = {} if spec.precision == 'int8' else _elsewhere([*inside, *nodes])
    return Delegation('XNNPACK', len(delegates), _names(nodes), elsewhere)


def _elsewhere(nodes: list) -> dict[str, dict[str, int]]:
    """What the partitioners for Core ML and for Qualcomm's NPU would leave. That of Qualcomm asks the SDK about every
    node; here it is held to the operators that it has a builder for."""
    left = {}
    try:
        from executorch.backends.apple.coreml.partition.coreml_partitioner import _OperatorsSupportedForCoreMLBackend
    except ImportError:  # without coremltools
        pass
    else:
        takes = _OperatorsSupportedForCoreMLBackend().is_node_supported
        left["ExecuTorch's Core ML partitioner"] = _names(node for node in nodes if not takes({}, node))
    builders = Path(importlib.import_module('executorch.backends').__path__[0]) / 'qualcomm' / 'builders'
    built = {name for file in builders.glob('op_*.py') for name in re.findall(r'"(\w+\.\w+\.?\w*)"', file.read_text())}
    known = built | REDUNDANT | {'getitem'}
    left["ExecuTorch's QNN partitioner"] = _names(node for node in nodes if node.target.__name__ not in known)
    return left


def _names(nodes) -> dict[str, int]:
    return dict(Counter(node.target.__name__ for node in nodes))
