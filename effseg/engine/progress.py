"""One live line for a person at the terminal: how far, how well, how long still."""

import os
import sys
import time
from datetime import timedelta

from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS


def say(text: str, end: str = '\n') -> None:
    """Prints a line. A terminal that is gone (``| head``) or knows no Unicode does not end the training."""
    try:
        encoding = getattr(sys.stdout, 'encoding', None) or 'utf-8'
        print(text.encode(encoding, 'replace').decode(encoding), end=end, flush=True)
    except OSError:  # nobody reads any more, nor what the log would write there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError:  # closed
        pass


def logging_interval(runner) -> int:
    """The interval of MMEngine's LoggerHook in iterations; 50 without one."""
    return next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 50)


def learning_rate(runner) -> float:
    """Of the first group of parameters."""
    return next(iter(runner.optim_wrapper.get_lr().values()))[0]


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows iteration, the loss as the log has it, learning rate, time left and the last validation mIoU.

    On a terminal one line is rewritten; into a file or pipe a line is written at every logging interval.
    """

    priority = 'VERY_LOW'

    def __init__(self):
        self.live = sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()
        self.score = ''

    def before_train(self, runner) -> None:
        self.start, self.first = time.monotonic(), runner.iter
        self.interval = logging_interval(runner)
        if runner.iter >= runner.max_iters:
            self._show(f'{runner.iter} of {runner.max_iters} iterations are done: nothing is left to train', True)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        done, total = runner.iter + 1, runner.max_iters
        if self.live or done % self.interval == 0 or done == total:
            # the same figure as the log's and the report's: the mean over log_processor.window_size iterations
            loss = runner.message_hub.get_scalar('train/loss').mean(runner.log_processor.window_size)
            rate = learning_rate(runner)
            elapsed = time.monotonic() - self.start
            left = timedelta(seconds=int(elapsed / (done - self.first) * (total - done)))
            self._show(f'train {done}/{total}  loss {loss:.3f}  lr {rate:.1e}  left {left}{self.score}', done == total)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._count('validate', batch_idx, len(runner.val_dataloader))

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        if metrics and 'mIoU' in metrics:
            self.score = f'  mIoU {metrics["mIoU"]:.2f}'
            self._show(
                f'validate at iteration {runner.iter}  mIoU {metrics["mIoU"]:.2f}  '
                f'aAcc {metrics.get("aAcc", float("nan")):.2f}',
                True,
            )

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._count('test', batch_idx, len(runner.test_dataloader))

    def _count(self, what: str, batch_idx: int, total: int) -> None:
        if self.live:
            self._show(f'{what} {batch_idx + 1}/{total}', batch_idx + 1 == total)

    def _show(self, line: str, last: bool) -> None:
        if not is_main_process():
            return
        end = '\n' if last or not self.live else ''
        start = '\r\033[K' if self.live else ''
        say(f'{start}{line}', end)
