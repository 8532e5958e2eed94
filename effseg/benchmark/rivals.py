"""Segmenters as files of one runtime, timed in turn, beside the mIoU that they are known to reach."""

import contextlib
import functools
import itertools
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..apis.opening import open_segmenter
from ..demo.scenes import draw_scene
from ..deploy.backends import SUFFIXES, backend
from ..deploy.interface import given
from ..deploy.program import Unfused
from ..deploy.spec import Spec
from ..errors import FuseError
from ..fusion.segmentor import check_size, fuse
from ..timing import time_in_turn
from .contestants import Contestant, rivals
from .measure import check_counts, check_plot, machine, spec_of, thread_counts, work


def compare_rivals(
    runtime: str = 'onnx',
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    plot: str | None = None,
    contestants: Sequence[Contestant] | None = None,
) -> None:
    """Prints how long exported files of several segmenters take from image to logits.

    All are exported alike, with random weights: fused where they have a fused form, unless the contestant says
    otherwise; else as they were trained.

    Args:
        runtime: ``'onnx'``, ``'executorch'`` or ``'litert'``.
        size: (H, W) of the image.
        runs: of each that count, in turn.
        threads: each of these thread counts in turn.
        plot: a file for a plot of the time on the first of ``threads`` against the mIoU.
        contestants: :func:`~effseg.benchmark.contestants.rivals` when left out. The first is what the others are
            compared with.
    """
    size = check_size(size)
    check_counts(runs, threads)
    if plot:
        check_plot(plot)
    writer, contestants = backend(runtime), rivals() if contestants is None else contestants
    image = given(draw_scene(size, np.random.default_rng(0))[0], Spec.unnamed(runtime, size))
    print(f'{machine()}  {runtime} fp32  {size[0]}x{size[1]}  random weights  image to logits  {runs} runs in turn')
    milliseconds = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f'{number}{SUFFIXES[runtime]}' for number in range(len(contestants))]
        macs = [_write(one, runtime, size, path) for one, path in zip(contestants, paths)]
        for count in thread_counts(threads):
            opened = {str(path): functools.partial(writer.load(path, count).run, image) for path in paths}
            milliseconds[count] = [1e3 * timing.median for timing in time_in_turn(opened, runs).values()]
            print(f'{"model":<36}{"mIoU":>22}{"GMAC":>8}{"ms":>9}{"ratio":>7}  {count} thread(s)')
            for one, work_of, took in zip(contestants, macs, milliseconds[count]):
                ratio = took / milliseconds[count][0]
                print(f'{one.name:<36}{_shown(one):>22}{work_of:>8.1f}{took:>9.1f}{ratio:>7.2f}', flush=True)
            opened.clear()  # ExecuTorch changes its threads only while no file is open
    if plot:
        _plot(plot, milliseconds[threads[0]], contestants, f'{runtime}, {threads[0]} thread(s), {size[0]}x{size[1]}')


def _write(one: Contestant, runtime: str, size: tuple[int, int], path: Path) -> float:
    """Writes a contestant as a file; returns its GMAC."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of defaults that matter in training alone
        model = open_segmenter(one.config, cfg_options=one.options, device='cpu').trained
    network: nn.Module = Unfused(model)
    if one.fused:
        with contextlib.suppress(FuseError):
            network = fuse(model, size).exportable()
    backend(runtime).export(network, spec_of(model, runtime, size), path, [])
    return work(lambda: network.logits(torch.zeros(1, 3, *size)))  # type: ignore[misc]


def _shown(one: Contestant) -> str:
    """The mean of the scores, and of several their range."""
    if len(one.scores) < 2:
        return '-' if one.score is None else f'{one.score:.1f}'
    return f'{one.score:.2f} ({min(one.scores):.2f}-{max(one.scores):.2f})'


def _plot(path: str, milliseconds: Sequence[float], contestants: Sequence[Contestant], title: str) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout='constrained')
    axes = figure.subplots()
    lowest = min((score for one in contestants for score in one.scores), default=0.0) - 1
    unknown = not all(one.scores for one in contestants)
    colors = colormaps['tab20'].colors  # type: ignore[attr-defined]
    for took, one, color in zip(milliseconds, contestants, itertools.cycle(colors)):
        if one.scores:
            axes.plot([took] * 2, [min(one.scores), max(one.scores)], color=color, lw=1)
        shape = ('o' if one.ours else 's') if one.scores else '|'
        axes.plot(took, lowest if one.score is None else one.score, shape, color=color, ms=9, mew=2, label=one.name)
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1), fontsize=8)
    axes.set_xlabel('ms from image to logits, ' + title)
    axes.set_ylabel('mIoU (bars at the bottom: not known)' if unknown else 'mIoU')
    figure.savefig(path, dpi=110)
