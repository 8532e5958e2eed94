"""All pairs of a split, read in parallel, and what only all of them together show."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tqdm import tqdm

from ...errors import DataError
from .findings import ERROR, WARNING, Finding, few, finding
from .pair import PairResult, Rules, check_pair
from .split import Split

CHUNK = 8  # pairs that a process is given at once
ALIKE, CONTRAST = 2.5, 10.0  # levels: the mean difference of two thumbnails of one image, and the least contrast
EVEN = range(2, 16)  # steps that label maps are stretched over 0 to 255 in, to be seen


@dataclass
class Survey:
    """What was found in one split.

    Attributes:
        split: its name.
        pairs: how many were read.
        findings: everything wrong, folders first.
        values: a row for each raw value: what it becomes, its pixels, and in how many label maps it occurs.
        results: of the pairs.
    """

    split: str
    pairs: int
    findings: list[Finding] = field(default_factory=list)
    values: list[dict] = field(default_factory=list)
    results: list[PairResult] = field(default_factory=list)

    def classes(self, seen: bool) -> list[str]:
        """The classes that label maps hold, or those that none holds."""
        held = {row['becomes'] for row in self.values if row['pixels']}
        ours = dict.fromkeys(row['becomes'] for row in self.values if row['becomes'] not in ('ignored', 'out of range'))
        return [name for name in ours if (name in held) is seen]


def survey(split: Split, workers: int | None = None, sample: int | None = None, progress: bool = False) -> Survey:
    """Reads the pairs of a split.

    Args:
        split: see :func:`effseg.datasets.check.split.find_splits`.
        workers: processes at most; the number of cores when None, this process alone when 0.
        sample: read only so many pairs, spread evenly.
        progress: show a bar on a terminal.

    Raises:
        DataError: when a process dies.
    """
    pairs = split.pairs
    if sample is not None and len(pairs) > sample:
        pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, sample).round().astype(int)]
    count = min(os.cpu_count() or 1 if workers is None else workers, math.ceil(len(pairs) / CHUNK))
    read = _in_processes(pairs, split.rules, count) if count else (check_pair(*pair, split.rules) for pair in pairs)
    results = list(tqdm(read, split.name, len(pairs), unit=' pairs', disable=None if progress else True))
    found = Survey(split.name, len(pairs), [*split.findings], results=results)
    first: dict[str, str] = {}
    for result in results:
        found.findings += result.findings
        if result.digest and first.setdefault(result.digest, result.image) != result.image:
            message = f'shows the same pixels as {first[result.digest]}'
            found.findings.append(finding('image: twice', result.image, message))
    histograms = [result.histogram for result in results if result.histogram is not None]
    if histograms:
        _add_values(found, np.stack(histograms), split.rules)
        # a sample of a few label maps may lack a class by chance
        _check_all_values(found, split, None if sample is None else WARNING)
    return found


def _in_processes(pairs: list[tuple[str, str]], rules: Rules, count: int) -> Iterator[PairResult]:
    done = 0
    try:
        with ProcessPoolExecutor(count) as pool:
            for result in pool.map(partial(_check, rules=rules), pairs, chunksize=CHUNK):
                done += 1
                yield result
    except BrokenProcessPool as error:
        raise DataError(
            f'a process of the data check died, of too little memory or of a file that its decoder cannot take; the '
            f'first pair without an answer is {pairs[done][0]}. Fewer --workers need less memory; with --workers 0 the '
            'check runs in this process'
        ) from error


def _check(pair: tuple[str, str], rules: Rules) -> PairResult:
    return check_pair(*pair, rules)


def _add_values(found: Survey, histograms: np.ndarray, rules: Rules) -> None:
    pixels, maps = histograms.sum(0), (histograms > 0).sum(0)
    raw_of_classes = [raw for raw in range(256) if rules.meaning(raw) not in (None, 'ignored')]
    for raw in sorted({*np.flatnonzero(pixels).tolist(), *raw_of_classes}):
        found.values.append(
            dict(
                raw=raw,
                becomes=rules.meaning(raw) or 'out of range',
                pixels=int(pixels[raw]),
                share=float(pixels[raw] / pixels.sum()),
                label_maps=int(maps[raw]),
            )
        )


def _check_all_values(found: Survey, split: Split, severity: str | None) -> None:
    """Finds mistakes that no single label map shows, but the values of all together do. The first one found explains
    the others, so it is the only one reported."""
    rules, seen = split.rules, sorted(row['raw'] for row in found.values if row['pixels'])
    names, count = rules.classes, len(rules.classes)
    known = found.classes(seen=True)

    def mistake(kind, message, grave=severity):
        found.findings.append(finding(kind, os.path.dirname(split.pairs[0][1]), message, severity=grave))

    if seen == [0, 255] and 255 in rules.ignored and count > 1:
        mistake('labels: 0 and 255', f'255 is ignored, so that only {names[0]!r} would ever be learnt', None)
    elif _are_grey_levels(seen):
        message = f'the values are {", ".join(map(str, seen))}: the grey levels of classes that were to be seen'
        mistake('labels: grey levels', message + (', and 255 is ignored' if 255 in rules.ignored else ''))
    elif all(rules.meaning(value) == 'ignored' for value in seen):
        mistake('labels: nothing labelled', f'no label map holds a class: all pixels are {seen[0]}, and ignored')
    elif not rules.label_map and rules.reduce_zero_label and 0 in seen and max({*seen} - {255}, default=0) == count - 1:
        message = (
            f'reduce_zero_label=True, but the values count from 0: the first class ({names[0]!r}, value 0) is ignored, '
            f'every other is taken for the one before it, and the last ({names[-1]!r}) is never seen'
        )
        mistake('labels: reduce_zero_label', message)
    elif not rules.label_map and not rules.reduce_zero_label and count in seen and 0 not in seen:
        mistake('labels: count from 1', f'the values are 1 to {max({*seen} - {255})}, and training counts from 0')
    elif len(known) == 1 and count > 1 and 'out of range' not in {row['becomes'] for row in found.values}:
        grave = severity if found.split.startswith('train') else WARNING
        mistake(
            'labels: one class alone', f'every labelled pixel is {known[0]!r}: there is nothing to tell apart', grave
        )


def _are_grey_levels(seen: list[int]) -> bool:
    """Whether values are classes stretched over 0 to 255, such as 0, 127, 255, or most of them."""
    if len(seen) < 3 or seen[0] != 0:
        return False
    for steps in EVEN:
        levels = {rounded(255 * step / steps) for step in range(steps + 1) for rounded in (math.floor, math.ceil)}
        if levels.issuperset(seen) and 2 * len(seen) > steps + 1:
            return True
    return False


def compare(surveys: list[Survey]) -> list[Finding]:
    """What is wrong between the splits: classes that training does not see, images that are in two of them."""
    return [*_classes_without_training(surveys), *_images_in_two_splits(surveys)]


def _classes_without_training(surveys: list[Survey]) -> Iterator[Finding]:
    train = [found for found in surveys if found.split.startswith('train') and found.values]
    # a mistake in all values has been said already, and explains more
    if not train or any(
        one.severity == ERROR and one.kind.startswith('labels:') for found in train for one in found.findings
    ):
        return
    seen = {name for found in train for name in found.classes(seen=True)}
    missed = [name for name in train[0].classes(seen=False) if name not in seen]
    for found in surveys:
        alone = [name for name in found.classes(seen=True) if name in missed]
        if alone:
            missed = [name for name in missed if name not in alone]
            message = f'{few(map(repr, alone), 8)}: occurs in {found.split}, and in no label map of train'
            where = next(result.label_map for result in found.results if result.label_map)
            yield finding('labels: class not in train', os.path.dirname(where), message)
    if missed:
        where = os.path.dirname(next(result.label_map for result in train[0].results if result.label_map))
        yield finding('labels: class never seen', where, f'no label map of train holds {few(map(repr, missed), 8)}')


def _images_in_two_splits(surveys: list[Survey]) -> Iterator[Finding]:
    """The same pixels, in whatever files, and images that look the same: scaled or compressed anew."""
    for number, later in enumerate(surveys):
        for earlier in surveys[:number]:
            if later.split.partition('[')[0] == earlier.split.partition('[')[0]:
                continue
            ours, theirs = ([one for one in found.results if one.digest] for found in (later, earlier))
            digests = {one.digest: one for one in theirs}
            alike = _alike(ours, theirs)
            for one in ours:
                same, other = digests.get(one.digest), alike.get(one.image)
                twin = same or other
                # one file in both is said once for all of them, as the folders'
                if not twin or os.path.realpath(one.image) == os.path.realpath(twin.image):
                    continue
                message = f'of {later.split} is also in {earlier.split}, as {twin.image}: scores would be too good'
                if not same:
                    message = f'of {later.split} looks like {twin.image} of {earlier.split}'
                yield finding('image: in two splits' if same else 'image: alike in two splits', one.image, message)


def _alike(ours: list[PairResult], theirs: list[PairResult]) -> dict[str, PairResult]:
    """Per path of ours, the image of theirs whose thumbnail is the nearest, if it is near."""
    if not ours or not theirs:
        return {}
    first, second = (
        np.array([one.thumbnail for one in side]).reshape(len(side), -1).astype(np.float32) for side in (ours, theirs)
    )
    found = {}
    for start in range(0, len(ours), 256):  # a few at a time: the table of all distances may be large
        some = first[start : start + 256]
        squares = (some**2).mean(1)[:, None] + (second**2).mean(1) - 2 * some @ second.T / some.shape[1]
        for row, nearest in enumerate(squares.argmin(1)):
            if squares[row, nearest] < ALIKE**2 and some[row].std() > CONTRAST:
                found[ours[start + row].image] = theirs[nearest]
    return found
