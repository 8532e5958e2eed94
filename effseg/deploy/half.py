"""What a network computes in half precision, on any machine: its operations one by one, with every number rounded as
the GPUs and neural engines of phones round it.

ONNX Runtime on a CPU computes fp16 files in float32; what it returns says nothing of a phone.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

LARGEST = torch.finfo(torch.float16).max
CHUNK = 16  # channels that are summed in float32 between two roundings of a sum
aten = torch.ops.aten


@dataclass(frozen=True)
class Overflow:
    """The first result that half precision cannot hold.

    Attributes:
        layer: the module that computes it, as in named_modules() of the program, or what a file calls it.
        operation: what it does there.
        largest: the absolute value that came out.
    """

    layer: str
    operation: str
    largest: float

    def __str__(self):
        reached = f'reaches {self.largest:,.0f}' if math.isfinite(self.largest) else 'leaves the range'
        return f'{self.operation} in {self.layer} {reached}, where {LARGEST:,.0f} is the largest number'


class HalfProgram:
    """A :class:`~effseg.deploy.program.Program` in half precision.

    Inputs, weights and results of every operation are rounded to fp16; inside, an operation computes in float32, as
    matrix units do.

    Args:
        program: in float32; takes (1, H, W, 3) uint8. One that evaluates a file has ``at``, the name of what it is at.
        sums: round the running sums of convs, products and means as well, once every :data:`CHUNK` channels: what the
            oldest units do.

    Attributes:
        overflow: the first result that did not fit, None where everything did.
    """

    def __init__(self, program: nn.Module, sums: bool = False):
        self.program, self.sums = program.eval(), sums
        self.overflow: Overflow | None = None

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> what the file returns, without the batch."""

        # attention as products and a softmax, which is what runtimes make of it
        def place():
            return getattr(self.program, 'at', None) or max(tracker.parents, key=len)

        with ModuleTracker() as tracker, sdpa_kernel(SDPBackend.MATH), _HalfMode(place, self.sums) as mode:
            result = self.program(torch.from_numpy(np.ascontiguousarray(image))[None])
        self.overflow = self.overflow or mode.overflow
        return result[0].numpy()


class _HalfMode(TorchDispatchMode):
    """Rounds what goes into and comes out of every operation; ``place`` names the module that it is of."""

    def __init__(self, place: Callable[[], str], sums: bool):
        super().__init__()
        self.place, self.sums = place, sums
        self.overflow: Overflow | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, declared = kwargs or {}, func._schema.arguments
        named = {argument.name: argument for argument in declared}
        args = [self._given(x, argument) for x, argument in zip(args, declared)]
        kwargs = {name: self._given(x, named[name]) for name, x in kwargs.items()}
        result = (SUMS.get(func, func) if self.sums else func)(*args, **kwargs)
        given = dict(zip(named, args)) | kwargs
        for written in (x for name, x in given.items() if _is_written(named[name])):
            for x in written if isinstance(written, (tuple, list)) else [written]:
                x.copy_(self._result(x, func, args, kwargs))
        if any(returned.alias_info for returned in func._schema.returns):
            # a view, through which the original may be written, or what was written
            for x in result if isinstance(result, (tuple, list)) else [result]:
                x.is_half = getattr(args[0], 'is_half', False)
            return result
        if isinstance(result, (tuple, list)):
            return type(result)(self._result(x, func, args, kwargs) for x in result)
        return self._result(result, func, args, kwargs)

    def _given(self, x, argument):
        """What an operation takes, as half precision has it."""
        if isinstance(x, (tuple, list)):
            return type(x)(self._given(each, argument) for each in x)
        if isinstance(x, float) and 'float' not in str(argument.type):  # of the map, not of its grid or an epsilon
            return self._rounded(torch.tensor(x), 'a constant', lambda: math.isfinite(x)).item()
        if not _is_map(x) or getattr(x, 'is_half', False) or _is_written(argument):
            return x
        return self._rounded(x, 'a constant', lambda: bool(x.isfinite().all()))

    def _result(self, x, func, args, kwargs):
        if not _is_map(x):
            return x
        name = func._schema.name.removeprefix('aten::')
        rounded = self._rounded(x, name, lambda: all(map(_is_finite, (*args, *kwargs.values()))))
        rounded.is_half = True
        return rounded

    def _rounded(self, x: Tensor, name: str, was_finite: Callable[[], bool]) -> Tensor:
        """``x`` rounded to half precision; notes the first result that overflows though its inputs were finite."""
        rounded = x.half().to(x.dtype)
        # the sum is no number where one of them is none, and is the fastest look at them all
        if self.overflow is None and not math.isfinite(float(rounded.sum())) and was_finite():
            self.overflow = Overflow(self.place(), name, float(x.abs().max()))
        return rounded


def _is_map(x) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _is_written(argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_finite(x) -> bool:
    if isinstance(x, (tuple, list)):
        return all(map(_is_finite, x))
    if isinstance(x, Tensor):
        return bool(x.isfinite().all())
    return not isinstance(x, float) or math.isfinite(x)


def _running_sum(parts: Iterable[Tensor]) -> Tensor:
    """Rounded after every part."""
    return functools.reduce(lambda total, part: (total + part).half().float(), parts, torch.zeros(()))


def _convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups) -> Tensor:
    def whole(x, weight, groups):
        return aten.convolution(x, weight, None, stride, padding, dilation, transposed, output_padding, groups)

    channels = x.shape[1] // groups
    if channels <= CHUNK:
        total = whole(x, weight, groups)
    else:
        # a transposed kernel has its input channels, of all groups, in front
        kernels = weight.split(channels) if transposed else weight.chunk(groups)
        total = torch.cat(
            [
                _running_sum(
                    whole(xs, ws, 1) for xs, ws in zip(own.split(CHUNK, 1), kernel.split(CHUNK, 0 if transposed else 1))
                )
                for own, kernel in zip(x.split(channels, 1), kernels)
            ],
            1,
        )
    return total if bias is None else total + bias.reshape(-1, *[1] * (x.dim() - 2))


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    return _running_sum(torch.matmul(xs, ys) for xs, ys in zip(x.split(CHUNK, -1), y.split(CHUNK, -2)))


def _addmm(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return alpha * _matmul(x, y) + beta * bias


def _sum(x: Tensor, dim=None, keepdim: bool = False, *, dtype=None) -> Tensor:
    if not _is_map(x):
        return torch.sum(x, dim, keepdim, dtype=dtype)
    axes = tuple(axis % x.dim() for axis in dim or range(x.dim()))
    terms = x.to(dtype or x.dtype).movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
    result = _running_sum(part.sum(0) for part in terms.split(CHUNK))
    return result.reshape([1 if axis in axes else side for axis, side in enumerate(x.shape)]) if keepdim else result


def _mean(x: Tensor, dim=None, keepdim: bool = False, *, dtype=None) -> Tensor:
    """The sum first, then the division: half precision may not hold the sum."""
    result = _sum(x, dim, keepdim, dtype=dtype)
    return result * (result.numel() / x.numel())


SUMS = {
    aten.convolution.default: _convolution,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.mean.dim: _mean,
    aten.sum.dim_IntList: _sum,
}
