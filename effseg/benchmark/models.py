"""All shipped models in one table."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..apis.opening import open_segmenter
from ..fusion.segmentor import FusedSegmentor, check_size, fuse
from ..stack import resources
from ..timing import time_in_turn
from .measure import check_counts, machine, thread_counts, work

HEADER = f'{"model":<28}{"M parameters":>13}{"GMAC":>8}{"fused":>8}{"ms":>9}{"fused":>9}{"ratio":>7}  threads'


def compare_models(
    models: Sequence[Path] | None = None,
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
) -> None:
    """Prints one line per model with random weights: parameters, multiplications and the median time to the logits of
    one image, as MMSegmentation runs it and fused, the two timed in turn.

    Args:
        models: configs; all that are shipped for ADE20K when left out.
        size: (H, W) of the image.
        runs: of each that count.
        threads: each of these thread counts in turn.
    """
    size = check_size(size)
    check_counts(runs, threads)
    print(f'{machine()}  float32  {size[0]}x{size[1]}  batch 1  {runs} runs in turn\n{HEADER}', flush=True)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for path in shipped_models() if models is None else models:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of defaults that matter in training alone
            model = open_segmenter(str(path), device='cpu').trained
        fused = fuse(model, size)
        for count in thread_counts(threads):
            print(_model_line(path.stem.removesuffix('_ade20k'), model, fused, x, runs) + f'  {count}', flush=True)


def shipped_models() -> list[Path]:
    """The shipped ADE20K configs, by decoder, generation and size of the backbone."""
    order = ('l1', 'l3', 'l7', 's0', 's1', 's2', 'l')

    def place(path: Path) -> tuple[str, str, int]:
        decoder, backbone, arch, _ = path.stem.split('_')
        return decoder, backbone, order.index(arch)

    return sorted((resources() / 'configs').glob('*_ade20k.py'), key=place)


def _model_line(name: str, model: nn.Module, fused: FusedSegmentor, x: Tensor, runs: int) -> str:
    contestants = {'trained': lambda: model(x, mode='tensor'), 'fused': lambda: fused.logits(x)}
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    macs = [work(run) for run in contestants.values()]
    with torch.inference_mode():
        timings = time_in_turn(contestants, runs, warmup=1)
    trained, quick = (1e3 * timings[key].median for key in contestants)
    return (
        f'{name:<28}{parameters:>13.1f}{macs[0]:>8.1f}{macs[1]:>8.1f}{trained:>9.0f}{quick:>9.0f}'
        f'{trained / quick:>7.2f}'
    )
