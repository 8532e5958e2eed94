"""Checkpoints that a kill, a full disk or a move cannot corrupt: write beside, put in place whole, point, and only then
delete."""

import contextlib
import errno
import os
import re
import shutil
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, find_latest_checkpoint

from ..checkpoint.load import load_segmentor
from ..checkpoint.read import Checkpoint, read_checkpoint, read_file
from ..errors import ConfigError, DiskError, WeightsError

PARTIAL = '.partial'
BEST = 'best.pth'
INTERRUPTED = 'interrupted.pth'  # in the middle of an epoch, of which MMEngine's names know nothing
_NUMBERED = re.compile(r'(?:iter|epoch)_(\d+)\.pth$')
_HISTORY = ('log_history', 'count_history', 'max_length')


class AtomicBackend(LocalBackend):
    """Local files that are there whole or not at all, also after the machine lost its power."""

    def __init__(self):
        super().__init__()
        self._waiting: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file beside its place, makes sure that it is on the disk, and puts it there.

        Raises:
            DiskError: when it cannot be written; what was there before is then as it was.
        """
        path = Path(filepath)
        partial = _partial(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            reason, remedy = error.strerror or error, 'see to it'
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
                reason, remedy = f'it needs {len(obj)} bytes, {free} are free ({reason})', 'make room'
            raise DiskError(
                f'{path} was not written: {reason}. Earlier checkpoints are untouched: {remedy} and run again with '
                '--resume'
            ) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """As :meth:`put`."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        """Deletes a file, or, inside :meth:`removals_last`, remembers to."""
        if self._waiting is None:
            super().remove(filepath)
        else:
            self._waiting.append(str(filepath))

    @contextlib.contextmanager
    def removals_last(self) -> Iterator[list[str]]:
        """What is removed inside is removed at the end, if the end is reached. Gives the list of it."""
        waiting: list[str] = []
        self._waiting = waiting
        try:
            yield waiting
        finally:
            self._waiting = None
        for path in waiting:
            if os.path.isfile(path):
                super().remove(path)


register_backend('effseg_atomic', AtomicBackend, force=True)


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
        says which it passed over.

        Raises:
            ConfigError: when another training writes into the work dir.
            WeightsError: when there is no whole checkpoint to resume from.
        """
        if is_main_process() and isinstance(getattr(runner, '_train_loop', None), BaseLoop):  # no test
            self._lock = lock(Path(runner.work_dir))
        if not runner.cfg.get('resume') or runner.cfg.get('load_from'):
            return
        path, passed_over = newest_whole_checkpoint(runner.work_dir)
        for reason in passed_over:
            runner.logger.warning(f'passed over: {reason}')
        if path is None:
            reasons = ': ' + '; '.join(passed_over) if passed_over else ''
            raise WeightsError(f'no checkpoint to resume from in {runner.work_dir}{reasons}')
        if is_main_process() and find_latest_checkpoint(runner.work_dir) != str(path):
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
            hub['log_scalars'] = {
                name: history for name, value in hub['log_scalars'].items() if (history := _history(value))
            }
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
        """Takes over what MMEngine's resuming leaves out, and compares the recipe of then with that of the config."""
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
                'one at a multiple of accumulative_counts (load_from=PATH), and save at such '
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
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
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
        runner.save_checkpoint(
            self.out_dir,
            INTERRUPTED,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(epoch=runner.epoch, iter=done),
            by_epoch=True,
            backend_args=self.backend_args,
            **self.args,
        )
        AtomicBackend().put_text(str(path), os.path.join(runner.work_dir, 'last_checkpoint'))
        return path

    def _keep(self, runner: Runner, step: int) -> list[int]:
        """Takes a checkpoint among those that are kept, and gives those that no longer are."""
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


def lock(work_dir: Path):
    """Takes a folder for this process; it is free again when the file that is returned is closed or the process ends.

    Raises:
        ConfigError: when another process has it.
    """
    if fcntl is None:
        return None
    file = (work_dir / '.lock').open('a+')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return file  # a file system without locks
        file.seek(0)
        raise ConfigError(
            f'{work_dir} belongs to a training that runs already ({file.read().strip()}): give another --work-dir, or '
            'wait for its end'
        ) from error
    file.truncate(0)
    file.write(f'host {socket.gethostname()}, process {os.getpid()}')
    file.flush()
    return file


def recipe(cfg: Config) -> dict:
    """What a resumed training is compared by, as ``{'key.subkey': value}`` of plain values."""
    loader = cfg.get('train_dataloader') or {}
    dataset = loader.get('dataset') or {}
    parts = {name: cfg.get(name) for name in ('optim_wrapper', 'param_scheduler', 'train_cfg')}
    parts['train_dataloader'] = dict(
        batch_size=loader.get('batch_size'), dataset=dict(data_root=dataset.get('data_root'))
    )
    return dict(_flat(parts))


def _flat(value, name: str = '') -> Iterator[tuple[str, object]]:
    if isinstance(value, (Mapping, list, tuple)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(item, f'{name}.{key}' if name else str(key))
    else:
        yield name, value if isinstance(value, (int, float, str, type(None))) else str(value)


def compare(before: dict, now: dict, source: str, warn: Callable[[str], None]) -> None:
    """Says what has changed in the config since a checkpoint was saved, and what becomes of it.

    Raises:
        ConfigError: for another optimizer, whose state the checkpoint does not hold.
    """
    if not isinstance(before, dict) or not before:
        return
    for key in sorted(set(before) | set(now)):
        was, is_ = before.get(key), now.get(key)
        if was == is_:
            continue
        if key == 'optim_wrapper.optimizer.type':
            raise ConfigError(
                f'{source} holds the state of {was} and the config names {is_}: resume with {was}, or start anew from '
                f'its weights with load_from={source}'
            )
        kept = key.startswith(('optim_wrapper.optimizer.', 'optim_wrapper.paramwise_cfg', 'param_scheduler.'))
        what = (
            'the resumed training keeps what it was, which the checkpoint holds'
            if kept
            else 'it is what the config says'
        )
        warn(f'{key} was {was!r} when {Path(source).name} was saved, and is {is_!r} in the config: {what} from now on')


def newest_whole_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from, and what had to be passed over, one sentence each.

    It is searched for in ``work_dir`` itself, since the folder may have been moved; those that are cut are passed over.
    """
    folder, passed_over = Path(work_dir), []
    pointer = folder / 'last_checkpoint'
    named = Path(pointer.read_text().strip()).name if pointer.is_file() else ''
    numbered = {path: int(match[1]) for path in folder.glob('*.pth') if (match := _NUMBERED.fullmatch(path.name))}
    newest_first = sorted(numbered, key=lambda path: numbered[path], reverse=True)
    if named and folder / named not in numbered:
        if (folder / named).is_file():
            newest_first.insert(0, folder / named)
        else:
            passed_over.append(f'{folder / named} is missing')
    elif named:
        # longer runs of earlier days may have left files in the same folder: higher in number, and older
        written = pointer.stat().st_mtime
        last = numbered[folder / named]
        later = [path for path in newest_first if numbered[path] > last and path.stat().st_mtime > written]
        newest_first = [*later, *[path for path in newest_first if numbered[path] <= last]]
    for path in newest_first:
        try:
            content = read_file(path)
        except WeightsError as error:
            passed_over.append(str(error))
            continue
        if 'optimizer' in content and 'message_hub' in content:
            return path, passed_over
        passed_over.append(f'{path} holds no state of a training')
    return None, passed_over


def link(source: Path, target: Path) -> None:
    """A second name for a file, put in place whole."""
    partial = _partial(target)
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:  # a file system without links
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    partial.unlink(missing_ok=True)  # two names of one file: replacing one by the other does nothing


def _partial(path: Path) -> Path:
    """Beside a file, and this process's own."""
    return path.with_name(f'{path.name}.{os.getpid()}{PARTIAL}')


def _sync_folder(folder: Path) -> None:
    if os.name == 'nt':  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(value, name: str = ''):
    """The same data without classes of anybody's: arrays and logged histories become tensors, named numbers plain ones.

    What is no data is left out and named in the log.
    """
    if isinstance(value, Mapping):
        kept = {key: plain(item, f'{name}.{key}') for key, item in value.items() if _is_data(item, f'{name}.{key}')}
        return {
            key if isinstance(key, (str, int, float, bool, tuple)) else str(key): item for key, item in kept.items()
        }
    if isinstance(value, (list, tuple)):
        items = [plain(item, name) for item in value if _is_data(item, name)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item, name) for item in value)
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(
            zip(
                _HISTORY,
                (
                    torch.from_numpy(log.astype(np.float64)),
                    torch.from_numpy(count.astype(np.float64)),
                    value.max_length,
                ),
            )
        )
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value)) if value.dtype.kind in 'biuf' else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach()
    kinds: tuple[type, ...] = (bool, int, float, str, bytes)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    return value


def _is_data(value, name: str) -> bool:
    data = (
        Mapping,
        list,
        tuple,
        set,
        frozenset,
        HistoryBuffer,
        np.ndarray,
        np.generic,
        torch.Tensor,
        bool,
        int,
        float,
        str,
        bytes,
        torch.dtype,
        type(None),
    )
    if not isinstance(value, data):
        print_log(f'{name} is left out of the checkpoint: a {type(value).__name__} is no plain data', logger='current')
    return isinstance(value, data)


def _history(value) -> HistoryBuffer | None:
    if isinstance(value, HistoryBuffer):
        return value
    if not isinstance(value, dict) or set(value) != set(_HISTORY):
        return None
    return HistoryBuffer(value['log_history'].tolist(), value['count_history'].tolist(), value['max_length'])
