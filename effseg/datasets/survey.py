"""All pairs of a config's data sets, checked in parallel: what single files cannot show, a table for people, JSON for
programs."""

import json
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import DataError
from .pairs import ERROR, WARNING, Finding, PairResult, Rules, check_pair
from .splits import Split


@dataclass
class Survey:
    """What was found in one split.

    Attributes:
        split: its name.
        pairs: how many were read.
        findings: everything wrong, files first.
        values: per raw value: what it becomes, its pixels, and in how many label maps it occurs.
        digests: image path by digest of the file.
    """

    split: str
    pairs: int
    findings: list[Finding] = field(default_factory=list)
    values: list[dict] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


def survey(split: Split, workers: int | None = None, sample: int | None = None, progress: bool = False) -> Survey:
    """Reads the pairs of a split.

    Args:
        split: see :func:`effseg.datasets.splits.find_splits`.
        workers: processes; the number of cores when None, this process alone when 0.
        sample: read only so many pairs, spread evenly.
        progress: show a bar.
    """
    pairs = split.pairs
    if sample is not None and len(pairs) > sample:
        pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, sample).round().astype(int)]
    results = list(_results(pairs, split.rules, workers, progress))
    found = Survey(split.name, len(pairs), [*split.findings])
    for result in results:
        found.findings += result.findings
        if result.digest in found.digests:
            found.findings.append(
                Finding(
                    'image: twice',
                    WARNING,
                    result.image,
                    f'is the same file as {found.digests[result.digest]}',
                    'delete one of the pairs',
                )
            )
        elif result.digest:
            found.digests[result.digest] = result.image
    histograms = [result.histogram for result in results if result.histogram is not None]
    if histograms:
        _add_values(found, np.stack(histograms), split.rules)
        # a sample of a few label maps may lack a class by chance
        found.findings += _classic_mistakes(found, split, ERROR if sample is None else WARNING)
    return found


def shared_between(surveys: list[Survey]) -> list[Finding]:
    """Images of one split that are also in another."""
    findings = []
    for number, later in enumerate(surveys):
        for earlier in surveys[:number]:
            for digest in later.digests.keys() & earlier.digests.keys():
                findings.append(
                    Finding(
                        'image: in two splits',
                        ERROR,
                        later.digests[digest],
                        f'of {later.split} is also in {earlier.split}, as '
                        f'{earlier.digests[digest]}: scores would be too good',
                        'take it out of one of them',
                    )
                )
    return sorted(findings, key=lambda finding: finding.path)


def _results(pairs: list[tuple[str, str]], rules: Rules, workers: int | None, progress: bool):
    from mmengine.utils import ProgressBar

    bar = ProgressBar(len(pairs)) if progress and pairs else None
    check = partial(_check, rules=rules)
    count = os.cpu_count() if workers is None else workers
    with ProcessPoolExecutor(count) if count else _Here() as pool:
        for result in pool.map(check, pairs, **({'chunksize': 8} if count else {})):
            if bar:
                bar.update()
            yield result
    if bar:
        print()


class _Here:
    """The builtin map in the form of a pool."""

    def __enter__(self):
        return self

    def __exit__(self, *details):
        pass

    map = staticmethod(map)


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


def _classic_mistakes(found: Survey, split: Split, severity: str) -> list[Finding]:
    """What only the values of all label maps together show."""
    rules, seen = split.rules, {row['raw'] for row in found.values if row['pixels']}
    where = str(Path(split.pairs[0][1]).parent)
    count = len(rules.classes)
    if seen == {0, 255} and 255 in rules.ignored and count > 1:
        return [
            Finding(
                'labels: 0 and 255',
                ERROR,
                where,
                f'255 is ignored, so that only {rules.classes[0]!r} would ever be learnt',
                'write 1 where the label maps have 255, or name 255 nowhere as ignore_index',
            )
        ]
    if rules.label_map:
        return []
    if rules.reduce_zero_label and 0 in seen and count not in seen and max(seen - {255}, default=0) == count - 1:
        return [
            Finding(
                'labels: reduce_zero_label',
                severity,
                where,
                f'reduce_zero_label=True, but the values count from 0: the first class ({rules.classes[0]!r}, '
                'value 0) is ignored, every other is taken for the one before it, and the last '
                f'({rules.classes[-1]!r}) is never seen',
                "leave reduce_zero_label out of the data set's config and of LoadAnnotations",
            )
        ]
    if not rules.reduce_zero_label and count in seen and 0 not in seen:
        return [
            Finding(
                'labels: count from 1',
                severity,
                where,
                f'the values are 1 to {max(seen - {255})}, and training counts from 0',
                "set reduce_zero_label=True in the data set's config",
            )
        ]
    return []


def table(surveys: list[Survey], findings: list[Finding]) -> str:
    """A report to read: kinds of findings with an example each, then what the label values become."""
    lines = []
    for found in surveys:
        bad = Counter(finding.severity for finding in found.findings)
        lines.append(f'{found.split}: {found.pairs} pairs, {bad[ERROR]} errors, {bad[WARNING]} warnings')
    by_kind: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault((finding.severity, finding.kind), []).append(finding)
    for (severity, kind), same in sorted(by_kind.items()):
        lines += [
            '',
            f'{severity}: {kind} ({len(same)})',
            *(f'  {finding.path}: {finding.message}' for finding in same[:3]),
        ]
        lines += [f'  ... and {len(same) - 3} more, in the JSON report'] * (len(same) > 3) + [
            f'  what to do: {same[0].remedy}'
        ]
    for found in surveys:
        lines += [
            '',
            f'{found.split}: what the values of the label maps become',
            f'{"value":>6}  {"becomes":24} {"pixels":>8}  {"label maps":>10}',
        ]
        lines += [
            f'{row["raw"]:>6}  {row["becomes"][:24]:24} {row["share"]:>8.2%}  {row["label_maps"]:>10}'
            + ('' if row['pixels'] else '  never seen')
            for row in found.values
        ]
    return '\n'.join(lines)


def write_json(path: str, surveys: list[Survey], findings: list[Finding]) -> None:
    """The same for programs: ``{'ok', 'splits': [{'split', 'pairs', 'values'}], 'findings': [...]}``.

    Raises:
        DataError: when it cannot be written.
    """
    content = dict(
        ok=not any(finding.severity == ERROR for finding in findings),
        splits=[dict(split=found.split, pairs=found.pairs, values=found.values) for found in surveys],
        findings=[asdict(finding) for finding in findings],
    )
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise DataError(f'{path} cannot be written: {error.strerror}') from error
