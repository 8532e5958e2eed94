"""Every file that can be had of a checkpoint, and one table of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..deploy import load
from ..deploy.backends import backend
from ..deploy.exporting import Export
from ..errors import EffsegError
from ..timing import time_in_turn

RUNS = 10  # of every file, in turn
HEADER = ('file', 'MB', 'ms here', 'same labels', 'on an fp16 accelerator', 'mIoU')


@dataclass(frozen=True)
class Exports:
    """What an export of several files did.

    Attributes:
        done: the files that were written.
        seconds: median of a run on this machine, by path, of those that run here.
        failed: why there is no file, by runtime and precision.
    """

    done: tuple[Export, ...]
    seconds: dict[Path, float]
    failed: dict[tuple[str, str], str]

    def __str__(self):
        rows = [HEADER, *(self._row(one) for one in self.done)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
        lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        lines += [f'{runtime} {precision}: no file. {reason}' for (runtime, precision), reason in self.failed.items()]
        return '\n'.join(lines)

    def _row(self, one: Export) -> tuple[str, ...]:
        half = '-'
        if one.accelerated:
            kept = one.accelerated.parity
            half = f'{100 * kept.agreement:.2f} %' if kept else 'no labels'
            half += ', overflows' if one.accelerated.overflow else ''
        return (
            one.path.name + (' (INACCURATE)' if one.inaccuracy else ''),
            f'{one.megabytes:.1f}',
            f'{1e3 * self.seconds[one.path]:.1f}' if one.path in self.seconds else '-',
            f'{100 * one.parity.agreement:.2f} %',
            half,
            '-' if one.parity.miou is None else f'{one.parity.miou:.2f}',
        )


def write_all(write: Callable[[str, str], Export], runtimes: Sequence[str], precisions: Sequence[str]) -> Exports:
    """Writes the files of some runtimes in some precisions, prints each as it is done, and times them in turn.

    Args:
        write: writes the file of a runtime and a precision.
        runtimes: names, of :data:`~effseg.deploy.backends.SUFFIXES`.
        precisions: of each, as far as it has them.
    """
    done, failed = [], {}
    for runtime in runtimes:
        writer = backend(runtime)
        known = (*writer.PRECISIONS, *getattr(writer, 'MISSING', {}))
        for precision in (one for one in precisions if one in known):
            try:
                done.append(write(runtime, precision))
                print(done[-1], flush=True)
            except (EffsegError, OSError, MemoryError) as error:
                failed[runtime, precision] = str(error)
                print(f'{runtime} {precision}: no file. {error}', flush=True)
    # a package of Core ML, interpreted in the proof, has no time off macOS
    runs = {
        one.path: partial(load(one.path), np.zeros(one.spec.image_shape, np.uint8))
        for one in done
        if not one.interpreted
    }
    timings = time_in_turn({str(path): run for path, run in runs.items()}, RUNS) if runs else {}
    return Exports(tuple(done), {Path(path): timing.median for path, timing in timings.items()}, failed)
