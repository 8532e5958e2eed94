"""Trainings in processes of their own that are killed at a chosen moment. They are forked from a process that has
imported everything, so that each costs a second."""

import faulthandler
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from networks import TINY

PRELOADED = ['mmseg.datasets', 'mmseg.models', 'effseg.models', 'effseg.apis.train']
INTERVAL = 2  # of saving, as tiny.py says


def processes():
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOADED)
    return context


def train_in_child(
    work_dir: str, data_root: str, resume: bool, options: dict, die_at_line: int | None, config: str = TINY
) -> None:
    """Runs in the child: trains tiny.py or another config, and writes every iteration that begins, and every line, to
    files beside the work dir."""
    os.environ.update(DEMO_ROOT=data_root, CUDA_VISIBLE_DEVICES='')
    torch.set_num_threads(1)
    # the tests themselves may run behind nohup or in a shell's background, which hand down that these are ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(f'{work_dir}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1, open(f'{work_dir}.log', 'a'), all_threads=True)
    begun = os.open(f'{work_dir}.begun', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    from effseg import files
    from effseg.apis import cli
    from effseg.apis.train import train
    from effseg.engine import atomic, checkpoint_hook, plain_data, resuming
    from effseg.engine import hooks as watch

    seed = watch.IterationSeedHook.before_train_iter

    def before_train_iter(self, runner, *args, **kwargs):
        os.write(begun, f'{runner.iter}\n'.encode())
        seed(self, runner, *args, **kwargs)

    watch.IterationSeedHook.before_train_iter = before_train_iter
    if die_at_line is not None:
        saving = {module.__file__ for module in (atomic, checkpoint_hook, files, plain_data, resuming)}
        sys.settrace(_killer(saving, die_at_line))
    sys.argv = ['train.py']
    cli.run(lambda argv: train(config, work_dir, resume=resume, cfg_options=options))


def _killer(files: set[str], lines: int):
    """Counts the lines that run between the beginning of a save and its end, in the files that save, and dies at the
    last."""
    left = lines

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in files or frame.f_code.co_name in (
            'before_train',
            '__init__',
            'newest_whole_checkpoint',
            '<genexpr>',
        ):
            return None
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


@dataclass
class Chain:
    """A training that is killed and resumed until it is through.

    Attributes:
        lost: how many iterations every kill cost.
        in_save: how many of the kills fell into the saving of a checkpoint.
    """

    work_dir: Path
    data_root: Path
    options: dict
    config: str = TINY
    lost: list[int] = field(default_factory=list)
    in_save: int = 0
    finished: bool = False

    def begun(self) -> list[int]:
        file = Path(f'{self.work_dir}.begun')
        return [int(line) for line in file.read_text().split()] if file.is_file() else []

    def run(self, after: float | None = None, line: int | None = None, timeout: float = 300) -> int:
        """Starts or resumes it, and kills it ``after`` seconds of training or at a ``line`` of saving; gives the exit
        code."""
        before = self.begun()
        resume = any(Path(self.work_dir).glob('*.pth'))
        process = processes().Process(
            target=train_in_child,
            args=(str(self.work_dir), str(self.data_root), resume, self.options, line, self.config),
        )
        process.start()
        if after is not None:
            deadline = time.monotonic() + timeout
            while process.is_alive() and len(self.begun()) == len(before) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(after)
            process.kill()
        process.join(timeout)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGUSR1)  # where it hangs goes to the log
            time.sleep(1)
            raise AssertionError(f'hangs: {self.log()}')
        begun = self.begun()
        if before and len(begun) > len(before):
            # the last iteration that had begun may not have been through
            self.lost.append(max(0, before[-1] - begun[len(before)]))
        self.finished = process.exitcode == 0
        self.in_save += line is not None and process.exitcode == -signal.SIGKILL
        return process.exitcode

    def stop(self, iterations: int, number: int = signal.SIGTERM) -> int:
        """Starts or resumes it and, when so many iterations have begun, asks it to stop; gives the exit code."""
        before = self.begun()
        process = processes().Process(
            target=train_in_child,
            args=(str(self.work_dir), str(self.data_root), bool(before), self.options, None, self.config),
        )
        process.start()
        while process.is_alive() and len(self.begun()) < len(before) + iterations:
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.join(60)
        return process.exitcode

    def log(self) -> str:
        return Path(f'{self.work_dir}.log').read_text(errors='replace')[-3000:]


def kill_all_the_way(
    folder: Path, data_root: Path, options: dict, kills: int, in_save: int, seed: int = 0
) -> list[Chain]:
    """Kills trainings ``kills`` times, ``in_save`` of them while they save; each one that ends is followed by a new
    one."""
    draw = random.Random(seed)
    plan = [True] * in_save + [False] * (kills - in_save)
    draw.shuffle(plan)
    chains, done = [], 0
    while done < kills or not chains[-1].finished:
        if not chains or chains[-1].finished:
            chains.append(Chain(folder / f'run{len(chains)}', data_root, options))
        chain = chains[-1]
        if done >= kills:
            code = chain.run()
        elif plan[done]:
            code = chain.run(line=draw.randint(1, 120))
        else:
            code = chain.run(after=draw.uniform(0, 1.2))
        assert code in (0, -signal.SIGKILL), (code, chain.log())
        done += code == -signal.SIGKILL
    return chains


def weights(work_dir: Path, name: int | str) -> dict:
    return torch.load(Path(work_dir) / (f'iter_{name}.pth' if isinstance(name, int) else name), weights_only=True)[
        'state_dict'
    ]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
