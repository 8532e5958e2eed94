"""The search for what a trained segmenter can do without: one action after the other, the cheapest loss first."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..errors import ConfigError
from .evaluate import Samples, judge, weigh
from .slicing import Action, Network, apply
from .space import Space
from .table import Table


@dataclass(frozen=True)
class Step:
    """An action that was taken, and the network behind it.

    Attributes:
        action: None for the original.
        loss: on held-out training images.
        accuracy: percent of their pixels that are right.
        ms: predicted.
    """

    action: Action | None
    loss: float
    accuracy: float
    ms: float

    def as_dict(self) -> dict:
        """Plain data."""
        named = None if self.action is None else {**asdict(self.action), 'text': str(self.action)}
        return dict(action=named, loss=self.loss, accuracy=self.accuracy, ms=self.ms)


def check_budget(space: Space, table: Table, target: float) -> None:
    """Raises ConfigError for a time that no architecture of the space reaches, with the fastest that one does."""
    fastest = min(table.predict(space, space.smallest()), table.predict(space, space.original))
    if fastest > target:
        whole = table.predict(space, space.original)
        raise ConfigError(
            f'nothing reaches {target:.2f} ms of {whole:.2f}: the fastest architecture of the space takes '
            f'{fastest:.2f}, --budget {fastest / whole:.2f}'
        )


def begin(network: Network, space: Space, table: Table, samples: Samples) -> tuple[Network, list[Step], float]:
    """Judges the original: its network with BatchNorm statistics measured anew, the first step, and the seconds that a
    candidate takes."""
    started = time.monotonic()
    loss, accuracy, network = judge(network, samples)
    path = [Step(None, loss, accuracy, table.predict(space, space.original))]
    return network, path, time.monotonic() - started


def gradual(
    network: Network,
    space: Space,
    table: Table,
    target: float,
    samples: Samples,
    path: list[Step],
    save: Callable[[Network, list[Step]], None],
) -> tuple[Network, list[Step]]:
    """Takes, of all single actions, the one that loses least per millisecond, again and again until the time is met.

    What an action gains beyond the target counts for nothing.

    Args:
        network: where to begin: the original, or where an earlier search was interrupted.
        space: of the original.
        table: of its parts.
        target: milliseconds to reach.
        samples: to judge candidates on.
        path: the steps that led to ``network``; empty at the original.
        save: called behind every step.

    Returns:
        The network, with its BatchNorm statistics measured anew, and the path.

    Raises:
        ConfigError: when nothing that is left gains time.
    """
    if not path:
        network, path, seconds = begin(network, space, table, samples)
        count = len(space.actions(space.original))
        print(
            f'at most {count} candidates per step, {seconds:.1f} s each: at most {count * seconds / 60:.1f} min a step'
        )
        save(network, path)
    while path[-1].ms > target:
        shape, now = network.shape, path[-1]
        scores, tokens = weigh(network, samples.statistics)
        best: tuple[float, Step, Network] | None = None
        for action in space.actions(shape):
            ms = table.predict(space, shape.after(action))
            gain = now.ms - max(ms, target)
            if gain <= 0:
                continue
            loss, accuracy, smaller = judge(apply(network, action, scores, tokens), samples)
            price = (loss - now.loss) / gain
            if best is None or price < best[0]:
                best = price, Step(action, loss, accuracy, ms), smaller
        if best is None:
            raise ConfigError(
                f'nothing that is left gains time: {now.ms:.2f} ms were reached, {target:.2f} were asked for'
            )
        network, path = best[2], [*path, best[1]]
        print(f'step {len(path) - 1}: {path[-1].action}, loss {path[-1].loss:.4f}, {path[-1].ms:.2f} ms')
        save(network, path)
    return network, path
