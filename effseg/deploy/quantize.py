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
    owners = {id(weight): name.rpartition('.')[0] for name, weight in _weights(network)}
    noise = _Noise(owners)
    with noise, torch.no_grad():
        for image in images:
            Program(network, spec).eval()(torch.from_numpy(image[None]))
    return sorted(noise.ratios, key=lambda name: -noise.ratios[name])


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
    watch = _Ranges({id(weight): name for name, weight in _weights(network)})
    program = Program(network, spec).eval()
    with watch, torch.no_grad():
        for image in images:
            program(torch.from_numpy(image[None]))
    return {name: high - low for name, (low, high) in watch.ranges.items()}


class _Ranges(TorchFunctionMode):
    """Watches what goes into convs."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self.names = names
        self.ranges: dict[str, tuple[float, float]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.conv2d and id(args[1]) in self.names:
            name, x = self.names[id(args[1])], args[0]
            low, high = self.ranges.get(name, (0.0, 0.0))
            self.ranges[name] = min(low, float(x.min())), max(high, float(x.max()))
        return func(*args, **(kwargs or {}))


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
