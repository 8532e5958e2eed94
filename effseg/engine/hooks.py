"""Hooks that keep a training honest: random numbers by iteration, a loss that must be finite, a way to stop without
losing work."""

import os
import signal
import threading

import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..errors import TrainingError
from .checkpoint_hook import SafeCheckpointHook
from .samplers import mixed, seed_all

STOPPED = 128 + signal.SIGTERM


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
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 50)
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
            f'the loss is {float(loss.mean())} at iteration {runner.iter + 1}, at learning rate {_rate(runner)}, on '
            f'{files}. Nothing of it was saved. A lower learning rate, a warm-up or clipped gradients '
            f'(optim_wrapper.clip_grad) may help; checkpoints of before are in {runner.work_dir}'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        spoilt = [
            name
            for name, value in checkpoint['state_dict'].items()
            if value.is_floating_point() and not torch.isfinite(value).all()
        ]
        if spoilt:
            raise TrainingError(
                f'{spoilt[0]} and {len(spoilt) - 1} other weights are NaN or infinite at iteration '
                f'{runner.iter + 1}, at learning rate {_rate(runner)}. They were not saved; checkpoints of before are '
                f'in {runner.work_dir}'
            )


@HOOKS.register_module()
class StopHook(Hook):
    """On SIGTERM, saves and ends with status 143; on a second one, ends at once."""

    priority = 'LOWEST'  # behind the hook that saves

    def before_train(self, runner: Runner) -> None:
        self.asked, self.process = False, os.getpid()
        # signals are the main thread's
        self.before = (
            signal.signal(signal.SIGTERM, self._ask) if threading.current_thread() is threading.main_thread() else None
        )

    def after_train(self, runner: Runner) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        # at the end of an epoch its other hooks have their turn first
        last = isinstance(runner.train_loop, EpochBasedTrainLoop) and batch_idx + 1 == len(runner.train_dataloader)
        if self.asked and not last:
            self._stop(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.asked and isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._stop(runner, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if getattr(self, 'asked', False):
            self._stop(runner, runner.epoch, runner.iter)

    def _ask(self, number: int, frame) -> None:
        if os.getpid() != self.process:  # a worker that loads data: it ends with this process
            return
        if self.asked:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(self.process, signal.SIGTERM)
        self.asked = True

    def _stop(self, runner: Runner, epoch: int, done: int) -> None:
        if not is_main_process():
            return  # the main process ends the others, when it has saved
        saving = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
        if saving is None:
            where = 'the config has no checkpoint hook of ours to save it'
        elif saving.by_epoch and done != epoch * len(runner.train_dataloader):
            where = f'saved as {saving.save_inside_epoch(runner, done)}, go on with --resume'
        else:
            number = epoch if saving.by_epoch else done
            if saving.last_ckpt != saving.file_backend.join_path(saving.out_dir, saving.filename_tmpl.format(number)):
                saving._save_checkpoint_with_step(runner, number, dict(epoch=epoch, iter=done))
            where = f'saved as {saving.last_ckpt}, go on with --resume'
        print(f'\nstopped by SIGTERM after iteration {done}: {where}', flush=True)
        raise SystemExit(STOPPED)


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


def _rate(runner: Runner) -> str:
    rates = runner.optim_wrapper.get_lr()
    return f'{next(iter(rates.values()))[0]:.3g}'
