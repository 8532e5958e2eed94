"""Checkpoints that a kill, a full disk or a move cannot corrupt: write beside, put in place whole, point, and only then
delete."""

import os
from collections import deque
from pathlib import Path

from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, find_latest_checkpoint

from ..checkpoint.load import load_segmentor
from ..checkpoint.read import Checkpoint, read_checkpoint
from ..errors import ConfigError, WeightsError
from ..files import PARTIAL
from .atomic import AtomicBackend, link, lock
from .plain_data import history, plain
from .resuming import compare, newest_whole_checkpoint, recipe

BEST = 'best.pth'
INTERRUPTED = 'interrupted.pth'  # in the middle of an epoch, of which MMEngine's names know nothing


@HOOKS.register_module(force=True)
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, in an order in which a whole checkpoint exists at every moment.

    The best one is at hand as ``best.pth`` as well. Files hold nothing but tensors, numbers, strings, lists and dicts:
    they load under bare ``weights_only``. A resumed run goes on from the newest one that is whole, and weights are
    loaded all of them or none. Options are CheckpointHook's.
    """

    keep_ckpt_ids: deque[int]

    def __init__(self, **options):
        self._lock = self._gradients = None
        super().__init__(**{**options, 'backend_args': options.get('backend_args') or dict(backend='effseg_atomic')})
        if self.args:  # MMEngine's would fail over it at the first save
            raise ConfigError(f'the checkpoint hook has no option {sorted(self.args)[0]!r}')

    def before_run(self, runner: Runner) -> None:
        """Takes the work dir for this training alone, and points MMEngine to the newest checkpoint there that is whole;
        says which it passed over. Where there is one, ``load_from``, with which the training began, plays no part.

        Raises:
            ConfigError: when another training writes into the work dir.
            WeightsError: when there is no whole checkpoint to resume from.
        """
        if is_main_process() and isinstance(getattr(runner, '_train_loop', None), BaseLoop):  # no test
            self._lock = lock(Path(runner.work_dir))
        if not runner.cfg.get('resume'):
            return
        path, passed_over = newest_whole_checkpoint(runner.work_dir)
        if path is None and runner.cfg.get('load_from'):
            return
        for reason in passed_over:
            runner.logger.warning(f'passed over: {reason}')
        if path is None:
            reasons = ': ' + '; '.join(passed_over) if passed_over else ''
            raise WeightsError(f'no checkpoint to resume from in {runner.work_dir}{reasons}')
        runner._load_from = runner.cfg.load_from = None
        if is_main_process():
            AtomicBackend().put_text(str(path), Path(runner.work_dir, 'last_checkpoint'))
        barrier()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Loads the weights, all of them or none, and logs the report; what MMEngine loads then is what is there.

        With ``new_head=True`` in the config, ``load_from`` may be of another number of classes, see
        :func:`effseg.checkpoint.load.load_segmentor`.

        Raises:
            WeightsError: when a tensor is missing, left over, of another shape or not finite.
        """
        resume = runner.cfg.get('resume', False)
        source = runner.cfg.get('load_from') or find_latest_checkpoint(runner.work_dir)
        weights, meta = checkpoint.get('state_dict'), checkpoint.get('meta')
        if not isinstance(weights, dict):
            weights = read_checkpoint(source).state_dict
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        load_segmentor(
            model,
            Checkpoint(str(source), weights, meta if isinstance(meta, dict) else {}),
            new_head=runner.cfg.get('new_head', False) and not resume,
        )
        checkpoint['state_dict'] = model.state_dict()
        if resume:
            self._go_on(runner, checkpoint, str(source))
        hub = checkpoint.get('message_hub')
        if isinstance(hub, dict) and isinstance(hub.get('log_scalars'), dict):
            # a file that MMEngine alone wrote has none that can be read: the curves start anew, the training does not
            hub['log_scalars'] = {name: kept for name, value in hub['log_scalars'].items() if (kept := history(value))}
            hub['resumed_keys'] = {
                name: keep
                for name, keep in hub.get('resumed_keys', {}).items()
                if name in hub['log_scalars'] or name in hub.get('runtime_info', {})
            }

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for key, value in checkpoint.items():
            if key != 'state_dict':
                checkpoint[key] = plain(value, key)
        checkpoint['meta']['training'] = recipe(runner.cfg)
        checkpoint['meta']['sampler_seed'] = getattr(runner.train_dataloader.sampler, 'seed', None)
        if not at_a_step(runner):
            # in the middle of accumulating gradients; of several processes each has its own
            named = runner.model.named_parameters() if get_world_size() == 1 else ()
            checkpoint['gradients'] = {name: value.grad.cpu() for name, value in named if value.grad is not None}

    def _go_on(self, runner: Runner, checkpoint: dict, source: str) -> None:
        """Restores what MMEngine's resuming leaves out, and warns of what the config has changed since."""
        meta = checkpoint.get('meta') or {}
        compare(meta.get('training') or {}, recipe(runner.cfg), source, runner.logger.warning)
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, end = (meta.get('epoch', 0), loop.max_epochs) if by_epoch else (meta.get('iter', 0), loop.max_iters)
        if done > end:
            raise ConfigError(
                f'{source} was saved at {"epoch" if by_epoch else "iteration"} {done} and the config ends at {end}: '
                f'give a train_cfg.{"max_epochs" if by_epoch else "max_iters"} of {done} or more, or another --work-dir'
            )
        seed = meta.get('sampler_seed', meta.get('seed'))
        if seed is not None and hasattr(loop.dataloader.sampler, 'seed'):
            loop.dataloader.sampler.seed = seed
        self._gradients = checkpoint.pop('gradients', None)
        if self._gradients is not None and (get_world_size() > 1 or not self._gradients):
            raise WeightsError(
                f'{source} was saved while several processes accumulated gradients, which it cannot hold: resume from '
                'one at a multiple of accumulative_counts (load_from=PATH and a new --work-dir), and save at such '
                '(default_hooks.checkpoint.interval)'
            )

    def before_train(self, runner: Runner) -> None:
        for name, value in runner.model.named_parameters():
            if name in (self._gradients or {}):
                value.grad = self._gradients[name].to(value.device)
        self._gradients = None
        info = runner.message_hub.runtime_info
        for name in [name for name in info if name == 'best_ckpt' or name.startswith('best_ckpt_')]:
            # the folder may have been moved since, and its best checkpoint deleted
            path = os.path.join(self.out_dir or runner.work_dir, os.path.basename(info[name] or ''))
            if os.path.isfile(path):
                info[name] = path
            else:
                runner.logger.warning(
                    f'{path}, the best checkpoint so far, is gone: the next one scored takes its place'
                )
                info.pop(name)
                info.pop(name.replace('best_ckpt', 'best_score'), None)
        super().before_train(runner)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:  # checkpoints, and the pointer to the newest
                for left_over in Path(folder).glob(f'*{PARTIAL}'):
                    left_over.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = self._keep(runner, step) if self.max_keep_ckpts > 0 else []
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, name, meta, self.by_epoch)
        if not is_main_process():
            return
        AtomicBackend().put_text(str(self.last_ckpt), os.path.join(runner.work_dir, 'last_checkpoint'))
        Path(self.out_dir, INTERRUPTED).unlink(missing_ok=True)
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def save_inside_epoch(self, runner: Runner, done: int) -> Path:
        """Saves after ``done`` iterations; the next checkpoint of a whole epoch takes the place of this one."""
        path = Path(self.out_dir, INTERRUPTED)
        self._save(runner, INTERRUPTED, dict(epoch=runner.epoch, iter=done), True)
        AtomicBackend().put_text(str(path), os.path.join(runner.work_dir, 'last_checkpoint'))
        return path

    def _save(self, runner: Runner, name: str, meta: dict, by_epoch: bool) -> None:
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=self.backend_args,
        )

    def _keep(self, runner: Runner, step: int) -> list[int]:
        """Adds the checkpoint of ``step`` to those that are kept; returns the steps of those to be deleted."""
        kept = [old for old in self.keep_ckpt_ids if old != step] + [step]
        self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :], self.max_keep_ckpts)
        # the outdated ones too: after a kill between saving and deleting, the resumed run deletes them
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return kept[: -self.max_keep_ckpts]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        runner.message_hub.update_info('validated', runner.iter)
        if not self.save_best or not isinstance(self.file_backend, AtomicBackend):
            return super()._save_best_checkpoint(runner, metrics)
        with self.file_backend.removals_last() as removals:
            super()._save_best_checkpoint(runner, metrics)
            best = getattr(self, 'best_ckpt_path', None)
            # a resumed run may score the same iteration again: the new file has the old one's name
            current = [best, *getattr(self, 'best_ckpt_path_dict', {}).values()]
            removals[:] = [path for path in removals if path not in current]
            if best and is_main_process() and os.path.isfile(best):
                link(Path(best), Path(self.out_dir) / BEST)


def save_now(runner: Runner, epoch: int, done: int) -> str:
    """Saves after ``done`` iterations, outside the interval, what a resumed run goes on from; says where it is."""
    saving = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
    if saving is None:
        return 'not saved: the config has no SafeCheckpointHook'
    if not done:
        return 'not saved: no iteration is done'
    if saving.by_epoch and done != epoch * len(runner.train_dataloader):
        return f'saved as {saving.save_inside_epoch(runner, done)}, go on with --resume'
    number = epoch if saving.by_epoch else done
    if saving.last_ckpt != saving.file_backend.join_path(saving.out_dir, saving.filename_tmpl.format(number)):
        saving._save_checkpoint_with_step(runner, number, dict(epoch=epoch, iter=done))
    return f'saved as {saving.last_ckpt}, go on with --resume'


def at_a_step(runner: Runner) -> bool:
    """False while gradients are being accumulated, and the weights wait for them."""
    wrapper = runner.optim_wrapper
    return not isinstance(wrapper, OptimWrapper) or wrapper._accumulative_counts == 1 or wrapper.should_update()
