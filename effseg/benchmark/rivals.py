"""Files of our models beside those of MMSegmentation's own light segmenters."""

import functools
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..apis.opening import open_segmenter
from ..demo.scenes import draw_scene
from ..deploy.backends import SUFFIXES, backend
from ..deploy.program import Unfused
from ..errors import FuseError
from ..fusion.segmentor import check_size, fuse
from ..stack import resources
from ..timing import time_in_turn
from .measure import check_counts, machine, spec_of, thread_counts, work


def compare_rivals(
    runtime: str = 'onnx',
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    plot: str | None = None,
    models: Mapping[str, float | None] | None = None,
) -> None:
    """Prints how long exported files of ours and of MMSegmentation's own light segmenters take from image to logits.

    All are exported alike, with random weights: fused where they have a fused form, else as they were trained.

    Args:
        runtime: ``'onnx'``, ``'executorch'`` or ``'litert'``; ExecuTorch's Python runtime takes all cores always.
        size: (H, W) of the image.
        runs: of each that count, in turn.
        threads: each of these thread counts in turn.
        plot: a file for a plot of the time on the first of ``threads`` against the published mIoU.
        models: configs and the mIoU published for them on ADE20K, None where nothing is; :func:`rivals` when left out.
            The first is what the others are compared with.

    Raises:
        EffsegError: for a size or runtime that cannot be used.
    """
    size = check_size(size)
    check_counts(runs, threads)
    writer, models = backend(runtime), rivals() if models is None else models
    image = draw_scene(size, np.random.default_rng(0))[0]
    print(f'{machine()}  {runtime} fp32  {size[0]}x{size[1]}  random weights  image to logits  {runs} runs in turn')
    macs, milliseconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for config in models:
            name = Path(config).stem.removesuffix('_ade20k')
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of defaults that matter in training alone
                model = open_segmenter(config, device='cpu').trained
            try:
                network: nn.Module = fuse(model, size).exportable()
            except FuseError:
                network = Unfused(model)
            macs[name] = work(lambda network=network: network.logits(torch.zeros(1, 3, *size)))  # type: ignore[misc]
            writer.export(network, spec_of(model, runtime, size), Path(folder) / f'{name}{SUFFIXES[runtime]}', [])
        for count in thread_counts(threads):
            opened = {name: writer.load(Path(folder) / f'{name}{SUFFIXES[runtime]}', count).run for name in macs}
            timings = time_in_turn({name: functools.partial(run, image) for name, run in opened.items()}, runs)
            milliseconds[count] = {name: 1e3 * timing.median for name, timing in timings.items()}
            first = next(iter(milliseconds[count].values()))
            print(f'{"model":<52}{"mIoU published":>15}{"GMAC":>8}{"ms":>9}{"ratio":>7}  {count} thread(s)')
            for (name, took), published in zip(milliseconds[count].items(), models.values()):
                print(f'{name:<52}{published or "-":>15}{macs[name]:>8.1f}{took:>9.1f}{took / first:>7.2f}', flush=True)
    if plot:
        _plot(plot, milliseconds[threads[0]], list(models.values()), f'{runtime}, {threads[0]} thread(s)')


def rivals() -> dict[str, float | None]:
    """Configs of ours and of MMSegmentation's own light segmenters, with the mIoU published for them on ADE20K."""
    import mmseg

    ours, theirs = resources() / 'configs', Path(mmseg.__file__).parent / '.mim/configs'
    return {
        str(path): published
        for path, published in {
            ours / 'fpn_effformer_l1_ade20k.py': 38.9,
            ours / 'fpn_effformerv2_s0_ade20k.py': 33.4,
            ours / 'fpn_effformerv2_s2_ade20k.py': 42.4,
            ours / 'mlp_effformerv2_s0_ade20k.py': None,
            ours / 'mlp_effformerv2_s1_ade20k.py': None,
            ours / 'mlp_effformerv2_s2_ade20k.py': None,
            ours / 'mlp_effformer_l1_ade20k.py': None,
            theirs / 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': 37.4,
            theirs / 'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py': 41.1,
        }.items()
    }


def _plot(path: str, milliseconds: dict[str, float], published: list[float | None], title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout='constrained')
    axes = figure.subplots()
    lowest = min(filter(None, published), default=0.0) - 1
    for (name, took), score in zip(milliseconds.items(), published):
        label = name if 'effformer' in name else '_'.join(name.split('_')[:2])
        axes.plot(took, score or lowest, 'o' if score else '|', color='C0' if 'effformer' in name else 'C1', ms=9)
        axes.annotate(
            label, (took, score or lowest), (4, 6), textcoords='offset points', rotation=0 if score else 50, size=8
        )
    axes.set_xlabel('ms from image to logits, ' + title)
    axes.set_ylabel('published mIoU on ADE20K (bars: none published)')
    figure.savefig(path, dpi=110)
