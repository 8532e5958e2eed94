"""MMEngine's Runner with a terminal that shows what a person wants to see; the log file keeps everything."""

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMRunner
from torch import nn

from ..errors import ConfigError, DataError, EffsegError, WeightsError
from .config import of_config
from .datasets import out_of_worker

# said by the stack at every start, whatever the user does
HABITUAL = (
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


class Runner(MMRunner):
    """MMEngine's Runner, quiet on the terminal."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs) -> MMLogger:
        """As MMEngine's; on the terminal only warnings and the per-class table of a test stay."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(self._for_terminal)
        # Python's own warnings (deprecations of the stack's dependencies) go where the rest of the detail goes
        logging.captureWarnings(True)
        python_warnings = logging.getLogger('py.warnings')
        python_warnings.handlers = [h for h in logger.handlers if isinstance(h, logging.FileHandler)] or [
            logging.NullHandler()
        ]
        python_warnings.propagate = False
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As MMEngine's; a fused network or a file has nothing to train, and stays out of torch's wrapper for several
        processes, which refuses it."""
        if self.distributed and not any(parameter.requires_grad for parameter in model.parameters()):
            return model.to(get_device())
        return super().wrap_model(model_wrapper_cfg, model)

    def _for_terminal(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            return not message.startswith(HABITUAL)
        # the loop of a training is built when it starts; until then its config stands there
        testing = not isinstance(getattr(self, '_train_loop', None), BaseLoop)
        return ' tensors loaded from ' in message or (testing and message.startswith(('per class results:', '\n+')))


def build_runner(cfg: Config, launcher: str = 'none', model: Callable[[], nn.Module] | None = None) -> Runner:
    """The Runner of a config, in one process or as one of several.

    Args:
        cfg: from :func:`effseg.engine.config.load_config`, see :func:`effseg.engine.protect.protect`.
        launcher: ``'none'``, or how the processes were started: ``'pytorch'`` (torchrun), ``'slurm'``, ``'mpi'``.
        model: gives the model to run; the config's, untrained, when left out.

    Raises:
        ConfigError: for a launcher without its environment or its GPUs, or a config that does not build.
    """
    cfg.launcher = launcher
    if launcher != 'none':
        _join_processes(cfg)
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    with named_errors():
        if model is None:
            return Runner.from_cfg(cfg)
        # MMEngine's own list of what a config gives its Runner, with a model that is made when the log is open; the
        # Runner adds the config's data preprocessor to what it builds, and this one has its own
        return Runner.from_cfg.__func__(
            lambda **parts: Runner(**{**parts, 'model': dict(type=lambda **_: model())}), cfg
        )


_RUNNER = sys.modules[MMRunner.__module__].__file__
# the parts of a config by the methods of MMEngine's Runner that build them
_PARTS = {
    'build_model': 'model',
    'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler',
    'build_visualizer': 'visualizer',
    'build_train_loop': 'train_cfg',
    'build_val_loop': 'val_cfg',
    'build_test_loop': 'test_cfg',
    'build_dataloader': 'dataloader',
    'build_evaluator': 'evaluator',
    'register_default_hooks': 'default_hooks',
    'register_custom_hooks': 'custom_hooks',
    'set_randomness': 'randomness',
    'setup_env': 'env_cfg',
    'build_logger': 'log_level',
    'build_log_processor': 'log_processor',
    'wrap_model': 'model_wrapper_cfg',
    '__init__': 'parts',
}


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """What MMEngine's Runner raises inside is one line: with the part of the config that it was building, the
    checkpoint that it was resuming from, or the files of a sample.

    Raises:
        EffsegError: in their place; anything else is raised as it is.
    """
    try:
        yield
    except DataError as error:
        raise out_of_worker(error) from error
    except Exception as error:
        ours = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == _RUNNER]
        for frame in reversed(ours):
            name = frame.f_code.co_name
            if name in _PARTS:
                with of_config(_PARTS[name]):
                    raise
            if name == 'resume' and not isinstance(error, EffsegError):
                raise WeightsError(
                    f'{frame.f_locals["filename"]} cannot be resumed from: {type(error).__name__}: {error}'
                ) from error
        raise


def _join_processes(cfg: Config) -> None:
    """Checks what MMEngine's launcher takes for granted, and lets CPUs take part through gloo."""
    backend = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('backend', 'nccl')
    if cfg.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ConfigError(
            '--launcher pytorch needs processes started by torchrun: torchrun --nproc_per_node N tools/train.py ...'
        )
    if torch.cuda.is_available():
        return
    if backend != 'gloo' or cfg.launcher != 'pytorch':
        raise ConfigError(
            f'--launcher {cfg.launcher} with the backend {backend!r} needs GPUs and none is visible; on CPUs use '
            'torchrun, --launcher pytorch and --cfg-options env_cfg.dist_cfg.backend=gloo'
        )
    # MMEngine joins only what has not been joined yet; its own way selects a CUDA device first
    torch.distributed.init_process_group('gloo')
    cfg.model = _without_sync_bn(cfg.model)
    cfg.sync_bn = None
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)


def _without_sync_bn(value):
    """SyncBatchNorm runs on GPUs alone; on CPUs each process normalises by its own batch."""
    if isinstance(value, dict):
        return type(value)(
            {k: 'BN' if k == 'type' and v == 'SyncBN' else _without_sync_bn(v) for k, v in value.items()}
        )
    if isinstance(value, (list, tuple)):
        return type(value)(_without_sync_bn(v) for v in value)
    return value
