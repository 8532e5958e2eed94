"""Which layers int8 hurts most, measured on real images, whatever the runtime.

The runtimes' own quantizers do the work (:mod:`effseg.deploy.backends`). All of them quantize the convs, where nearly
all weights and work are: int8 weights per output channel, int8 maps. Attention's products and softmax, the norms'
statistics, activations other than ReLU, and sums stay in float.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..fusion.norms import ChannelNorm, MapNorm
from .parity import Parity, inaccuracy
from .program import Program
from .spec import Spec

SHARES = (0.05, 0.15, 0.4)  # of the layers, worst first, that are kept in float when int8 throughout misses the aim
IMAGES = 4  # to rank the layers on; each counts every pixel of every map


def attempts(network: nn.Module, spec: Spec, images: Sequence[np.ndarray]) -> Iterator[tuple[str, ...]]:
    """The layers to keep in float, attempt by attempt until :func:`survived`: the norms, then more and more of those
    that int8 hurts most."""
    norms = tuple(name for name, module in network.named_modules() if isinstance(module, (MapNorm, ChannelNorm)))
    yield norms
    ranking = worst_first(network, spec, images[:IMAGES]) if SHARES else []
    for share in SHARES:
        yield (*norms, *ranking[: max(round(share * len(ranking)), 1)])


def survived(proof: Parity) -> bool:
    """Whether no further layer need be taken back to float."""
    return inaccuracy(proof, 'int8') is None


def quality(proof: Parity) -> tuple[bool, float]:
    """What attempts are compared by, the higher the better: whether they survived, then the mIoU gained, or without
    masks the agreement."""
    if proof.miou is None or proof.source_miou is None:
        return survived(proof), proof.agreement
    return survived(proof), proof.miou - proof.source_miou


def worst_first(network: nn.Module, spec: Spec, images: Sequence[np.ndarray]) -> list[str]:
    """The network's layers with convs, by the noise that int8 adds to their results, relative to the results.

    Args:
        network: has ``logits(x)``, see :class:`~effseg.deploy.program.Program`.
        spec: of the artifact.
        images: (H, W, 3) uint8 RGB.

    Returns:
        Names as in ``network.named_modules()``.
    """
    owners = {id(weight): name.rpartition('.')[0] for name, weight in _weights(network)}
    noise = _Noise(owners)
    with noise, torch.no_grad():
        for image in images:
            Program(network, spec).eval()(torch.from_numpy(image[None]))
    return sorted(noise.ratios, key=lambda name: -noise.ratios[name])


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Conv kernels by name; the kernels of a list belong to the layer that has the list."""
    for name, module in network.named_modules():
        for key, weight in module.named_parameters(recurse=False):
            if weight.dim() == 4:
                yield (name if isinstance(module, nn.ParameterList) else f'{name}.{key}'), weight


class _Noise(TorchFunctionMode):
    """Watches convs and does each once more in int8, as the quantizers would: maps per tensor, weights per output
    channel."""

    def __init__(self, owners: dict[int, str]):
        super().__init__()
        self.owners = owners
        self.ratios: dict[str, float] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.conv2d and id(args[1]) in self.owners:
            x, weight, *others = args
            error = func(_rounded(x, None), _rounded(weight, (1, 2, 3)), *others, **kwargs) - result
            name = self.owners[id(weight)]
            ratio = error.square().mean().item() / max(result.square().mean().item(), 1e-30)
            self.ratios[name] = max(ratio, self.ratios.get(name, 0.0))
        return result


def _rounded(x: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    """``x`` in 255 steps: over its own range per tensor, or symmetric over all ``axes`` but the first."""
    if axes:
        step = x.abs().amax(axes, keepdim=True).clamp(min=1e-12) / 127
        return (x / step).round() * step
    low = x.min().clamp(max=0)
    step = (x.max().clamp(min=0) - low).clamp(min=1e-12) / 255
    return ((x - low) / step).round() * step + low
