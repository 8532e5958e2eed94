"""MMEngine's training loops, which go on where an interrupted run was without loading what it has seen."""

from traceback import walk_tb

import torch
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, ValLoop

from ..errors import ConfigError, EffsegError, TrainingError, first_line
from .checkpoint_hook import save_now
from .samplers import SeededSampler

# what code raises that is given what it cannot take
OF_PARTS = (AssertionError, AttributeError, LookupError, TypeError, ValueError)


class ResumableLoop(BaseLoop):
    """What both loops have: values that train nothing are refused, and a dead worker costs nothing that was trained."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if self.val_interval < 1:
            raise ValueError(f'val_interval={self.val_interval} must be 1 or more')
        if self.max_epochs < 1 or self._max_iters < 1 and len(self.dataloader):
            raise ValueError(f'{self._max_iters} iterations train nothing; max_iters or max_epochs must be 1 or more')
        if not len(self.dataloader) and not getattr(self.dataloader.sampler, 'endless', False):
            raise ValueError(
                f'an epoch has no iteration: {len(self.dataloader.dataset)} samples are no batch of '
                f'{self.dataloader.batch_size} with drop_last'
            )

    def run(self):
        """As MMEngine's.

        Raises:
            TrainingError: when a process that loads data dies; what was trained is saved first.
            ConfigError: when the first iteration fails: the parts of the config do not fit together; or a validation,
                and what was trained is saved first.
        """
        begun = self._iter
        try:
            return super().run()
        except EffsegError:
            raise
        except (*OF_PARTS, ConnectionError, EOFError, RuntimeError) as error:
            if self._worker_died(error):
                raise TrainingError(
                    f'{first_line(error).rstrip(".")}: a process that loads data died after iteration {self._iter}, '
                    'most likely for want of memory (fewer num_workers take less). The training was '
                    f'{save_now(self.runner, self._epoch, self._iter)}'
                ) from error
            said = ' '.join(f'{type(error).__name__}: {error}'.split())[:500]
            if any(isinstance(frame.f_locals.get('self'), ValLoop) for frame, _ in walk_tb(error.__traceback__)):
                raise ConfigError(
                    f'the validation after iteration {self._iter} failed (--debug shows where): {said}. The training '
                    f'was {save_now(self.runner, self._epoch, self._iter)}'
                ) from error
            if self._iter == begun and not isinstance(error, torch.cuda.OutOfMemoryError):
                raise ConfigError(
                    'the first iteration failed: the parts of the config do not fit together (--debug shows where): '
                    f'{said}'
                ) from error
            raise

    def _worker_died(self, error: Exception) -> bool:
        """Whether a process that loads data ended; what a living one raised, torch hands over as "Caught ..."."""
        if not self.dataloader.num_workers or str(error).startswith('Caught '):
            return False
        # one that dies while it hands a batch over breaks the connection before torch sees it dead
        return isinstance(error, (ConnectionError, EOFError)) or (
            isinstance(error, RuntimeError) and 'DataLoader worker' in str(error)
        )


@LOOPS.register_module()
class ResumableEpochLoop(ResumableLoop, EpochBasedTrainLoop):
    """MMEngine's EpochBasedTrainLoop; resumed in the middle of an epoch, it goes on there."""

    def run_epoch(self) -> None:
        """The epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)  # by an earlier run
        if _can_skip(self) and 0 < done < len(self.dataloader):
            self.dataloader.sampler.skip(done * self.dataloader.batch_size)
        else:  # a whole epoch, or the data have changed since
            done = 0
        for index, batch in enumerate(self.dataloader, done):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(ResumableLoop, IterBasedTrainLoop):
    """MMEngine's IterBasedTrainLoop, which loads nothing in vain when it is resumed, in MMEngine 0.10.7 as well."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if _can_skip(self):
            self.dataloader_iterator = BatchIterator(self)


class BatchIterator:
    """Gives the batches of a training by iterations without end, beginning at any of them.

    Args:
        loop: whose dataloader has a SeededSampler.
    """

    def __init__(self, loop: BaseLoop):
        self._loop, self._dataloader = loop, loop.dataloader
        self._batches, self._pass = None, 0
        # MMEngine 0.10.7 knows no skip_iter: it asks for as many batches as are done before it trains
        self._in_vain = None if hasattr(type(loop.dataloader_iterator), 'skip_iter') else -1

    def skip_iter(self, num_iters: int) -> None:
        """Goes to the batch of this number, which is given next."""
        sampler = self._dataloader.sampler
        if not sampler.endless:
            self._pass, num_iters = divmod(num_iters, len(self._dataloader))
            sampler.set_epoch(self._pass)
        sampler.skip(num_iters * self._dataloader.batch_size)
        self._batches = None

    def __next__(self):
        if self._in_vain == -1:
            self._in_vain = self._loop.iter
            self.skip_iter(self._in_vain)
        if self._in_vain:
            self._in_vain -= 1
            return None
        if self._batches is None:
            self._batches = iter(self._dataloader)
        try:
            return next(self._batches)
        except StopIteration:  # the end of the data: once more
            self._pass += 1
            self._dataloader.sampler.set_epoch(self._pass)
            self._batches = iter(self._dataloader)
            return next(self._batches)


def _can_skip(loop: BaseLoop) -> bool:
    return isinstance(loop.dataloader.sampler, SeededSampler) and bool(loop.dataloader.batch_size)
