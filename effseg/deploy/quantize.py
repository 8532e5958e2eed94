"""Which layers int8 hurts most, measured on real images, whatever the runtime.

The runtimes' own quantizers do the work (:mod:`effseg.deploy.backends`). All of them quantize the convs, where nearly
all weights and work are: int8 weights per output channel, int8 maps. Attention's products and softmax, the norms'
statistics, activations other than ReLU, and sums stay in float.
"""

from collections.abc import Callable, Iterator, Sequence

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
# Of a conv's range on the images of a proof, over that on the calibration images. On two trained networks: street
# scenes and drawn ones 0.75 to 1.25 at eight of ten convs, black and dark ones up to 2.9, noise down to 0.3
ALIKE = (0.6, 1.5)
COMPARED = 8  # images of either kind, as many of both: more images reach further
OTHERS = 0.1  # the share of the convs from which on images are called unlike


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
    ratios: dict[str, float] = {}

    def see(name: str, result: Tensor, x: Tensor, weight: Tensor, *others, **options) -> None:
        # once more in int8, as the quantizers would: maps per tensor, weights per output channel
        error = F.conv2d(_rounded(x, None), _rounded(weight, (1, 2, 3)), *others, **options) - result
        ratio = error.square().mean().item() / max(result.square().mean().item(), 1e-30)
        owner = name.rpartition('.')[0]
        ratios[owner] = max(ratio, ratios.get(owner, 0.0))

    _watch(network, spec, images, see)
    return sorted(ratios, key=lambda name: -ratios[name])


def unlike(
    network: nn.Module, spec: Spec, calibration: Sequence[np.ndarray], images: Sequence[np.ndarray]
) -> str | None:
    """How calibration images differ from others as the network sees them, in words; None where they are alike.

    Ranges that are too narrow cut off what the images reach, ranges that are too wide leave few steps for it: what the
    images of a proof have lost by then may be within its aim, and more be lost on others.

    Args:
        network, spec: as in :func:`worst_first`.
        calibration: (H, W, 3) uint8 RGB that chose the ranges of int8.
        images: likewise, that it is compared on.
    """
    count = min(COMPARED, len(calibration), len(images))
    chosen, reached = (_ranges(network, spec, _spread(those, count)) for those in (calibration, images))
    ratios = np.array([reached[name] / max(width, 1e-12) for name, width in chosen.items()])
    narrow, wide = int((ratios > ALIKE[1]).sum()), int((ratios < ALIKE[0]).sum())
    if max(narrow, wide) <= OTHERS * len(ratios):
        return None
    return (
        f'of {len(ratios)} convs {narrow} see more than {ALIKE[1]} times the range, and {wide} less than {ALIKE[0]} of '
        'it; --calibration takes images of the kind that the file will see'
    )


def _spread(images: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    return [images[number] for number in np.linspace(0, len(images) - 1, count).round().astype(int)]


def _ranges(network: nn.Module, spec: Spec, images: Sequence[np.ndarray]) -> dict[str, float]:
    """The width of what each conv is given on some images, zero included."""
    ranges: dict[str, tuple[float, float]] = {}

    def see(name: str, result: Tensor, x: Tensor, *others, **options) -> None:
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = min(low, float(x.min())), max(high, float(x.max()))

    _watch(network, spec, images, see)
    return {name: high - low for name, (low, high) in ranges.items()}


def _watch(network: nn.Module, spec: Spec, images: Sequence[np.ndarray], see: Callable[..., None]) -> None:
    """Runs a network on images; ``see`` is given each conv's name, result and arguments."""
    program = Program(network, spec).eval()
    with _Convs({id(weight): name for name, weight in _weights(network)}, see), torch.no_grad():
        for image in images:
            program(torch.from_numpy(image[None]))


class _Convs(TorchFunctionMode):
    """Calls ``see`` behind each conv whose weight has one of ``names``, by its id."""

    def __init__(self, names: dict[int, str], see: Callable[..., None]):
        super().__init__()
        self.names, self.see = names, see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is F.conv2d and id(args[1]) in self.names:
            self.see(self.names[id(args[1])], result, *args, **(kwargs or {}))
        return result


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Conv kernels by name; the kernels of a list belong to the layer that has the list."""
    for name, module in network.named_modules():
        for key, weight in module.named_parameters(recurse=False):
            if weight.dim() == 4:
                yield (name if isinstance(module, nn.ParameterList) else f'{name}.{key}'), weight


def _rounded(x: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    """``x`` in 255 steps: over its own range per tensor, or symmetric over all ``axes`` but the first."""
    if axes:
        step = x.abs().amax(axes, keepdim=True).clamp(min=1e-12) / 127
        return (x / step).round() * step
    low = x.min().clamp(max=0)
    step = (x.max().clamp(min=0) - low).clamp(min=1e-12) / 255
    return ((x - low) / step).round() * step + low
