"""The optimum is that of all architectures, which are enumerated here another way."""

import itertools
import json
import random
from functools import reduce

import pytest

pytest.importorskip('mmseg')
from effseg.errors import ConfigError
from effseg.models.arch import resolve_arch
from effseg.slimming import exhaustive as subject
from effseg.slimming import slim
from effseg.slimming.exhaustive import corrected, depths, exhaustive, judged_depths, named, single_actions
from effseg.slimming.slicing import Action, Network, Shape
from effseg.slimming.space import Space
from effseg.slimming.table import Table

from .conftest import ATTENTION, model_config
from .test_latency import TINY
from .test_slim import table  # noqa: F401, a fixture

# some thousand architectures
ARCH = dict(depths=(1, 2, 1, 2), embed_dims=(16, 16, 16, 32), mlp_ratios=((2,), (2, 1), (2,), (2, 1)))


def space_of(backbone: str) -> Space:
    arch = resolve_arch({**ARCH, 'num_vit': 2 if backbone == 'EfficientFormer' else 1}, {}, ATTENTION[backbone])
    return Space(Network(model_config(backbone, 'all-MLP'), arch, {}))


def random_times(space: Space, generator: random.Random) -> Table:
    made = Table('onnx', 'a device', 1, (64, 64), '', 100.0)
    made.ms = {part: generator.uniform(1, 9) for part in space.all_parts()}
    return made


def every_architecture(space: Space, losses: dict[str, float]):
    """The actions to each, and what they cost together."""
    arch = space.original.arch

    def cost(*actions):
        return sum(losses[str(action)] - losses[''] for action in actions)

    places = []
    for stage, depth in enumerate(arch.depths):
        first = depth - arch.num_vit[stage]
        attention = [[Action('attention', stage, first + n) for n in range(k)] for k in range(arch.num_vit[stage] + 1)]
        places.append([(actions, losses[named(actions)] - losses['']) for actions in attention])
        choices = []
        for block, hidden in enumerate(arch.hidden_dims[stage]):
            own = [[], *([Action('hidden', stage, block, width)] for width in space.hidden[stage] if width < hidden)]
            choices.append([*own, [Action('block', stage, block)]] if depth > 1 else own)
        # from the last block on, so that numbers stay those of the original
        together = [sum(reversed(chosen), []) for chosen in itertools.product(*choices)]
        left = [chosen for chosen in together if sum(action.kind == 'block' for action in chosen) < depth]
        places.append([(actions, cost(*actions)) for actions in left])
        widths = [[], *([Action('width', stage, to=to)] for to in space.widths[stage] if to < arch.embed_dims[stage])]
        places.append([(actions, cost(*actions)) for actions in widths])
    for chosen in itertools.product(*places):
        yield sum((actions for actions, _ in chosen), []), sum(price for _, price in chosen)


@pytest.mark.parametrize('backbone', ['EfficientFormer', 'EfficientFormerV2'])
def test_the_optimum_is_that_of_all_architectures(backbone):
    space, generator = space_of(backbone), random.Random(0)
    times = random_times(space, generator)
    # some actions make the network better
    losses = {'': 1.0} | {named(actions): 1 + generator.uniform(-0.1, 1) for actions in single_actions(space)}
    everything = [
        (times.predict(space, reduce(Shape.after, actions, space.original)), price)
        for actions, price in every_architecture(space, losses)
    ]
    assert len(everything) > 500
    fastest = min(ms for ms, _ in everything)
    for target in (fastest, fastest + 3, fastest + 10, 95.0):
        actions, price = exhaustive(space, times, target + 1e-9, losses)
        assert times.predict(space, reduce(Shape.after, actions, space.original)) <= target + 1e-6
        assert price == pytest.approx(min(price for ms, price in everything if ms <= target + 1e-9))
    with pytest.raises(ConfigError, match='nothing in the space reaches'):
        exhaustive(space, times, fastest - 1e-3, losses)


@pytest.mark.parametrize('target', [85.0, 80.0])
def test_an_action_that_costs_more_behind_others_is_corrected(target):
    """Of all that is judged the best is taken; where losses add up, that is the first."""
    space, generator = space_of('EfficientFormer'), random.Random(0)
    times = random_times(space, generator)
    losses = {'': 1.0} | {named(actions): 1 + generator.uniform(0, 0.1) for actions in single_actions(space)}
    plain, _ = exhaustive(space, times, target, losses)
    for culprit in (None, *plain):
        judged = []

        def behind_each(actions, judged=judged, culprit=culprit):
            found = [1 + 0.1 * count + 5 * (culprit in actions[:count]) for count in range(1, len(actions) + 1)]
            judged.append((found[-1], actions))
            return found

        found = corrected(space, times, target, losses, behind_each)
        assert judged[0][1] == plain and found == min(judged, key=lambda one: one[0])[1]
        assert times.predict(space, reduce(Shape.after, found, space.original)) <= target + 1e-6
        assert culprit not in found


def test_of_depths_all_that_meet_the_time_and_no_block_too_few():
    space, generator = space_of('EfficientFormer'), random.Random(0)
    times = random_times(space, generator)
    losses = {named(actions): generator.uniform(0, 1) for actions in single_actions(space)}
    whole = times.predict(space, space.original)
    found = depths(space, times, whole - 1e-3, losses)
    assert all(len(actions) == 1 for actions in found) and len(found) == 2  # one block of either stage of two
    for (action,) in found:
        other = Action('block', action.stage, 1 - action.block)
        assert losses[str(action)] < losses[str(other)]
    both = times.predict(space, reduce(Shape.after, [a for actions in found for a in actions], space.original))
    assert [len(actions) for actions in depths(space, times, both + 1e-9, losses)] == [2]
    with pytest.raises(ConfigError, match='leaving out blocks alone does not reach'):
        depths(space, times, both - 1e-3, losses)


def test_of_depths_the_one_that_loses_least_is_taken_and_none_is_judged_twice(monkeypatch):
    candidates = [[Action('block', 1, 0)], [Action('block', 3, 1), Action('block', 3, 0)], [Action('block', 3, 0)]]
    judged = []
    monkeypatch.setattr(subject, 'apply', lambda network, action, importance: (*network, action))

    def judge(network, samples):
        judged.append(list(network))
        return 1.0 - 0.1 * len(network), network

    monkeypatch.setattr(subject, 'judge', judge)
    saved = []
    known = {str(candidates[0][0]): 0.85}
    best = judged_depths((), candidates, None, known, lambda losses: saved.append(len(losses)))
    assert best == candidates[1] and judged == candidates[1:] and saved == [2, 3]


def test_a_search_from_the_command_line_goes_on_where_it_was(
    scenes,
    checkpoint,
    table,  # noqa: F811
    tool,
    tmp_path,
    monkeypatch,
):
    def arguments(out):
        given = ('slim', TINY, checkpoint, '--table', table, '--budget', 0.7, '--images', 2, '--search', 'exhaustive')
        return (*given, '--out', tmp_path / out)

    outcome = tool(*arguments('whole'))
    assert outcome.status == 0, outcome.err
    report = json.loads((tmp_path / 'whole/report.json').read_text())
    (found,) = report['latency']
    assert report['search'] == 'exhaustive' and found['predicted_ms'] <= 0.7 * found['original_ms']
    with monkeypatch.context() as patch:
        judge, calls = subject.judge, []

        def some(*given):
            calls.append(given)
            if len(calls) > 3:
                raise KeyboardInterrupt
            return judge(*given)

        patch.setattr(subject, 'judge', some)
        assert tool(*arguments('cut')).status == 130
    outcome = tool(*arguments('cut'))
    assert outcome.status == 0 and 'going on behind step 0' in outcome.out, outcome.err
    assert json.loads((tmp_path / 'cut/report.json').read_text())['path'] == report['path']
    assert len(calls) == 4 and slim.STATE in {file.name for file in (tmp_path / 'cut').iterdir()}
