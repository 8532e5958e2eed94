"""What all comparisons share: the machine, the thread counts, and how much work a network is."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..deploy.spec import Spec
from ..errors import ConfigError
from ..fusion.segmentor import threshold_of
from ..fusion.trained import deciding_head
from ..timing import counted, processor

MOST_THREADS = 1024


def machine() -> str:
    """The processor, its cores and torch's version."""
    return f'{os.cpu_count()} x {processor()}, torch {torch.__version__.split("+")[0]}'


def work(run: Callable[[], object]) -> float:
    """Multiplications of convs and matrix products, in 10^9, as torch's FlopCounter counts them."""
    with torch.inference_mode():
        return counted(run)[1]


def thread_counts(threads: Sequence[int]) -> Iterator[int]:
    """Sets torch's number of threads to each of ``threads`` in turn, and back at the end."""
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            yield count
    finally:
        torch.set_num_threads(before)


def check_counts(runs: int, threads: Sequence[int]) -> None:
    """Raises ConfigError for no runs, no thread count, or one that there cannot be."""
    if runs < 1 or not threads or not 1 <= min(threads) <= max(threads) <= MOST_THREADS:
        raise ConfigError(
            f'{runs} runs on {list(threads)} threads were asked for; runs take 1 or more, threads 1 to {MOST_THREADS}'
        )


def check_plot(path: str) -> None:
    """Raises ConfigError for a plot that could not be written, before hours of measurements."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if not (Path(path).parent.is_dir() and Path(path).suffix[1:].lower() in known):
        raise ConfigError(f'--plot {path} must lie in a folder that is there, and end in one of {", ".join(known)}')


def spec_of(model: nn.Module, runtime: str, size: tuple[int, int]) -> Spec:
    """The spec of a file of logits that is timed and thrown away."""
    unchanged = dict(mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))  # images of a preprocessor that has none
    mean, std = (
        getattr(model.data_preprocessor, name, own).expand(3, 1, 1).flatten().tolist()
        for name, own in unchanged.items()
    )
    spec = Spec.unnamed(runtime, size, model.num_classes, mean, std)
    align_corners = bool(deciding_head(model).align_corners)
    return dataclasses.replace(spec, align_corners=align_corners, threshold=threshold_of(model))


def normalised(model: nn.Module, image: np.ndarray, size: Sequence[int]) -> Tensor:
    """An image (H, W, 3) RGB as the network sees it: (1, 3, *size)."""
    resized = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    bgr = torch.from_numpy(resized[..., ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        return model.data_preprocessor(dict(inputs=[bgr]), False)['inputs']
