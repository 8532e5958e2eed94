"""Training, through MMEngine's Runner."""

from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from ..datasets.check.quick import QUICK, check_datasets
from ..engine.config import load_config
from ..engine.optim import cpu_has_bfloat16
from ..engine.progress import say
from ..engine.protect import protect
from ..engine.runner import build_runner, named_errors
from ..errors import ConfigError


def train(
    config: str,
    work_dir: str | None = None,
    resume: bool = False,
    amp: bool = False,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    skip_bad_samples: int = 0,
    data_check: bool = True,
    protection: bool = True,
) -> None:
    """Trains the segmenter of a config.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        work_dir: for logs and checkpoints, see :func:`effseg.engine.config.load_config`.
        resume: continue from the newest checkpoint of ``work_dir``; where it has none, from ``load_from``.
        amp: train in mixed precision; on a CPU in bfloat16, where it has that.
        launcher: see :func:`effseg.engine.runner.build_runner`.
        skip_bad_samples: how many different samples that cannot be used may be left out, by name.
        data_check: read a few pairs of every data set first, see :mod:`effseg.datasets.check.quick`.
        protection: put the loaders, samplers, loops and hooks of our base configs into one that does not name them, see
            :func:`effseg.engine.protect.protect`.
    """
    if skip_bad_samples < 0:
        raise ConfigError(f'--skip-bad-samples {skip_bad_samples} must be 0 or more')
    cfg = load_config(config, cfg_options, work_dir)
    if amp:
        mixed_precision(cfg)
    check_datasets(cfg, ('train_dataloader', 'val_dataloader'), QUICK if data_check else 0)
    if resume and not cfg.get('load_from') and not any(Path(cfg.work_dir).glob('*.pth')):
        raise ConfigError(
            f'--resume found no checkpoint in {cfg.work_dir}; leave it out to start anew, or give the --work-dir of '
            'the run'
        )
    cfg.resume = resume
    if protection:
        cfg = protect(cfg)
    for loader in ('train_dataloader', 'val_dataloader') if skip_bad_samples else ():
        if cfg.get(loader) and cfg[loader].dataset.type != 'GuardedDataset':
            raise ConfigError(f'--skip-bad-samples takes a GuardedDataset in {loader}; leave --no-protect out')
        if cfg.get(loader):
            cfg[loader].dataset.skip_bad = skip_bad_samples
    runner = build_runner(cfg, launcher)
    say(f'training {config}: logs and checkpoints in {cfg.work_dir}')
    with named_errors():
        runner.train()


def mixed_precision(cfg: Config) -> None:
    """Puts the config's optimizer wrapper into mixed precision; on a CPU in bfloat16.

    Raises:
        ConfigError: where that would be slower.
    """
    if get_device() != 'cpu':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif cpu_has_bfloat16():
        cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
    else:
        raise ConfigError(
            '--amp found no accelerator, and a CPU without bfloat16 (avx512_bf16, amx_bf16), where mixed precision is '
            'slower: leave it out on this CPU'
        )
