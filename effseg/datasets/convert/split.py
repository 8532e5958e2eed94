"""Which images are held out to judge by: whole scenes, so that no image has its neighbour among those."""

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import DataError
from .drawing import Drawn

BLOCKS = 10  # of a sequence, which are held out whole


@dataclass
class Division:
    """The splits.

    Attributes:
        by: what was kept together, in words.
        seed: that the scenes were drawn by; None where the folder was divided already.
        parts: images by split.
        notes: classes that one of the splits lacks.
    """

    by: str
    seed: int | None
    parts: dict[str, list[Drawn]]
    notes: list[str] = field(default_factory=list)


def divide(drawn: list[Drawn], root: Path, names: list[str], seed: int = 0, share: float = 0.2) -> Division:
    """Divides labelled images into those to train on and those to judge by.

    What the folder divides stays so. Otherwise whole scenes are held out: folders, or images whose names begin alike;
    of one sequence, blocks of neighbours; where nothing shows, single images. Every class is in both where its images
    are of two scenes at least, and in ``train`` otherwise.

    Args:
        drawn: the images.
        root: of their files.
        names: of the classes.
        seed: for the choice of scenes.
        share: of the images to be held out.

    Raises:
        DataError: for fewer than two images.
    """
    if len(drawn) < 2:
        raise DataError(f'{len(drawn)} labelled image: one to train on and one to judge by are the least')
    given = defaultdict(list)
    for one in drawn:
        given[one.sample.split or 'train'].append(one)
    if 'test' in given and 'val' not in given:
        given['val'] = given.pop('test')
    if 'val' in given and 'train' in given:
        division = Division('as the folder divides it', None, {name: given[name] for name in sorted(given)})
    else:
        by, scenes = _scenes(drawn, root)
        held = _held_out(scenes, share * len(drawn), len(names), seed)
        parts: dict[str, list[Drawn]] = {'train': [], 'val': []}
        for number, scene in enumerate(scenes):
            parts['val' if number in held else 'train'] += scene
        division = Division(by, seed, parts)
    division.notes = _missing(division.parts, names)
    return division


def _scenes(drawn: list[Drawn], root: Path) -> tuple[str, list[list[Drawn]]]:
    """What belongs together, and by what that shows."""
    folders = _grouped(drawn, lambda one: str(one.image.parent))
    if len(folders) >= 3:
        return f'by folder ({len(folders)})', folders
    # what is before the number at the end, and a letter such as the f of "f0030"
    alike = _grouped(drawn, lambda one: re.sub(r'[_\-. ]*[a-zA-Z]?\d+$', '', one.image.stem))
    if 3 <= len(alike) <= len(drawn) / 2:
        return f'by scene, as the names begin ({len(alike)})', alike
    ordered = sorted(
        drawn, key=lambda one: [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', one.image.stem)]
    )
    if len(alike) < 3 and len(drawn) >= 2 * BLOCKS:
        blocks = np.array_split(np.arange(len(ordered)), BLOCKS)
        return f'by {BLOCKS} blocks of neighbours in a sequence of names', [
            [ordered[i] for i in block] for block in blocks
        ]
    return 'by image: the names show no scenes', [[one] for one in ordered]


def _grouped(drawn: list[Drawn], key) -> list[list[Drawn]]:
    groups = defaultdict(list)
    for one in drawn:
        groups[key(one)].append(one)
    return [groups[name] for name in sorted(groups)]


def _held_out(scenes: list[list[Drawn]], target: float, classes: int, seed: int) -> set[int]:
    """The numbers of the scenes that are held out."""
    holds = np.array([np.any([one.counts[:classes] > 0 for one in scene], axis=0) for scene in scenes])
    order = list(range(len(scenes)))
    random.Random(seed).shuffle(order)
    held, taken = set[int](), 0  # scenes, and their images
    left = holds.sum(0)  # scenes of each class that are not held out

    def may_go(number: int) -> bool:
        return number not in held and len(held) + 1 < len(scenes) and bool((left > holds[number])[holds[number]].all())

    def hold(number: int) -> None:
        nonlocal left, taken
        held.add(number)
        left, taken = left - holds[number], taken + len(scenes[number])

    for label in np.argsort(holds.sum(0), kind='stable').tolist():  # the rarest class first
        if any(holds[number, label] for number in held):
            continue
        fitting = [number for number in order if holds[number, label] and may_go(number)]
        for number in sorted(fitting, key=lambda number: len(scenes[number]) > target)[:1]:
            hold(number)
    for number in order:
        if may_go(number) and (not held or taken + len(scenes[number]) <= max(target, 1)):
            hold(number)
    if not held:  # every scene has a class of its own: the smallest is the least loss
        held = {min(order, key=lambda number: len(scenes[number]))}
    return held


def _missing(parts: dict[str, list[Drawn]], names: list[str]) -> list[str]:
    """Classes that are not in both splits, and those of a single image."""
    images = {
        name: [one for part in parts.values() for one in part if one.counts[label]] for label, name in enumerate(names)
    }
    notes = []
    for label, name in enumerate(names):
        absent = [split for split, part in parts.items() if not any(one.counts[label] for one in part)]
        if len(images[name]) == 1:
            ((split,),) = ([split for split, part in parts.items() if images[name][0] in part],)
            notes.append(f'class {name!r} is in one image alone, {images[name][0].image.name}, which is in {split}')
        elif absent:
            notes.append(f'class {name!r} is not in {" and ".join(absent)}')
    return notes
