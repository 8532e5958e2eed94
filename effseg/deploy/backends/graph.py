"""The graph of an .onnx file, evaluated node by node: in torch, where every result can be rounded, and by ONNX's own
reference evaluator what takes no part in arithmetic, or is rare.
"""

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCOPES = 'pkg.torch.onnx.name_scopes'  # the modules that a node comes from, as torch's exporter notes them
FLOATS = (1, 10)  # float32 and float16, as ONNX counts types


class Graph(nn.Module):
    """A file of this package in float32 throughout: half precision is up to
    :class:`~effseg.deploy.half.HalfProgram`.

    Args:
        evaluator: an ``onnx.reference.ReferenceEvaluator`` of it.
        layout: of its image.

    Attributes:
        at: the module whose node is evaluated.
    """

    def __init__(self, evaluator, layout: str = 'NHWC'):
        super().__init__()
        self.at, self.layout = '', layout
        self.evaluator = evaluator
        self.weights = {name: _tensor(value) for name, value in evaluator.rt_inits_.items()}

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """(1, H, W, 3) uint8 -> what the file returns; two results as one, as other programs have them."""
        image = image if self.layout == 'NHWC' else image.permute(0, 3, 1, 2).float()
        values: dict[str, Any] = {**self.weights, '': None, self.evaluator.input_names[0]: image}
        for node in self.evaluator.rt_nodes_:
            self.at = _module_of(node.onnx_node)
            given = [values[name] for name in node.input]
            handler = HANDLERS.get(node.onnx_node.op_type)
            result = handler(node, *given) if handler else None
            results: list[Any] = [result]
            if result is None:  # by the reference evaluator
                results = [_tensor(value) for value in node.run(*(None if x is None else x.numpy() for x in given))]
            values.update(zip(node.output, results))
        results = [values[name] for name in self.evaluator.output_names]
        return results[0] if len(results) == 1 else torch.stack([result.float() for result in results], 1)


def _module_of(node) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)
    return ([name for name in ast.literal_eval(scopes)[:-1] if name] or [''])[-1] if scopes else node.name


def _tensor(value: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    return tensor.float() if tensor.is_floating_point() else tensor


def _window(node, x: Tensor, fill: float = 0.0) -> tuple[Tensor, list[int]] | None:
    """``x``, padded where torch cannot, and the padding that is left to torch; None where a size is to be inferred."""
    dims = x.dim() - 2
    pads = list(node.pads or [0] * 2 * dims)
    if node.auto_pad not in ('NOTSET', 'VALID'):
        return None
    if pads[:dims] == pads[dims:]:
        return x, pads[:dims]
    both = [side for pair in zip(pads[dims - 1 :: -1], pads[: dims - 1 : -1]) for side in pair]
    return F.pad(x, both, value=fill), [0] * dims


def _conv(node, x, weight, bias=None):
    if (window := _window(node, x)) is None:
        return None
    x, padding = window
    ones = [1] * len(padding)
    return torch.convolution(
        x, weight, bias, node.strides or ones, padding, node.dilations or ones, False, [0] * len(ones), node.group
    )


def _conv_transpose(node, x, weight, bias=None):
    dims = x.dim() - 2
    pads = list(node.pads or [0] * 2 * dims)
    if node.auto_pad != 'NOTSET' or node.output_shape or pads[:dims] != pads[dims:]:
        return None
    ones = [1] * dims
    rest = node.output_padding or [0] * dims
    return torch.convolution(
        x, weight, bias, node.strides or ones, pads[:dims], node.dilations or ones, True, rest, node.group
    )


def _max_pool(node, x):
    window = _window(node, x, -torch.inf)
    if window is None or len(node.output) > 1 or x.dim() != 4:
        return None
    return F.max_pool2d(
        window[0], node.kernel_shape, node.strides or 1, window[1], node.dilations or 1, bool(node.ceil_mode)
    )


def _average_pool(node, x):
    window = _window(node, x)
    if window is None or x.dim() != 4 or window[0] is not x or set(node.dilations or [1]) != {1}:
        return None
    inside = bool(node.count_include_pad)
    return F.avg_pool2d(x, node.kernel_shape, node.strides or 1, window[1], bool(node.ceil_mode), inside)


def _resize(node, x, roi=None, scales=None, sizes=None):
    placed = node.coordinate_transformation_mode
    if x.dim() != 4 or node.antialias or node.axes:
        return None
    size = sizes.tolist() if sizes is not None else [int(side * scale) for side, scale in zip(x.shape, scales.tolist())]
    if size[:2] != list(x.shape[:2]):
        return None
    if (node.mode, placed, node.nearest_mode) == ('nearest', 'asymmetric', 'floor'):
        return F.interpolate(x, size[2:], mode='nearest')
    if placed not in ('half_pixel', 'pytorch_half_pixel', 'align_corners') or node.mode == 'nearest':
        return None
    return F.interpolate(x, size[2:], mode=f'bi{node.mode}', align_corners=placed == 'align_corners')


def _reduced(reduce: Callable) -> Callable:
    def handler(node, x, axes=None):
        axes = getattr(node, 'axes', None) if axes is None else axes.tolist()
        if not x.is_floating_point() or not axes:
            return None
        return reduce(x, list(axes), keepdim=bool(node.keepdims))

    return handler


def _gemm(node, a, b, c=None):
    product = (a.T if node.transA else a) @ (b.T if node.transB else b)
    product = product if node.alpha == 1 else product * node.alpha
    return product if c is None else product + (c if node.beta == 1 else c * node.beta)


def _of_floats(function: Callable) -> Callable:
    def handler(node, *given):
        return function(*given) if all(x.is_floating_point() for x in given) else None

    return handler


def _pairwise(function: Callable) -> Callable:
    return _of_floats(lambda *given: function(*given) if len(given) == 2 else None)


ARITHMETIC: dict[str, Callable] = {
    'Add': torch.add,
    'Sub': torch.sub,
    'Mul': torch.mul,
    'Div': torch.div,
    'Pow': torch.pow,
    'Relu': torch.relu,
    'Sqrt': torch.sqrt,
    'Reciprocal': torch.reciprocal,
    'Exp': torch.exp,
    'Erf': torch.erf,
    'Sigmoid': torch.sigmoid,
    'Tanh': torch.tanh,
    'Abs': torch.abs,
    'Neg': torch.neg,
}
# node, inputs -> the only output, or None: what the reference evaluator has to do
HANDLERS: dict[str, Callable] = {
    'Conv': _conv,
    'ConvTranspose': _conv_transpose,
    'MaxPool': _max_pool,
    'AveragePool': _average_pool,
    'GlobalAveragePool': lambda node, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    'Resize': _resize,
    'ReduceMean': _reduced(torch.mean),
    'ReduceSum': _reduced(torch.sum),
    'Gemm': _gemm,
    'MatMul': _of_floats(torch.matmul),
    'Softmax': lambda node, x: torch.softmax(x, node.axis),
    'ArgMax': lambda node, x: None if node.select_last_index else x.argmax(node.axis, bool(node.keepdims)),
    'Gelu': lambda node, x: F.gelu(x, approximate=node.approximate or 'none'),
    'Clip': lambda node, x, low=None, high=None: None if low is high else torch.clamp(x, low, high),
    'Cast': lambda node, x: x.float() if node.to in FLOATS else None,
    'Max': _pairwise(torch.maximum),
    'Min': _pairwise(torch.minimum),
    **{name: _of_floats(function) for name, function in ARITHMETIC.items()},
}
