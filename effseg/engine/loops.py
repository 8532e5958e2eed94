"""MMEngine's training loops, which go on where an interrupted run was without loading what it has seen."""

from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from .samplers import EndlessSampler, NumberedSampler


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's EpochBasedTrainLoop; resumed in the middle of an epoch, it goes on there."""

    def run_epoch(self) -> None:
        """The epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self.done_of_epoch()
        if done:
            self.dataloader.sampler.begin_at(done * self.dataloader.batch_size)
        for index, batch in enumerate(self.dataloader, done):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def done_of_epoch(self) -> int:
        """How many iterations of this epoch an earlier run has done; 0 where the data have changed since."""
        done = self._iter - self._epoch * len(self.dataloader)
        resumable = isinstance(self.dataloader.sampler, NumberedSampler) and self.dataloader.batch_size
        return done if resumable and 0 < done < len(self.dataloader) else 0


class SkippingIterator:
    """In the place of the iterator of MMEngine 0.10.7, which loads whatever a resumed run leaves out.

    Args:
        loop: an IterBasedTrainLoop that asks for as many batches as it has done before it trains.
    """

    def __init__(self, loop: BaseLoop):
        self._loop, self._batches, self._left = loop, loop.dataloader_iterator, None

    def __next__(self):
        if self._left is None:
            self._left = self._loop.iter
            if self._left:
                self._loop.dataloader.sampler.skip(self._left * self._loop.dataloader.batch_size)
                self._batches = type(self._batches)(self._loop.dataloader)
        if self._left:
            self._left -= 1
            return None
        return next(self._batches)


def resumable(loop: dict) -> dict:
    """The config of a loop with ours in the place of MMEngine's EpochBasedTrainLoop."""
    rest = {key: value for key, value in loop.items() if key not in ('type', 'by_epoch')}
    epochs = loop.get('by_epoch') is True or loop.get('type') in ('EpochBasedTrainLoop', EpochBasedTrainLoop)
    return dict(rest, type='ResumableEpochLoop') if epochs else loop


def without_loading(loop: BaseLoop) -> BaseLoop:
    """The loop itself; an older MMEngine's skips without loading from now on."""
    iterator = getattr(loop, 'dataloader_iterator', None)
    if (
        iterator is not None
        and not hasattr(iterator, 'skip_iter')
        and isinstance(loop.dataloader.sampler, EndlessSampler)
        and loop.dataloader.batch_size
    ):
        loop.dataloader_iterator = SkippingIterator(loop)
    return loop
