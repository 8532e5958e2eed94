"""Which architectures can be reached from a network, and the parts that their time is made of."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from ..models.arch import Arch
from .slicing import STEP, Action, Network, Shape

OPTIONS = 4  # of each width, itself included


@dataclass(frozen=True, order=True)
class Part:
    """A piece of the fused network whose time is measured."""

    part: str  # 'stem', 'downsample', 'block' or 'head'
    stage: int  # counted from 0; of a head, the one whose width is another than the original's
    kind: str  # what it is: 'conv', 'pool', 'attention', 'mlp', 'token mlp', or the head's class
    dim_in: int  # channels that come in; of a head, those of the FPN
    dim: int  # channels that go out; of a head, those of the stage
    hidden: int = 0  # channels inside

    def __str__(self):
        return ' '.join(str(value) for value in (self.part, self.stage, self.kind, self.dim_in, self.dim, self.hidden))


class Space:
    """The architectures that actions lead to from a network.

    Widths are the original's minus multiples of 16, hidden widths of a stage share a grid of a quarter of the largest,
    and head and FPN lose quarters; nothing goes below half of the original but hidden widths.

    Args:
        network: the original.
    """

    def __init__(self, network: Network):
        self.original = network.shape
        self.backbone = network.model['backbone']['type']
        self.kind = network.model['decode_head']['type'] if self.original.head else ''
        arch = self.original.arch
        self.widths = [
            [dim - STEP * n for n in range(OPTIONS) if n == 0 or dim - STEP * n >= max(dim / 2, STEP)]
            for dim in arch.embed_dims
        ]
        self.hidden = [_hidden_grid(hidden) for hidden in arch.hidden_dims]
        self.heads, self.necks = _quarters(self.original.head), _quarters(self.original.neck)

    def actions(self, shape: Shape) -> list[Action]:
        """Every single action on an architecture, each to the next smaller option."""
        arch, found = shape.arch, []
        for stage, depth in enumerate(arch.depths):
            for block in range(depth):
                if depth > 1:
                    found.append(Action('block', stage, block))
                narrower = [width for width in self.hidden[stage] if width < arch.hidden_dims[stage][block]]
                if narrower:
                    found.append(Action('hidden', stage, block, max(narrower)))
            if arch.num_vit[stage]:
                found.append(Action('attention', stage, depth - arch.num_vit[stage]))
            narrower = [width for width in self.widths[stage] if width < arch.embed_dims[stage]]
            if narrower:
                found.append(Action('width', stage, to=max(narrower)))
        for kind, options, now in (('head', self.heads, shape.head), ('neck', self.necks, shape.neck)):
            narrower = [width for width in options if width < now]
            if narrower:
                found.append(Action(kind, to=max(narrower)))
        return found

    def smallest(self) -> Shape:
        """Where no action is left."""
        arch = self.original.arch
        smallest = Arch(
            tuple(min(depth, 1) for depth in arch.depths),
            tuple(min(widths) for widths in self.widths),
            (0,) * len(arch.depths),
            tuple((min(grid),) * min(depth, 1) for grid, depth in zip(self.hidden, arch.depths)),
        )
        return Shape(smallest, min(self.heads, default=0), min(self.necks, default=0))

    def random(self, generator: random.Random) -> Shape:
        """An architecture some random actions away."""
        shape = self.original
        for _ in range(generator.randint(2, 4 + 2 * sum(shape.arch.depths))):
            if actions := self.actions(shape):
                shape = shape.after(generator.choice(actions))
        return shape

    def block(self, stage: int, attends: bool, dim: int, hidden: int) -> list[Part]:
        """The parts of a block: its mixer, where it is a layer of its own, and its MLP."""
        first = self.backbone == 'EfficientFormer'
        mlp = Part('block', stage, 'token mlp' if first and attends else 'mlp', dim, dim, hidden)
        if not first and not attends:
            return [mlp]
        return [Part('block', stage, 'attention' if attends else 'pool', dim, dim), mlp]

    def downsample(self, stage: int, dim_in: int, dim: int) -> Part:
        """The layer in front of a stage."""
        beside = self.backbone == 'EfficientFormerV2' and stage == 3
        return Part('downsample', stage, 'attention' if beside else 'conv', dim_in, dim)

    def parts(self, shape: Shape) -> Counter:
        """How often each part counts in the time of an architecture; fractions and negative numbers occur.

        The head is measured whole, with one width at a time other than the original's; what a narrower stage saves in
        it is taken proportional to the channels that the stage's map is brought to.
        """
        arch = shape.arch
        count: Any = Counter({Part('stem', 0, 'conv', 3, arch.embed_dims[0]): 1.0})
        for stage, dim in enumerate(arch.embed_dims):
            if stage:
                count[self.downsample(stage, arch.embed_dims[stage - 1], dim)] += 1
            for block, hidden in enumerate(arch.hidden_dims[stage]):
                for part in self.block(stage, arch.attends(stage, block), dim, hidden):
                    count[part] += 1
        if shape.head:
            whole, dims = self.original, self.original.arch.embed_dims
            original = Part('head', 0, self.kind, whole.neck, dims[0], whole.head)
            count[original] += 1
            for other in (replace(original, hidden=shape.head), replace(original, dim_in=shape.neck)):
                count[other] += 1
                count[original] -= 1
            share = shape.neck / whole.neck if whole.neck else shape.head / whole.head
            for stage, dim in enumerate(arch.embed_dims):
                if dim != dims[stage]:
                    count[replace(original, stage=stage, dim=dim)] += share
                    count[original] -= share
        return Counter({part: times for part, times in count.items() if times})

    def all_parts(self) -> list[Part]:
        """Every part that some architecture has, in order."""
        found: set[Part] = {Part('stem', 0, 'conv', 3, dim) for dim in self.widths[0]}
        arch, whole = self.original.arch, self.original
        for stage, widths in enumerate(self.widths):
            attends = (False, True) if arch.num_vit[stage] else (False,)
            for dim in widths:
                if stage:
                    found |= {self.downsample(stage, dim_in, dim) for dim_in in self.widths[stage - 1]}
                for kind, hidden in itertools.product(attends, self.hidden[stage]):
                    found.update(self.block(stage, kind, dim, hidden))
                if self.kind and dim != arch.embed_dims[stage]:
                    found.add(Part('head', stage, self.kind, whole.neck, dim, whole.head))
        if self.kind:
            original = Part('head', 0, self.kind, whole.neck, arch.embed_dims[0], whole.head)
            found |= {replace(original, hidden=width) for width in self.heads}
            found |= {replace(original, dim_in=width) for width in self.necks}
        return sorted(found)


def _hidden_grid(hidden: tuple[int, ...]) -> list[int]:
    """The hidden widths of a stage: its blocks', and quarters of the largest in multiples of 16."""
    if not hidden:
        return []
    quarter = max(STEP, round(max(hidden) / OPTIONS / STEP) * STEP)
    return sorted({*hidden, *range(quarter, max(hidden), quarter)})


def _quarters(width: int) -> list[int]:
    """A width, and three quarters and half of it in multiples of 16."""
    smaller = {round(width * share / STEP) * STEP for share in (0.5, 0.75)}
    return sorted({width, *(value for value in smaller if STEP <= value < width)}) if width else []
