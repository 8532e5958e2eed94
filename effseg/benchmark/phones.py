"""What the runtimes' own benchmark programs print on a phone, as one table: how to run them is in ``docs/phone.md``."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .measure import check_plot

NUMBER = r'([0-9][0-9.e+-]*)'
PROGRAMS = 'benchmark_model, executor_runner, onnxruntime_perf_test and MLModelBenchmarker'
HEADER = ('output', 'runtime', 'ms', 'of', 'runs', '90 % under', 'first', 'load', 'delegate')


@dataclass(frozen=True)
class Measured:
    """One file on one phone. Times are in milliseconds; what a program does not print is None.

    Attributes:
        name: of the output.
        runtime: that printed it.
        milliseconds: of a run.
        statistic: what that is of all runs, 'median' or 'mean'.
        runs: how many.
        tail: what 90 % of the runs stay below.
        first: run, warm-up included.
        load: of the file.
        delegate: what the accelerator took of the graph, in the program's words.
    """

    name: str
    runtime: str
    milliseconds: float
    statistic: str
    runs: int | None = None
    tail: float | None = None
    first: float | None = None
    load: float | None = None
    delegate: str | None = None

    def row(self) -> tuple[str, ...]:
        times = ('-' if time is None else f'{time:.1f}' for time in (self.tail, self.first, self.load))
        return (
            self.name,
            self.runtime,
            f'{self.milliseconds:.1f}',
            self.statistic,
            str(self.runs or '-'),
            *times,
            self.delegate or '-',
        )


def table_of_phones(paths: Sequence[str], plot: str | None = None) -> None:
    """Prints a table of what benchmark programs printed, the fastest first.

    Args:
        paths: one file of text per run of a program; its name, without the suffix, names the row.
        plot: where to draw the same as bars.

    Raises:
        DataError: for a file that is not what such a program prints.
        ConfigError: for a plot that cannot be written there.
    """
    if plot:
        check_plot(plot)
    found = sorted((read(Path(path)) for path in paths), key=lambda one: one.milliseconds)
    rows = [HEADER, *(one.row() for one in found)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if plot:
        _plot(plot, found)


def read(path: Path) -> Measured:
    """What a file says of a run. Raises DataError, as :func:`table_of_phones`."""
    try:
        text = path.read_text(errors='replace')
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from error
    found = [one for reader in READERS for one in reader(path.stem, text)]
    if len(found) != 1:
        came = f'{len(found)} runs' if found else 'no time of a run'
        raise DataError(
            f'{path} has {came} in it, where one was expected: save what a single run of {PROGRAMS} prints, '
            'see docs/phone.md'
        )
    if not (math.isfinite(found[0].milliseconds) and found[0].milliseconds > 0):
        raise DataError(f'{path} says that a run took {found[0].milliseconds} ms; the program failed, run it again')
    return found[0]


def _litert(name: str, text: str) -> list[Measured]:
    """``Inference timings in us: Init: 842225, First inference: 115098, Warmup (avg): 40199.8, Inference (avg):
    35134.9``; before it, newer ones ``count=1694 ... median=33419 p95=42335``."""
    delegate = re.search(r'the model graph will (not be|be (?:completely|partially)) executed[^.\n]*', text)
    counts = re.findall(r'count=(\d+) first=\d+ .*', text)
    medians = re.findall(rf'count=\d+ first=.*median={NUMBER}', text)
    pattern = rf'Inference timings in us: Init: {NUMBER}, First inference: {NUMBER}, .*Inference \(avg\): {NUMBER}'
    return [
        Measured(
            name,
            'LiteRT',
            _number(medians[-1] if medians else mean) / 1e3,
            'median' if medians else 'mean',
            runs=int(counts[-1]) if counts else None,
            first=_number(first) / 1e3,
            load=_number(load) / 1e3,
            delegate=delegate and delegate[1].replace('be ', '').strip(),
        )
        for load, first, mean in re.findall(pattern, text)
    ]


def _executorch(name: str, text: str) -> list[Measured]:
    """``Model executed successfully 50 time(s) in 2214.603000 ms.``"""
    found = re.findall(rf'Model executed successfully (\d+) time\(s\) in {NUMBER} ms', text)
    return [
        Measured(name, 'ExecuTorch', _number(total) / max(int(runs), 1), 'mean', int(runs)) for runs, total in found
    ]


def _onnx(name: str, text: str) -> list[Measured]:
    """``Average inference time cost total: 98.96 ms``, and with ``-s`` ``P50 Latency: 0.0995 s``."""

    def seconds(label: str) -> float | None:
        found = re.search(rf'{label}: {NUMBER} s', text)
        return found and 1e3 * _number(found[1])

    median, runs = seconds('P50 Latency'), re.search(r'Total inference requests: (\d+)', text)
    first = re.search(rf'First inference time cost: {NUMBER} ms', text)
    return [
        Measured(
            name,
            'ONNX Runtime',
            median or _number(mean),
            'median' if median else 'mean',
            runs=runs and int(runs[1]),
            tail=seconds('P90 Latency'),
            first=first and _number(first[1]),
            load=seconds('Session creation time cost'),
        )
        for mean in re.findall(rf'Average inference time cost(?: total)?: {NUMBER} ms', text)
    ]


def _coreml(name: str, text: str) -> list[Measured]:
    """``MLModelBenchmarker.Measurement(statistics=MLModelBenchmarker.Statistics(..., median=3.2), samples=[...])``, as
    coremltools prints it."""
    pattern = rf'Statistics\(minimum=.*?median={NUMBER}\)(?:, samples=\[([^\]]*)\])?'
    return [
        Measured(name, 'Core ML', _number(median), 'median', len(samples.split(',')) if samples else None)
        for median, samples in re.findall(pattern, text)
    ]


READERS = (_litert, _executorch, _onnx, _coreml)


def _number(text: str) -> float:
    try:
        return float(text.rstrip('.'))
    except ValueError:
        return math.nan


def _plot(path: str, found: Sequence[Measured]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.35 * len(found)), layout='constrained')
    axes = figure.subplots()
    runtimes = list(dict.fromkeys(one.runtime for one in found))
    colors = [f'C{runtimes.index(one.runtime)}' for one in found]
    bars = axes.barh(range(len(found)), [one.milliseconds for one in found], color=colors)
    axes.bar_label(bars, [f'{one.milliseconds:.1f}' for one in found], padding=3)
    axes.set_yticks(range(len(found)), [f'{one.name} ({one.runtime})' for one in found])
    axes.invert_yaxis()
    axes.set_xlabel('ms')
    figure.savefig(path, dpi=110)
