"""Hooks that keep a training honest: random numbers by iteration, a loss that must be finite, a way to stop without
losing work."""

import os
import signal
import threading
from collections.abc import Iterator

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..errors import TrainingError
from .checkpoint_hook import at_a_step, save_now
from .progress import learning_rate, logging_interval, say
from .samplers import mixed, seed_all

# by a scheduler, by a person at the terminal, by a terminal that is closed
SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, name)]


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds every iteration by its number: dropout and drop path are those of the run that was never interrupted.

    Samples have seeds of their own (:mod:`effseg.engine.samplers`). No random state has to be saved.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        seed = mixed(abs(runner.seed or 0), get_rank(), runner.iter)
        seed_all(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops at a loss or weight that is NaN or infinite, before anything of it is saved.

    In mixed precision, steps that the gradient scaler skips change nothing and do not count, unless nothing else
    happens for a whole logging interval.
    """

    priority = 'ABOVE_NORMAL'

    def before_train(self, runner: Runner) -> None:
        self.interval = logging_interval(runner)
        self.in_a_row = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        loss = torch.as_tensor(outputs['loss'])
        if torch.isfinite(loss).all():
            self.in_a_row = 0
            return
        self.in_a_row += 1
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled() and self.in_a_row < self.interval:
            return
        files = ', '.join(str(sample.img_path) for sample in data_batch['data_samples'] if 'img_path' in sample)
        raise TrainingError(
            f'the loss is {float(loss.mean())} at iteration {runner.iter + 1}, at learning rate '
            f'{learning_rate(runner):.3g}, on {files}. Nothing of it was saved. A lower learning rate, a warm-up or '
            f'clipped gradients (optim_wrapper.clip_grad) may help; checkpoints of before are in {runner.work_dir}'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for what, part in (('weights', 'state_dict'), ("of the optimizer's values", 'optimizer')):
            corrupted = list(_not_finite(checkpoint.get(part), part))
            if not corrupted:
                continue
            first = corrupted[0].removeprefix('state_dict.')
            raise TrainingError(
                f'{first} and {len(corrupted) - 1} other {what} are NaN or infinite at iteration {runner.iter + 1}, at '
                f'learning rate {learning_rate(runner):.3g}. They were not saved; checkpoints of before are in '
                f'{runner.work_dir}'
            )


@HOOKS.register_module()
class StopHook(Hook):
    """Saves on SIGTERM, SIGINT (Ctrl-C) or SIGHUP, and ends with status 128 + the signal; a second one ends at once.

    A process that loads data and dies is found when its samples are asked for, between two iterations, see
    :mod:`effseg.engine.loops`.
    """

    priority = 'LOWEST'  # behind the hook that saves

    def before_train(self, runner: Runner) -> None:
        self.asked: signal.Signals | None = None
        self.process = os.getpid()
        # signals are the main thread's; what nohup ignores stays ignored
        main = threading.current_thread() is threading.main_thread()
        here = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._ask) for number in here}

    def after_train(self, runner: Runner) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        handler = signal.getsignal(signal.SIGCHLD) if self.before and hasattr(signal, 'SIGCHLD') else None
        if getattr(handler, '__module__', '').startswith('torch.utils.data'):
            # torch would raise in the middle of whatever runs, a step of the optimizer for one
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        # at the end of an epoch its other hooks have their turn first
        last = isinstance(runner.train_loop, EpochBasedTrainLoop) and batch_idx + 1 == len(runner.train_dataloader)
        # gradients of several processes that are being accumulated are in no checkpoint
        if self.asked and not last and (get_world_size() == 1 or at_a_step(runner)):
            self._stop(runner, self.asked, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.asked and isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._stop(runner, self.asked, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        asked = getattr(self, 'asked', None)
        if asked:
            self._stop(runner, asked, runner.epoch, runner.iter)

    def _ask(self, number: int, frame) -> None:
        if os.getpid() != self.process:  # a worker that loads data: it ends with this process
            return
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self.process, number)
        self.asked = signal.Signals(number)

    def _stop(self, runner: Runner, asked: signal.Signals, epoch: int, done: int) -> None:
        if not is_main_process():
            return  # the main process ends the others, when it has saved
        say(f'\nstopped by {asked.name} after iteration {done}: {save_now(runner, epoch, done)}')
        raise SystemExit(128 + asked)


@HOOKS.register_module()
class DueValidationHook(Hook):
    """A run that was killed while it validated validates when it is resumed."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if (
            runner.val_loop is None
            or not runner.iter
            or (by_epoch and runner.iter != runner.epoch * len(loop.dataloader))
        ):
            return
        done, end = (runner.epoch, runner.max_epochs) if by_epoch else (runner.iter, runner.max_iters)
        due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
        if due and runner.message_hub.runtime_info.get('validated') != runner.iter:
            runner.val_loop.run()


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps the weights in torch's channels_last layout, in which convs are faster on many CPUs and GPUs."""

    priority = 'VERY_HIGH'  # before anything copies the model

    def before_run(self, runner: Runner) -> None:
        runner.model.to(memory_format=torch.channels_last)


def _not_finite(value, name: str) -> Iterator[str]:
    """The names of the tensors in nested containers that hold NaN or infinity."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f'{name}.{key}')
    elif isinstance(value, torch.Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
        yield name
