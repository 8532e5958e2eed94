"""Files of two and of six pieces of a fused network: a quarter of the difference of their times is one piece's.

What a call costs, and what brings the image to the piece, is in both, and cancels. Pieces that keep a map's size stand
one behind the other; those that do not stand side by side on the same map, and their results are added.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ..deploy.backends import backend
from ..deploy.interface import given
from ..deploy.spec import Spec
from ..engine.config import build_model
from ..fusion.folding import Affine
from ..fusion.layers import Conv
from ..fusion.segmentor import fuse
from ..models import blocks, blocks_v2
from ..models.arch import Arch
from ..timing import time_in_turn
from .slicing import Network, Shape, configured
from .space import Part

LENGTHS = (2, 6)


class Chain(nn.Module):
    """Pieces of a fused network behind a conv that makes their map of an image.

    Args:
        heads: layers of the maps, in order.
        pieces: what is measured.
        series: one behind the other; else side by side.
    """

    def __init__(self, heads: Sequence[nn.Module], pieces: Sequence[nn.Module], series: bool):
        super().__init__()
        self.heads, self.pieces, self.series = nn.ModuleList(heads), nn.ModuleList(pieces), series
        self.train(False)

    def logits(self, x: Tensor) -> Tensor:
        """(1, 3, H, W) -> the last piece's map, or the sum of all."""
        maps = [head(x) for head in self.heads]
        if self.series:
            (y,) = maps
            for piece in self.pieces:
                y = piece(y)
            return y
        results = [piece(maps if len(maps) > 1 else maps[0]) for piece in self.pieces]
        total = results[0]
        for result in results[1:]:
            total = total + result
        return total


class DecoderPiece(nn.Module):
    """A fused decoder behind the norms of the backbone's maps, portable."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.norms, self.decoder = network.backbone.norms, network.decoder

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.decoder([norm(x) for norm, x in zip(self.norms, maps)])


def chain_of(part: Part, network: Network, size: tuple[int, int], length: int) -> Chain:
    """A chain of ``length`` pieces with random weights, for images of ``size`` = (H, W).

    Args:
        part: what is measured.
        network: the original.
    """
    stage = part.stage
    grids = [tuple(-(-side // stride) for side in size) for stride in (2, 4, 8, 16, 32)]
    with torch.no_grad():
        if part.part == 'head':
            dims = tuple(part.dim if i == stage else dim for i, dim in enumerate(network.arch.embed_dims))
            # the decoder's time does not depend on the blocks in front of it
            arch = Arch((0,) * len(dims), dims, (0,) * len(dims), ((),) * len(dims))
            shape = Shape(arch, part.hidden, part.dim_in)
            decoders = [DecoderPiece(fused_of(network, shape, size)) for _ in range(length)]
            indices = network.model['backbone'].get('out_indices', range(4))
            return Chain([_lead(dims[index], 4 * 2**index) for index in indices], decoders, False).float()
        pieces = [_piece(part, network.model['backbone'], grids) for _ in range(length)]
        for piece in pieces:
            piece.set_portable()
            piece.strip()
        head = nn.Identity() if part.part == 'stem' else _lead(part.dim_in, 2 ** (stage + 1 + (part.part == 'block')))
        return Chain([head], pieces, part.part == 'block').float()


def _piece(part: Part, options: dict, grids: Sequence[tuple[int, ...]]) -> nn.Module:
    """A fused piece of the backbone; ``grids`` are (H, W) at the strides 2, 4, 8, 16, 32."""
    first = options['type'] == 'EfficientFormer'
    act = blocks.activation(options.get('act', 'GELU'))
    resolution, resize = options.get('resolution', 7), options.get('bias_resize', 'interpolate')
    before, grid, dim = grids[part.stage], grids[part.stage + 1], part.dim
    if part.part == 'stem':
        return (blocks.Stem(dim) if first else blocks_v2.Stem(dim, act)).eval().fuse()
    if part.part == 'downsample':
        if first:
            return blocks.Downsample(part.dim_in, dim).eval().fuse()
        beside = part.kind == 'attention'
        attention = blocks_v2.AttentionDownsample(part.dim_in, dim, act, 2 * resolution, resize) if beside else None
        return blocks_v2.Downsample(part.dim_in, dim, attention).eval().fuse(before)
    attends, hidden = part.kind in ('attention', 'token mlp'), part.hidden or 1
    if not first:
        stride = 2 if part.stage == 2 else None
        mixer = blocks_v2.Attention2d(dim, act, resolution, resize, stride=stride) if attends else None
        fused = blocks_v2.Block(dim, hidden, act, 0.0, mixer).eval().fuse(grid)
        return fused.layers[0] if attends else fused
    block = (
        blocks.MetaBlock1d(dim, hidden, act, 0.0, resolution, resize)
        if attends
        else blocks.MetaBlock2d(dim, hidden, act, 0.0)
    )
    return block.eval().fuse(grid).layers[1 if 'mlp' in part.kind else 0]


def _lead(dim: int, stride: int) -> Conv:
    return Conv(Affine(torch.randn(dim, 3, 1, 1, dtype=torch.float64), torch.zeros(dim)), stride).set_portable()


def fused_of(network: Network, shape: Shape, size: tuple[int, int]) -> nn.Module:
    """The fused network of a shape with random weights, to be exported and timed.

    Args:
        network: the original, whose other options are kept.
        shape: what is different.
        size: (H, W) of the images.
    """
    model = build_model(ConfigDict(model=configured(network.model, shape)))
    return fuse(model.eval(), size).exportable()


def export(network: nn.Module, runtime: str, size: tuple[int, int], path: Path) -> None:
    """Writes a file of something that has ``logits(x)``.

    Raises:
        MissingRuntimeError: naming the extra to install.
    """
    backend(runtime).export(network.float().eval(), Spec.unnamed(runtime, size), path, [])


def milliseconds(paths: Sequence[Path], runtime: str, size: tuple[int, int], threads: int, runs: int) -> list[float]:
    """The fastest of ``runs`` runs of each file, in turn: other work on the machine can only slow a run down. On one
    thread the processor's time counts, which leaves out the waiting.

    Raises:
        MissingRuntimeError: naming the extra to install.
    """
    image = given(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), Spec.unnamed(runtime, size))
    sessions = {path.name: backend(runtime).load(path, threads) for path in paths}
    clock = time.process_time if threads == 1 else time.perf_counter
    times = time_in_turn({name: partial(one.run, image) for name, one in sessions.items()}, runs, clock=clock)
    return [1e3 * min(times[path.name].seconds) for path in paths]
