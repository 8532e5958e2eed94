"""How long an iteration of a training takes, before it starts."""

import time

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper

from .config import build_model


def measure(cfg: Config) -> tuple[float, float]:
    """Runs two steps of a training and one of its validation, from random weights.

    Args:
        cfg: of the training; its data set has to be there.

    Returns:
        Seconds of an iteration, loading included, and of a validation image.

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
    step = score = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        samples = [train[index % len(train)] for index in range(batch)]
        float(sum(model.train().train_step(pseudo_collate(samples), optim_wrapper).values()))
        step, started = time.perf_counter() - started, time.perf_counter()
        with torch.no_grad():
            model.eval().val_step(pseudo_collate([val[0]]))
        score = time.perf_counter() - started
    return step, score
