"""What a network computes in half precision, on any machine: the operations that all files are converted from, one by
one, with every number rounded as the GPUs and neural engines of phones round it.

ONNX Runtime on a CPU and the check of Core ML off macOS compute fp16 files in float32; what they return says nothing of
a phone.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

LARGEST = torch.finfo(torch.float16).max
CHUNK = 16  # channels that are summed in float32 between two roundings of a sum
aten = torch.ops.aten


@dataclass(frozen=True)
class Overflow:
    """The first result that half precision cannot hold.

    Attributes:
        layer: the module that computes it, as in ``named_modules()`` of the program.
        operation: what it does there.
        largest: the absolute value that came out.
    """

    layer: str
    operation: str
    largest: float

    def __str__(self):
        return (
            f'{self.operation} in {self.layer} reaches {self.largest:,.0f}, where {LARGEST:,.0f} is the largest number'
        )


class Rounding:
    """Rounds to half precision, and remembers the first result that does not fit.

    Attributes:
        overflow: None where everything fitted.
    """

    def __init__(self):
        self.overflow: Overflow | None = None

    def __call__(self, x: Tensor, layer: str, operation: str) -> Tensor:
        """The numbers of ``x`` as half precision has them, in float32."""
        rounded = x.half().float()
        if self.overflow is None and not rounded.isfinite().all():
            self.overflow = Overflow(layer, operation, float(x.abs().max()))
        return rounded


class HalfProgram:
    """A :class:`~effseg.deploy.program.Program` in half precision.

    Inputs, weights and results of every operation are rounded to fp16; inside, an operation computes in float32, as
    matrix units do.

    Args:
        program: in float32.
        sums: round the running sums of convs, products and means as well, once every :data:`CHUNK` channels: what the
            oldest units do.

    Attributes:
        overflow: the first result that did not fit, None where everything did.
    """

    def __init__(self, program: nn.Module, sums: bool = False):
        self.program, self.sums = program.eval(), sums
        self._rounding = Rounding()

    @property
    def overflow(self) -> Overflow | None:
        return self._rounding.overflow

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> what the file returns, without the batch."""
        with ModuleTracker() as tracker, _HalfMode(self._rounding, tracker, self.sums):
            result = self.program(torch.from_numpy(np.ascontiguousarray(image))[None])
        return result[0].numpy()


class _HalfMode(TorchDispatchMode):
    """Rounds what goes into and comes out of every operation."""

    def __init__(self, rounding: Rounding, tracker: ModuleTracker, sums: bool):
        super().__init__()
        self.rounding, self.tracker, self.sums = rounding, tracker, sums

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        layer = max(self.tracker.parents, key=len)
        call = SUMS.get(func, func) if self.sums else func
        given = args if func._schema.is_mutable else [self._rounded(x, layer, 'a constant') for x in args]
        result = call(*given, **(kwargs or {}))
        if func._schema.is_mutable and isinstance(result, Tensor):
            return result.copy_(self._rounded(result, layer, func._schema.name))
        name = func._schema.name.removeprefix('aten::')
        if isinstance(result, (tuple, list)):
            return type(result)(self._rounded(x, layer, name) for x in result)
        return self._rounded(result, layer, name)

    def _rounded(self, x, layer: str, name: str):
        if isinstance(x, Tensor):
            return self.rounding(x, layer, name) if x.dtype == torch.float32 else x
        if isinstance(x, float):  # what a map is multiplied by, or clamped to
            return self.rounding(torch.tensor(x), layer, name).item()
        return x


def _running_sum(parts: Iterable[Tensor]) -> Tensor:
    """Rounded after every part."""
    return functools.reduce(lambda total, part: (total + part).half().float(), parts, torch.zeros(()))


def _convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups) -> Tensor:
    assert not transposed
    if groups > 1 or x.shape[1] <= CHUNK:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    chunks = zip(x.split(CHUNK, 1), weight.split(CHUNK, 1))
    total = _running_sum(F.conv2d(xs, weights, None, stride, padding, dilation) for xs, weights in chunks)
    return total if bias is None else total + bias[:, None, None]


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    return _running_sum(torch.matmul(xs, ys) for xs, ys in zip(x.split(CHUNK, -1), y.split(CHUNK, -2)))


def _addmm(bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return _matmul(x, y) + bias


def _mean(x: Tensor, dim=None, keepdim: bool = False) -> Tensor:
    """The sum first, then the division: half precision may not hold the sum."""
    axes = tuple(range(x.dim())) if dim is None else tuple(axis % x.dim() for axis in dim)
    terms = x.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
    result = _running_sum(part.sum(0) for part in terms.split(CHUNK)) / len(terms)
    return result.reshape([1 if axis in axes else side for axis, side in enumerate(x.shape)]) if keepdim else result


SUMS = {
    aten.convolution.default: _convolution,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.addmm.default: _addmm,
    aten.mean.dim: _mean,
}
