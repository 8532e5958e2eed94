"""Mixed precision where MMEngine has none."""

import contextlib
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..errors import ConfigError


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """MMEngine's OptimWrapper, whose forward pass computes in bfloat16 on the CPU; nothing has to be scaled."""

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module):
        """As MMEngine's, for one forward pass."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def check_bfloat16(device: str | torch.device = 'cpu') -> None:
    """Raises ConfigError for a device without bfloat16, or with one that is slower than float32."""
    kind = torch.device(device).type
    if kind == 'cpu' and not cpu_has_bfloat16():
        raise ConfigError(
            '--precision bf16 is slower than fp32 on this CPU, which has no bfloat16 (avx512_bf16, amx_bf16): leave it '
            'out here'
        )
    if kind == 'cuda' and not gpu_has_bfloat16(device):
        raise ConfigError('--precision bf16 is slower than fp32 on this GPU, which has no bfloat16: leave it out here')


def gpu_has_bfloat16(device: str | torch.device | None = None) -> bool:
    """Whether a GPU, the current one when left out, multiplies in bfloat16 itself."""
    return torch.cuda.get_device_capability(device)[0] >= 8


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16 itself, so that it is faster than float32."""
    try:
        flags = set(Path('/proc/cpuinfo').read_text().split())
    except OSError:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(flags & {'avx512_bf16', 'amx_bf16', 'bf16'})
