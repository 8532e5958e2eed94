"""What became of each block, whatever the order of the actions."""

import random

import pytest

pytest.importorskip('mmseg')
from effseg.slimming.page import blocks_after, path_chart, times_by_stage
from effseg.slimming.search import Step
from effseg.slimming.slicing import Shape

from .test_exhaustive import random_times, space_of


@pytest.mark.parametrize('backbone', ['EfficientFormer', 'EfficientFormerV2'])
def test_the_blocks_that_are_left_are_those_of_the_architecture(backbone):
    space, generator = space_of(backbone), random.Random(5)
    for _ in range(20):
        shape, actions = space.original, []
        while len(actions) < 6 and (choice := space.actions(shape)):
            actions.append(generator.choice(choice))
            shape = shape.after(actions[-1])
        stages = blocks_after(space.original, actions)
        left = [[block for block in blocks if block.hidden] for blocks in stages]
        assert tuple(tuple(block.hidden for block in blocks) for blocks in left) == shape.arch.hidden_dims
        assert tuple(sum(block.attends for block in blocks) for blocks in left) == shape.arch.num_vit
        assert tuple(map(len, stages)) == space.original.arch.depths


def test_the_stages_take_the_time_of_their_parts():
    space = space_of('EfficientFormerV2')
    table = random_times(space, random.Random(0))
    smallest: Shape = space.smallest()
    before, after = (sum(times_by_stage(space, table, shape)) for shape in (space.original, smallest))
    assert table.predict(space, smallest) == pytest.approx(table.whole - before + after)


def test_the_path_is_drawn_from_the_original_on():
    space = space_of('EfficientFormerV2')
    action = space.actions(space.original)[0]
    figure = path_chart([Step(None, 0.5, 90.0, 10.0), Step(action, 0.6, 88.0, 7.5)], 0.7)
    assert figure['data'][0]['x'] == [10.0, 7.5] and figure['data'][0]['y'] == [90.0, 88.0]
    assert figure['layout']['shapes'][0]['x0'] == 7.0
