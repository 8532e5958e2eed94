"""The page of a search: its path, what is left of the network block by block, and the times."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..report import charts
from ..report.page import render
from .search import Step
from .slicing import Action, Shape
from .space import Space
from .table import Table


@dataclass(frozen=True)
class Block:
    """A block of the original, and what became of it."""

    attends: bool  # whether it has attention
    attended: bool  # whether it had
    hidden: int  # channels inside its MLP; 0 where the block is out
    before: int  # how many they were


def blocks_after(original: Shape, actions: Iterable[Action]) -> list[list[Block]]:
    """By stage, the original's blocks behind actions, whose block numbers are those of the network at the time."""
    arch = original.arch
    stages = [
        [
            Block(arch.attends(stage, block), arch.attends(stage, block), hidden, hidden)
            for block, hidden in enumerate(row)
        ]
        for stage, row in enumerate(arch.hidden_dims)
    ]
    for action in actions:
        if action.block is None:
            continue
        blocks = stages[action.stage]
        place = [index for index, block in enumerate(blocks) if block.hidden][action.block]
        change: dict[str, dict] = {
            'block': {'hidden': 0},
            'attention': {'attends': False},
            'hidden': {'hidden': action.to},
        }
        blocks[place] = replace(blocks[place], **change[action.kind])
    return stages


def write(path: Path, report: dict, space: Space, table: Table, shape: Shape, steps: list[Step]) -> None:
    """Writes the page.

    Args:
        path: of the page.
        report: what ``report.json`` says.
        space: of the original.
        table: that the search went by.
        shape: what was chosen.
        steps: the path there.
    """
    render(
        'slimming/page.html',
        path,
        {'path': path_chart(steps, report['budget'])},
        report=report,
        steps=steps,
        stages=blocks_after(space.original, [step.action for step in steps if step.action]),
        widths=list(zip(space.original.arch.embed_dims, shape.arch.embed_dims)),
        times=[times_by_stage(space, table, one) for one in (space.original, shape)],
        decoder=[(one.head, one.neck) for one in (space.original, shape)],
    )


def times_by_stage(space: Space, table: Table, shape: Shape) -> list[float]:
    """Milliseconds by stage, and of the head at the end; the stem counts to the first stage."""
    times = [0.0] * (len(shape.arch.depths) + 1)
    for part, count in space.parts(shape).items():
        times[-1 if part.part == 'head' else part.stage] += count * table.ms[part]
    return times


def path_chart(steps: list[Step], budget: float) -> dict:
    """Accuracy against predicted milliseconds, and a line at the budget."""
    texts = [f'{step.action or "the original"}, loss {step.loss:.4f}' for step in steps]
    return charts.path([step.ms for step in steps], [step.accuracy for step in steps], texts, budget * steps[0].ms)
