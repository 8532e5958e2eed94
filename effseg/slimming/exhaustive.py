"""The best of all architectures of the space, where what single actions cost in loss adds up as their times do.

Every single action on the original is judged once. Given the widths, each stage is a knapsack: its blocks' options have
a time and a loss, and of two partial choices the one that is slower and loses more is never part of the best. Such
frontiers are kept whole, so that the optimum of the sums is exact. That losses add up is an assumption, and what
actions cost together corrects it: :func:`corrected`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..models.arch import Arch
from .evaluate import Judgement, Samples, judge, weigh
from .slicing import Action, Network, Shape, apply
from .space import Space
from .table import Table

OUT = -1  # the option of a block that is left out, in the place of a hidden width
ROUNDS = 5  # in which an optimum is judged


@dataclass(frozen=True)
class Frontier:
    """Choices of which none is both faster and better than another, fastest first."""

    ms: np.ndarray  # (n,), rising
    loss: np.ndarray  # (n,), falling
    plans: list[tuple]  # what was chosen, as a tuple per choice

    @classmethod
    def of(cls, ms: np.ndarray, loss: np.ndarray, plans: Callable[[int], tuple]) -> 'Frontier':
        """The frontier of choices in any order; ``plans`` gives that of a choice by its number."""
        order = np.lexsort((loss, ms))
        best = np.minimum.accumulate(loss[order])
        kept = order[np.concatenate([[True], loss[order][1:] < best[:-1]])] if len(order) else order
        return cls(ms[kept], loss[kept], [plans(int(index)) for index in kept])

    def beside(self, other: 'Frontier') -> 'Frontier':
        """Of every choice here with every one of ``other``, plans one behind the other."""
        width = len(other.ms)
        return Frontier.of(
            np.add.outer(self.ms, other.ms).ravel(),
            np.add.outer(self.loss, other.loss).ravel(),
            lambda index: self.plans[index // width] + other.plans[index % width],
        )

    def joined(self, other: 'Frontier') -> 'Frontier':
        """Of the choices of both."""
        plans = self.plans + other.plans
        ms, loss = np.concatenate([self.ms, other.ms]), np.concatenate([self.loss, other.loss])
        return Frontier.of(ms, loss, plans.__getitem__)


EMPTY = Frontier(np.zeros(0), np.zeros(0), [])


def single_actions(space: Space) -> list[tuple[Action, ...]]:
    """What is judged on the original: each option of each place alone; of attention, the first blocks that attend."""
    arch = space.original.arch
    found: list[tuple[Action, ...]] = []
    for stage, depth in enumerate(arch.depths):
        for block, hidden in enumerate(arch.hidden_dims[stage]):
            found += [(Action('hidden', stage, block, width),) for width in space.hidden[stage] if width < hidden]
            found += [(Action('block', stage, block),)] if depth > 1 else []
        first = depth - arch.num_vit[stage]
        for count in range(1, arch.num_vit[stage] + 1):
            found.append(tuple(Action('attention', stage, first + n) for n in range(count)))
        found += [
            (Action('width', stage, to=width),) for width in space.widths[stage] if width < arch.embed_dims[stage]
        ]
    found += [(Action('head', to=width),) for width in space.heads if width < space.original.head]
    found += [(Action('neck', to=width),) for width in space.necks if width < space.original.neck]
    return found


def named(actions: Iterable[Action]) -> str:
    """The name of a combination, by which its loss is kept."""
    return '; '.join(map(str, actions))


def measure_losses(
    network: Network, space: Space, samples: Samples, known: dict[str, float], save: Callable[[dict[str, float]], None]
) -> dict[str, float]:
    """Judges every single action on the original; returns the losses by :func:`named`, the original's under ``''``.

    Args:
        network: the original, its BatchNorm statistics measured anew.
        space: of it.
        samples: to judge on.
        known: losses of an interrupted measurement.
        save: called behind each.
    """
    losses = dict(known)
    if '' not in losses:
        losses[''] = judge(network, samples)[0]
    missing = [actions for actions in single_actions(space) if named(actions) not in losses]
    if missing:
        scores, tokens = weigh(network, samples.statistics)
    for actions in missing:
        smaller = reduce(lambda smaller, action: apply(smaller, action, scores, tokens), actions, network)
        losses[named(actions)] = judge(smaller, samples)[0]
        save(losses)
    return losses


def exhaustive(space: Space, table: Table, target: float, losses: Mapping[str, float]) -> tuple[list[Action], float]:
    """The architecture within the time whose losses sum to the least.

    Args:
        space: of the original.
        table: of its parts.
        target: milliseconds.
        losses: of :func:`measure_losses`.

    Returns:
        The actions that lead there, in an order in which they can be applied, and the sum that the loss grows by.

    Raises:
        ConfigError: when nothing reaches the target.
    """
    costs = {name: loss - losses[''] for name, loss in losses.items()}
    stages = [
        {width: _stage(space, table, stage, width, costs) for width in widths}
        for stage, widths in enumerate(space.widths)
    ]
    half = len(stages) // 2
    fronts, backs = _combined(stages[:half]), _combined(stages[half:])
    best: tuple[float, tuple, dict[str, Any]] | None = None
    for front, back in itertools.product(fronts, backs):
        for head, neck in itertools.product(space.heads or [0], space.necks or [0]):
            widths = front + back
            fixed = costs_of_widths(space, costs, widths, head, neck)
            left = target - _time_without_blocks(space, table, widths, head, neck)
            found = _cheapest(fronts[front], backs[back], left)
            if found and (best is None or fixed + found[0] < best[0]):
                best = fixed + found[0], found[1], dict(widths=widths, head=head, neck=neck)
    if best is None:
        raise ConfigError(f'nothing in the space reaches {target:.2f} ms')
    return list(_actions(space, best[1], **best[2])), best[0]


def corrected(
    space: Space,
    table: Table,
    target: float,
    losses: Mapping[str, float],
    behind_each: Callable[[list[Action]], list[float]],
) -> list[Action]:
    """The best of several optima of the sums, each of which knows what the actions of those before cost together.

    An action that cost more behind others than alone has that added to its own loss for the rounds that follow.

    Args:
        space, table, target, losses: see :func:`exhaustive`.
        behind_each: gives the loss behind each of some actions, in order.

    Returns:
        The actions behind which the loss was least.
    """
    costs = dict(losses)
    tried: list[tuple[float, list[Action]]] = []
    for _ in range(ROUNDS):
        actions, grows = exhaustive(space, table, target, costs)
        if any(actions == other for _, other in tried):
            break
        print(f'the best sum: {len(actions)} actions cost {grows:.4f}', end='', flush=True)
        found = behind_each(actions)
        print(f', and {found[-1] - losses[""]:.4f} together', flush=True)
        tried.append((found[-1], actions))
        start = now = losses['']
        run: list[Action] = []
        for action, loss in zip(actions, found):
            if not (run and run[-1].kind == action.kind == 'attention' and run[-1].stage == action.stage):
                start, run = now, []
            now, run = loss, [*run, action]  # the attention that a stage loses has one loss
            costs[named(run)] = max(costs[named(run)], losses[''] + now - start)
    return min(tried, key=lambda one: one[0])[1]


def costs_of_widths(space: Space, costs: Mapping[str, float], widths: tuple[int, ...], head: int, neck: int) -> float:
    """What the widths of stages, head and FPN add to the loss."""
    whole = space.original
    actions = [Action('width', s, to=w) for s, w in enumerate(widths) if w < whole.arch.embed_dims[s]]
    actions += [Action('head', to=head)] if head < whole.head else []
    actions += [Action('neck', to=neck)] if neck < whole.neck else []
    return sum(costs[str(action)] for action in actions)


def _stage(space: Space, table: Table, stage: int, width: int, costs: Mapping[str, float]) -> Frontier:
    """The frontier of a stage: a plan is ``((attention lost, (hidden width or OUT, ...)),)``. One block stays."""
    arch = space.original.arch
    first, found = arch.depths[stage] - arch.num_vit[stage], EMPTY
    for lost in range(arch.num_vit[stage] + 1):
        start = costs[named(Action('attention', stage, first + n) for n in range(lost))]
        none = Frontier(np.zeros(1), np.array([start]), [()])  # the blocks so far are out
        some = EMPTY if arch.depths[stage] else none
        for block, hidden in enumerate(arch.hidden_dims[stage]):
            stay, out = _options(space, table, stage, width, block, hidden, block >= first + lost, costs)
            some = some.beside(stay.joined(out)).joined(none.beside(stay))
            none = none.beside(out)
        found = found.joined(Frontier(some.ms, some.loss, [((lost, plan),) for plan in some.plans]))
    return found


def _options(
    space: Space, table: Table, stage: int, width: int, block: int, hidden: int, attends: bool, costs: Mapping
) -> tuple[Frontier, Frontier]:
    """What a block can be, by its hidden width; and that it is left out, where it may be."""
    widths = [option for option in space.hidden[stage] if option <= hidden]
    ms = [sum(table.ms[part] for part in space.block(stage, attends, width, option)) for option in widths]
    loss = [0.0 if option == hidden else costs[str(Action('hidden', stage, block, option))] for option in widths]
    stay = Frontier.of(np.array(ms), np.array(loss), lambda n: (widths[n],))
    if space.original.arch.depths[stage] < 2:
        return stay, EMPTY
    return stay, Frontier(np.zeros(1), np.array([costs[str(Action('block', stage, block))]]), [(OUT,)])


def _combined(stages: list[dict[int, Frontier]]) -> dict[tuple[int, ...], Frontier]:
    """The frontier of several stages, by their widths."""
    return {
        widths: reduce(Frontier.beside, (stage[width] for stage, width in zip(stages, widths)))
        for widths in itertools.product(*stages)
    }


def _cheapest(front: Frontier, back: Frontier, left: float) -> tuple[float, tuple] | None:
    """The least loss of a choice of each within ``left`` milliseconds, and its plan; None where nothing fits."""
    partner = np.searchsorted(back.ms, left - front.ms, side='right') - 1
    fits = np.flatnonzero(partner >= 0)
    if not len(fits):
        return None
    sums = front.loss[fits] + back.loss[partner[fits]]
    chosen = int(fits[sums.argmin()])
    return float(sums.min()), front.plans[chosen] + back.plans[int(partner[chosen])]


def _time_without_blocks(space: Space, table: Table, widths: tuple[int, ...], head: int, neck: int) -> float:
    """Predicted milliseconds of all but the blocks."""
    whole = space.original
    shape = replace(whole, arch=replace(whole.arch, embed_dims=widths), head=head, neck=neck)
    blocks = (times * table.ms[part] for part, times in space.parts(shape).items() if part.part == 'block')
    return table.predict(space, shape) - sum(blocks)


def _actions(space: Space, plans: tuple, widths: tuple[int, ...], head: int, neck: int) -> Iterator[Action]:
    """Attention first, then hidden widths, then blocks from the last: each number is that of the original."""
    whole = space.original
    arch: Arch = whole.arch
    for stage, (lost, options) in enumerate(plans):
        first = arch.depths[stage] - arch.num_vit[stage]
        yield from (Action('attention', stage, first + n) for n in range(lost))
        for block, (option, hidden) in enumerate(zip(options, arch.hidden_dims[stage])):
            if option not in (OUT, hidden):
                yield Action('hidden', stage, block, option)
        yield from (Action('block', stage, block) for block in reversed(range(len(options))) if options[block] == OUT)
        if widths[stage] < arch.embed_dims[stage]:
            yield Action('width', stage, to=widths[stage])
    if head < whole.head:
        yield Action('head', to=head)
    if neck < whole.neck:
        yield Action('neck', to=neck)


def depths(space: Space, table: Table, target: float, losses: Mapping[str, float]) -> list[list[Action]]:
    """Every combination of depths that meets the target and would not with a block more, to be judged each.

    Of a stage the blocks go first that cost least alone.

    Args:
        space, table, target, losses: see :func:`exhaustive`.

    Returns:
        The actions that lead to each.

    Raises:
        ConfigError: when no combination reaches the target.
    """
    arch = space.original.arch

    def actions(gone: tuple[int, ...]) -> list[Action]:
        found = []
        for stage, count in enumerate(gone):
            price = {block: losses.get(str(Action('block', stage, block)), 0.0) for block in range(arch.depths[stage])}
            found += [
                Action('block', stage, b) for b in sorted(sorted(price, key=price.__getitem__)[:count], reverse=True)
            ]
        return found

    def reaches(gone: tuple[int, ...]) -> bool:
        return table.predict(space, reduce(Shape.after, actions(gone), space.original)) <= target

    combinations = [
        gone for gone in itertools.product(*(range(max(depth, 1)) for depth in arch.depths)) if reaches(gone)
    ]
    if not combinations:
        raise ConfigError(
            f'leaving out blocks alone does not reach {target:.2f} ms; --search gradual takes other actions'
        )
    fewest = [
        gone
        for gone in combinations
        if not any(other != gone and all(a <= b for a, b in zip(other, gone)) for other in combinations)
    ]
    return [actions(gone) for gone in fewest]


def judged_depths(
    network: Network,
    candidates: list[list[Action]],
    samples: Samples,
    known: dict[str, float],
    save: Callable[[dict[str, float]], None],
) -> list[Action]:
    """Judges every candidate of :func:`depths` and gives the best; arguments as of :func:`measure_losses`."""
    losses = dict(known)
    for actions in candidates:
        if named(actions) not in losses:
            smaller = reduce(lambda rest, action: apply(rest, action, {}), actions, network)
            losses[named(actions)] = judge(smaller, samples)[0]
            save(losses)
    return min(candidates, key=lambda actions: losses[named(actions)])


def realised(network: Network, actions: Iterable[Action], samples: Samples) -> Iterator[tuple[Action, Judgement]]:
    """Applies actions one after the other, channels weighed anew before each, and judges the network behind each."""
    for action in actions:
        judged = judge(apply(network, action, *weigh(network, samples.statistics)), samples)
        yield action, judged
        network = judged.network
