"""MMEngine's Runner with a terminal that shows what a person wants to see; the log file keeps everything."""

import functools
import logging
import os
import warnings
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMRunner
from mmseg.evaluation import IoUMetric
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoint.load import load_segmentor
from ..checkpoint.mmengine_loader import read
from ..checkpoint.read import Checkpoint, read_checkpoint
from ..errors import ConfigError, DataError, EffsegError, WeightsError
from .checkpoint_hook import newest_whole_checkpoint
from .config import of_config
from .hooks import DueValidationHook, FiniteHook, IterationSeedHook, StopHook
from .loops import resumable, without_loading
from .plain import PlainCheckpointHook
from .progress import ProgressHook
from .samplers import guarded, out_of_worker

# said by the stack at every start, whatever the user does
HABITUAL = (
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def _naming(part: str, build: Callable) -> Callable:
    """A builder of MMEngine's whose errors name the part of the config that it builds."""

    @functools.wraps(build)
    def named(self, *args, **options):
        with of_config(part):
            return build(self, *args, **options)

    return named


class Runner(MMRunner):
    """MMEngine's Runner, quiet on the terminal, whose construction errors name the part of the config at fault."""

    build_model = _naming('model', MMRunner.build_model)
    build_optim_wrapper = _naming('optim_wrapper', MMRunner.build_optim_wrapper)
    build_param_scheduler = _naming('param_scheduler', MMRunner.build_param_scheduler)
    build_visualizer = _naming('visualizer', MMRunner.build_visualizer)
    build_val_loop = _naming('val_cfg', MMRunner.build_val_loop)
    build_test_loop = _naming('test_cfg', MMRunner.build_test_loop)
    register_custom_hooks = _naming('custom_hooks', MMRunner.register_custom_hooks)
    set_randomness = _naming('randomness', MMRunner.set_randomness)

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

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """As MMEngine's, with the progress line, and checkpoints that are safe to write and to read."""
        hooks = dict(hooks or {})
        checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') == 'CheckpointHook':
            hooks['checkpoint'] = dict(checkpoint, type='SafeCheckpointHook')
        with of_config('default_hooks'):
            super().register_default_hooks(hooks)
        self.register_hook(ProgressHook(), priority='VERY_LOW')
        for hook in (PlainCheckpointHook, IterationSeedHook, FiniteHook, DueValidationHook, StopHook):
            self.register_hook(hook())

    def build_dataloader(
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """As MMEngine's, with seeds by sample, and errors that name the sample; see :mod:`effseg.engine.samplers`."""
        if (
            isinstance(dataloader, dict)
            and isinstance(dataloader['dataset'], dict)
            and dataloader['dataset']['type'] != 'GuardedDataset'
        ):
            dataloader = guarded(dataloader, self.cfg.model, self.cfg.get('skip_bad_samples', 0))
        with of_config('dataloader'):
            return MMRunner.build_dataloader(dataloader, seed, diff_rank_seed)

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """As MMEngine's; a measure that MMSegmentation's metric does not know is refused before hours have passed.

        Raises:
            ConfigError: for it, and for what cannot be built.
        """
        with of_config('evaluator'):
            built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            unknown = set(metric.metrics) - {'mIoU', 'mDice', 'mFscore'} if isinstance(metric, IoUMetric) else ()
            if unknown:
                raise ConfigError(f'iou_metrics names {sorted(unknown)[0]!r}; mIoU, mDice and mFscore are known')
        return built

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As MMEngine's; see :mod:`effseg.engine.loops`."""
        with of_config('train_cfg'):
            built = without_loading(super().build_train_loop(resumable(loop) if isinstance(loop, dict) else loop))
            if built.val_interval < 1:
                raise ValueError(f'val_interval={built.val_interval} must be 1 or more')
        return built

    def train(self) -> nn.Module:
        """As MMEngine's.

        Raises:
            DataError: for a sample that cannot be used, with its files.
            TrainingError: for a loss that is not finite.
        """
        try:
            return super().train()
        except DataError as error:
            raise out_of_worker(error) from error

    def test(self) -> dict[str, float]:
        """As MMEngine's.

        Raises:
            DataError: for a sample that cannot be used, with its files.
        """
        try:
            return super().test()
        except DataError as error:
            raise out_of_worker(error) from error

    def load_or_resume(self) -> None:
        """As MMEngine's; resumes from the newest checkpoint of ``work_dir`` that is whole, and says which it passed
        over.

        Raises:
            WeightsError: when none is, or ``load_from`` does not fit.
        """
        if self._resume and self._load_from is None and not self._has_loaded:
            path, passed_over = newest_whole_checkpoint(self.work_dir)
            for reason in passed_over:
                self.logger.warning(f'passed over: {reason}')
            if path is None:
                raise WeightsError(
                    'no checkpoint to resume from in '
                    f'{self.work_dir}{": " if passed_over else ""}{"; ".join(passed_over)}'
                )
            self._load_from = str(path)
        super().load_or_resume()

    def load_checkpoint(self, filename: str, map_location='cpu', strict: bool = True, revise_keys=()) -> dict:
        """Loads the weights of ``load_from`` or ``resume``, all of them or none, and logs the report.

        With ``new_head=True`` in the config, ``load_from`` may be of another number of classes, see
        :func:`effseg.checkpoint.load.load_segmentor`.

        Args:
            filename: a path or a URL.
            map_location: where MMEngine would put the file's tensors; they are copied from the CPU.
            strict: must be true; the option is MMEngine's.
            revise_keys: unused; names of wrappers are known.

        Returns:
            Everything in the file.

        Raises:
            WeightsError: when a tensor is missing, left over, of another shape or not finite.
        """
        if not strict:
            raise ConfigError('weights are loaded whole or not at all; strict=False is not offered')
        content = read(filename)
        self.call_hook('after_load_checkpoint', checkpoint=content)
        if not isinstance(content.get('state_dict'), dict):
            content = {'state_dict': read_checkpoint(filename).state_dict}
        meta = content.get('meta')
        load_segmentor(
            self.model,
            Checkpoint(str(filename), content['state_dict'], meta if isinstance(meta, dict) else {}),
            new_head=self.cfg.get('new_head', False) and not self._resume,
        )
        self._has_loaded = True
        return content

    def resume(
        self, filename: str, resume_optimizer: bool = True, resume_param_scheduler: bool = True, map_location='default'
    ) -> None:
        """As MMEngine's.

        Raises:
            WeightsError: when the file holds no state of a training, or another network's.
        """
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except EffsegError:
            raise
        except (KeyError, ValueError, AttributeError, AssertionError, TypeError) as error:
            raise WeightsError(f'{filename} cannot be resumed from: {type(error).__name__}: {error}') from error

    def _for_terminal(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            return not message.startswith(HABITUAL)
        # the loop of a training is built when it starts; until then its config stands there
        testing = not isinstance(getattr(self, '_train_loop', None), BaseLoop)
        return ' tensors loaded from ' in message or (testing and message.startswith(('per class results:', '\n+')))


def build_runner(cfg: Config, launcher: str = 'none') -> Runner:
    """The Runner of a config, in one process or as one of several.

    Args:
        cfg: from :func:`effseg.engine.config.load_config`.
        launcher: ``'none'``, or how the processes were started: ``'pytorch'`` (torchrun), ``'slurm'``, ``'mpi'``.

    Raises:
        ConfigError: for a launcher without its environment or its GPUs, or a config that does not build.
    """
    cfg.launcher = launcher
    if launcher != 'none':
        _join_processes(cfg)
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    return Runner.from_cfg(cfg)


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
