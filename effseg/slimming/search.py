"""The search for what a trained segmenter can do without, action by action or all at once."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..errors import ConfigError
from .evaluate import Judgement, Samples, judge, weigh
from .exhaustive import corrected, depths, judged_depths, measure_losses, named, realised, single_actions
from .slicing import Action, Network, apply
from .space import Space
from .table import Table


@dataclass(frozen=True)
class Step:
    """An action that was taken, and the network behind it."""

    action: Action | None  # None for the original
    loss: float  # on held-out training images
    accuracy: float  # percent of their pixels that are right
    ms: float  # predicted

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


@dataclass
class Search:
    """A search, and where it stands."""

    space: Space  # of the original
    table: Table  # of its parts
    target: float  # milliseconds to reach
    samples: Samples  # to judge candidates on
    network: Network  # what is left of the original
    path: list[Step]  # the steps that led there; empty before the original is judged
    losses: dict[str, float]  # of single actions and of combinations, as far as they are known
    save: Callable[['Search'], None]  # is given the search behind every step

    def gradual(self) -> None:
        """Takes, of all single actions, the one that loses least per millisecond, again and again until the time is
        met. What an action gains beyond the target counts for nothing.

        Raises:
            ConfigError: when nothing that is left gains time.
        """
        count = len(self.space.actions(self.space.original))
        self._begin('at most {} candidates per step, {:.1f} s each: at most {:.1f} min a step', count)
        while self.path[-1].ms > self.target:
            network, now = self.network, self.path[-1]
            scores, tokens = weigh(network, self.samples.statistics)
            best: tuple[float, Action, Judgement] | None = None
            for action in self.space.actions(network.shape):
                gain = now.ms - max(self.table.predict(self.space, network.shape.after(action)), self.target)
                if gain <= 0:
                    continue
                judged = judge(apply(network, action, scores, tokens), self.samples)
                price = (judged.loss - now.loss) / gain
                if best is None or price < best[0]:
                    best = price, action, judged
            if best is None:
                raise ConfigError(
                    f'nothing that is left gains time: {now.ms:.2f} ms were reached, {self.target:.2f} were asked for'
                )
            self._take(*best[1:])

    def at_once(self, search: str) -> None:
        """Chooses an architecture first, ``'exhaustive'`` or by ``'depths'``, and then takes the actions that lead
        there."""
        self._begin('{} single actions to judge, {:.1f} s each: {:.1f} min', len(single_actions(self.space)))
        if len(self.path) == 1:
            self.losses = measure_losses(self.network, self.space, self.samples, self.losses, self._know)
        if search == 'exhaustive':
            actions = corrected(self.space, self.table, self.target, self.losses, self._behind_each)
        else:
            candidates = depths(self.space, self.table, self.target, self.losses)
            print(f'{len(candidates)} combinations of depths that none with a block more meets')
            # behind the first step all are known
            actions = judged_depths(self.network, candidates, self.samples, self.losses, self._know)
        for action, judged in realised(self.network, actions[len(self.path) - 1 :], self.samples):
            self._take(action, judged)

    def _begin(self, text: str, count: int) -> None:
        """Judges the original, unless that is done, and says how long ``count`` candidates take."""
        if self.path:
            return
        started = time.monotonic()
        loss, accuracy, self.network = judge(self.network, self.samples)
        self.path = [Step(None, loss, accuracy, self.table.predict(self.space, self.space.original))]
        seconds = time.monotonic() - started
        print(text.format(count, seconds, count * seconds / 60))
        self.save(self)

    def _behind_each(self, actions: list[Action]) -> list[float]:
        """The loss of the original behind each of some actions; behind the first step all are known."""
        names = [named(actions[: count + 1]) for count in range(len(actions))]
        if not set(names) <= set(self.losses):
            for name, (_, judged) in zip(names, realised(self.network, actions, self.samples)):
                self._know({**self.losses, name: judged.loss})
        return [self.losses[name] for name in names]

    def _know(self, losses: dict[str, float]) -> None:
        self.losses = losses
        self.save(self)

    def _take(self, action: Action, judged: Judgement) -> None:
        self.network = judged.network
        ms = self.table.predict(self.space, self.network.shape)
        self.path = [*self.path, Step(action, judged.loss, judged.accuracy, ms)]
        print(f'step {len(self.path) - 1}: {action}, loss {judged.loss:.4f}, {ms:.2f} ms', flush=True)
        self.save(self)
