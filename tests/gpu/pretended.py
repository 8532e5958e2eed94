"""A GPU that is none: tensors that say they are on CUDA, have their numbers on the CPU, and refuse to meet others."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = 'cuda:0'
aten = torch.ops.aten
# whose result has a size or is a number that the host has to wait for
WAITED_FOR = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.bincount}
# what only cuDNN has; it gives the room that its gradient takes as well
COMPUTED_BY = {
    aten.cudnn_batch_norm.default: lambda *given: (*aten.native_batch_norm.default(*given), torch.empty(0)),
}
COPIES = (aten._to_copy.default, aten.copy_.default)


class OnGpu(Tensor):
    """Says that it is on CUDA; ``inner`` holds the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor):
        layout = dict(strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype)
        return Tensor._make_wrapper_subclass(cls, inner.size(), device=CUDA, **layout)

    def __init__(self, inner: Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f'{func} behind the end of the pretence')


class Gpu(TorchDispatchMode):
    """Computes on the CPU what is asked of CUDA.

    Attributes:
        done: the operations that were asked of it.
        waits: those among them that the host has to wait for.
    """

    def __init__(self):
        super().__init__()
        self.done: list = []
        self.waits: list = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [one for one in _flat((args, tuple(kwargs.values()))) if isinstance(one, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        if ours and func not in COPIES and any(tensor.dim() for tensor in tensors if not isinstance(tensor, OnGpu)):
            raise RuntimeError(f'{func} of tensors that are not on the same device')
        there = isinstance(args[0], OnGpu) if func is aten.copy_.default else bool(ours)
        if kwargs.get('device') is not None:
            there = torch.device(kwargs['device']).type == 'cuda'
            kwargs = {**kwargs, 'device': torch.device('cpu')}
        masked = func is aten.index.Tensor and any(x is not None and x.dtype == torch.bool for x in args[1])
        if ours:
            self.done.append(func)
            if func.overloadpacket in WAITED_FOR or masked or not there:
                self.waits.append(func)
        result = COMPUTED_BY.get(func, func)(*_inner(args), **{name: _inner(value) for name, value in kwargs.items()})
        if func._schema.is_mutable:
            return args[0]
        return _outer(result) if there else result


def _flat(value) -> Iterator:
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _inner(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(_inner, value))
    return value.inner if isinstance(value, OnGpu) else value


def _outer(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(_outer, value))
    return OnGpu(value) if isinstance(value, Tensor) else value


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    """Inside, there is a GPU of the name :data:`CUDA`."""
    torch._C._ensureCUDADeviceGuardSet()  # as torch's own fake tensors do where there is none
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('torch.cuda._lazy_init', lambda: None)
        patch.setattr('torch.inference_mode', torch.no_grad)  # in which tensors of another class have no views
        for name in ('synchronize', 'reset_peak_memory_stats', 'memory_allocated', 'max_memory_allocated'):
            patch.setattr(f'torch.cuda.{name}', lambda device=None: 0)
        patch.setattr('torch.cuda.get_device_name', lambda device=None: 'no GPU')
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # theirs cannot be of another class
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with Gpu() as gpu:
                yield gpu
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_overwrite_module_params_on_conversion(before)
