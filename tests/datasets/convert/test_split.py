"""How a folder of labels without splits is divided."""

import time
from pathlib import Path

import numpy as np
import pytest

from effseg.datasets.convert.drawing import Drawn
from effseg.datasets.convert.source import Sample
from effseg.datasets.convert.split import divide


def drawn(name: str, *classes: int) -> Drawn:
    counts = np.zeros(256, int)
    counts[list(classes)] = 9
    return Drawn(Sample(Path(name), name), Path(name), b'', counts)


def stems(part) -> set[str]:
    return {one.image.stem for one in part}


@pytest.mark.parametrize('seed', range(5))
def test_scenes_stay_together_and_classes_are_in_both_splits(seed):
    scenes = [
        drawn(f'street{scene}_{number:03}.jpg', 0, 1 + (scene in (3, 7))) for scene in range(10) for number in range(4)
    ]
    division = divide(scenes, Path('.'), ['a', 'b', 'c'], seed)
    held = {name.split('_')[0] for name in stems(division.parts['val'])}
    assert len(division.parts['val']) == 8 == 4 * len(held) and held & {'street3', 'street7'} and not division.notes
    assert 'by scene' in division.by and stems(divide(scenes, Path('.'), ['a', 'b', 'c'], seed).parts['val']) == stems(
        division.parts['val']
    )


@pytest.mark.parametrize('before', ['frame', ''])
def test_a_sequence_is_held_out_in_blocks_and_single_images_alone(before):
    division = divide([drawn(f'{before}{number}.jpg', 0, 1) for number in range(100)], Path('.'), ['a', 'b'])
    held = sorted(int(name.removeprefix(before)) for name in stems(division.parts['val']))
    assert len(held) == 20 and sum(second - first > 1 for first, second in zip(held, held[1:])) <= 1
    division = divide([drawn(f'{name}.jpg', 0, 1) for name in 'abcdefghij'], Path('.'), ['a', 'b'])
    assert len(division.parts['val']) == 2 and 'by image' in division.by


def test_a_class_of_one_image_is_trained_on_and_said():
    division = divide([drawn(f'{name}.jpg', 0, 1 + (name == 'd')) for name in 'abcdefghij'], Path('.'), ['a', 'b', 'c'])
    assert 'd' in stems(division.parts['train'])
    assert division.notes == ["class 'c' is in one image alone, d.jpg, which is in train"]


def test_many_images_are_divided_in_no_time():
    images = [drawn(f'{number}x.jpg', 0, 1 + number % 50) for number in range(4000)]
    started = time.perf_counter()
    assert len(divide(images, Path('.'), [*map(str, range(51))]).parts['val']) == 800
    assert time.perf_counter() - started < 2  # 5 s where every image is compared with every other
