"""Things timed in turn in one process, the memory and the work that something takes, and the processor it runs on."""

import contextlib
import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

MB = 1e6


@dataclass(frozen=True)
class Timing:
    """Durations of one thing, in seconds.

    Attributes:
        seconds: one per run, in order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self):
        low, _, high = statistics.quantiles(self.seconds, n=4) if len(self.seconds) > 1 else self.seconds * 3
        return (
            f'{1e3 * self.median:8.1f} ms  (middle half {1e3 * low:.1f} to {1e3 * high:.1f}, {len(self.seconds)} runs)'
        )


def time_in_turn(
    contestants: Mapping[str, Callable[[], object]],
    runs: int = 10,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    device: torch.device | str = 'cpu',
) -> dict[str, Timing]:
    """Times several things round by round, each once in a round, so that other work on the machine slows all alike.

    Args:
        contestants: by name.
        runs: of each that count.
        warmup: of each that do not.
        clock: gives seconds; ``time.process_time`` does not count when the process had to wait for a processor, and is
            for what computes on one thread.
        device: that computes; it is waited for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warmup + runs):
        for name, run in contestants.items():
            started = clock()
            run()
            wait_for(device)
            if turn >= warmup:
                seconds[name].append(clock() - started)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def wait_for(device: torch.device | str) -> None:
    """Returns when a GPU has done what it was given; at once of a CPU, which does it when it is given."""
    kind = torch.device(device).type
    if kind == 'cuda':
        torch.cuda.synchronize(device)
    elif kind == 'mps':
        torch.mps.synchronize()


def counted(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` returns, and its multiplications in convs and matrix products in 10^9, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops() / 2e9


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


class peak_memory:
    """A context that measures how far this process's memory on a device rises above where it stood.

    On the CPU it reads Linux's high-water mark of resident memory; elsewhere ``bytes`` stays None.

    Args:
        device: a GPU, or the CPU.

    Attributes:
        bytes: the rise, once the context is left.
    """

    bytes: int | None = None

    def __init__(self, device: torch.device | str = 'cpu'):
        self.device = torch.device(device)

    def __enter__(self) -> 'peak_memory':
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before: int | None = torch.cuda.memory_allocated(self.device)
        else:
            with contextlib.suppress(OSError, AttributeError):  # other systems than Linux with glibc
                ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed would otherwise be used again unseen
                Path('/proc/self/clear_refs').write_text('5')  # lets the high-water mark begin anew
            self._before = _status('VmRSS')
        return self

    def __exit__(self, *error) -> None:
        on_gpu = self.device.type == 'cuda'
        after = torch.cuda.max_memory_allocated(self.device) if on_gpu else _status('VmHWM')
        self.bytes = None if after is None or self._before is None else max(after - self._before, 0)

    def __str__(self):
        return (
            'peak memory unknown on this system'
            if self.bytes is None
            else f'peak memory {self.bytes / MB:.0f} MB above the start'
        )


def _status(field: str) -> int | None:
    """Reads a line of Linux's /proc/self/status; gives bytes."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{field}:')), None)
