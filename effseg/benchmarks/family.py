"""All shipped models side by side: size, work, and time before and after fusing."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from ..fusion.segmentor import fuse
from ..timing import time_in_turn
from .compare import machine, work

HEADER = f'{"model":<28}{"M parameters":>13}{"GMAC":>8}{"fused":>8}{"ms":>9}{"fused":>9}{"ratio":>7}  '


def compare_family(
    models: Iterable[tuple[str, nn.Module]],
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: Sequence[int] = (1,),
) -> None:
    """Prints one line per model: parameters, multiplications and median time to the logits of one image, as
    MMSegmentation runs it and fused, the two timed in turn.

    Args:
        models: names, and MMSegmentation's EncoderDecoders in eval mode with random or trained weights.
        size: (H, W) of the image.
        runs: of each that count.
        threads: each of these thread counts in turn.

    Raises:
        FuseError: when a model has no exact fused form.
    """
    print(f'{machine()}  float32  {size[0]}x{size[1]}  batch 1  {runs} runs in turn\n{HEADER}threads', flush=True)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        for name, model in models:
            fused = fuse(model, size)
            for count in threads:
                torch.set_num_threads(count)
                print(_line(name, model, fused, x, runs) + f'  {count}', flush=True)
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _line(name: str, model: nn.Module, fused: nn.Module, x: torch.Tensor, runs: int) -> str:
    contestants = {'trained': lambda: model(x, mode='tensor'), 'fused': lambda: fused.logits(x)}
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    macs = [work(run) for run in contestants.values()]
    timings = time_in_turn(contestants, runs, warmup=1)
    trained, quick = (1e3 * timings[key].median for key in contestants)
    return (
        f'{name:<28}{parameters:>13.1f}{macs[0]:>8.1f}{macs[1]:>8.1f}'
        f'{trained:>9.0f}{quick:>9.0f}{trained / quick:>7.2f}'
    )


def shipped_models(folder: Path) -> list[Path]:
    """The ADE20K configs, by generation and size."""
    order = ('l1', 'l3', 'l7', 's0', 's1', 's2', 'l')
    return sorted(folder.glob('*_ade20k.py'), key=lambda path: order.index(path.stem.split('_')[2]))
