"""What a training may take, and how long an iteration takes, before it starts."""

import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper

from ..errors import ConfigError
from ..timing import wait_for
from .config import build_model

SECONDS, ROUNDS = 3.0, 10  # as many rounds as begin within this time, at most so many


def parse_budget(text: str) -> float | int:
    """Seconds, a float, of a time such as ``'30m'`` or ``'2h'``; or iterations, an int.

    Raises:
        ConfigError: for anything else.
    """
    match = re.fullmatch(r'(\d{1,9}(?:\.\d+)?)([smh]?)', text)
    if match and float(match[1]) > 0 and (match[2] or text.isdecimal()):
        return float(match[1]) * dict(s=1, m=60, h=3600)[match[2]] if match[2] else int(text)
    raise ConfigError(f"--budget {text} is neither a time such as '30m' or '2h' nor a number of iterations")


def measure(cfg: Config) -> tuple[float, float]:
    """Runs some steps of a training and of its validation, from random weights, for some seconds.

    Args:
        cfg: of the training; its data set has to be there.

    Returns:
        Seconds of an iteration and of a validation image. On a GPU the loader's processes work meanwhile, so that the
        slower of loading and computing counts; on a CPU, which they share, both together.

    Raises:
        ConfigError: when a part of the config cannot be built.
        torch.OutOfMemoryError: when the batch does not fit.
    """
    from mmseg.registry import DATASETS

    cfg.model.backbone.pop('init_cfg', None)
    model = build_model(cfg).to(get_device())
    if any(hook and hook.type == 'ChannelsLastHook' for hook in cfg.default_hooks.values()):
        model.to(memory_format=torch.channels_last)
    train, val = (DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = cfg.train_dataloader.batch_size

    rounds: list[tuple[float, ...]] = []
    started = time.perf_counter()
    while len(rounds) < 2 or time.perf_counter() - started < SECONDS and len(rounds) < ROUNDS:
        samples, loading = _timed(partial(_load, train, batch))
        _, step = _timed(partial(model.train().train_step, samples, optim_wrapper))
        samples, val_loading = _timed(partial(_load, val, 1))
        with torch.no_grad():
            _, val_step = _timed(partial(model.eval().val_step, samples))
        if not rounds:  # it warms up, for seconds on a GPU
            started = time.perf_counter()
        rounds.append((loading, step, val_loading, val_step))
    loading, step, val_loading, val_step = map(statistics.median, zip(*rounds[1:]))
    return together(loading, step, cfg.train_dataloader), together(val_loading, val_step, cfg.val_dataloader)


def together(loading: float, computing: float, loader: dict) -> float:
    """The seconds of both, of what a loader loads and of computing with it; see :func:`measure`."""
    if torch.cuda.is_available():
        return max(loading / max(loader.get('num_workers', 0), 1), computing)
    return loading + computing


def _load(dataset: Sequence, count: int) -> dict:
    return pseudo_collate([dataset[index % len(dataset)] for index in range(count)])


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` returns, and the seconds that it took."""
    started = time.perf_counter()
    result = run()
    wait_for(get_device())
    return result, time.perf_counter() - started
