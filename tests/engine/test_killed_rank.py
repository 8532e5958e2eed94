"""A process of several that dies takes the others with it, soon, and the run resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from networks import ROOT, TINY

TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']


def children(pid: int) -> list[int]:
    found = []
    for status in Path('/proc').glob('[0-9]*/stat'):
        try:
            if int(status.read_text().rpartition(')')[2].split()[1]) == pid:
                found.append(int(status.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def command(work_dir, iterations, *more):
    return [
        *TORCHRUN,
        str(ROOT / 'tools/train.py'),
        TINY,
        '--work-dir',
        str(work_dir),
        '--launcher',
        'pytorch',
        *more,
        '--cfg-options',
        f'train_cfg.max_iters={iterations}',
        'default_hooks.checkpoint.max_keep_ckpts=1',
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='takes /proc')
@pytest.mark.parametrize('rank', [0, 1])
def test_a_killed_rank_ends_the_launcher_and_the_run_resumes(scenes, tmp_path, rank):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    launcher = subprocess.Popen(
        command(tmp_path / 'run', 100_000), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while (
            not (tmp_path / 'run/last_checkpoint').exists() and launcher.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        ranks = sorted(children(launcher.pid))
        assert len(ranks) == 2 and launcher.poll() is None
        started = time.monotonic()
        os.kill(ranks[rank], signal.SIGKILL)
        assert launcher.wait(60) != 0
        seconds = time.monotonic() - started
    finally:
        launcher.kill()
    print(f'rank {rank} killed: the launcher ended after {seconds:.1f} s')
    assert seconds < 30
    assert not [pid for pid in ranks if Path(f'/proc/{pid}').exists()]
    saved = int(Path((tmp_path / 'run/last_checkpoint').read_text()).stem.removeprefix('iter_'))
    run = subprocess.run(
        command(tmp_path / 'run', saved + 4, '--resume'), env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / f'run/iter_{saved + 4}.pth').is_file()
    assert f'train {saved + 2}/{saved + 4}' in run.stdout and f'train {saved}/' not in run.stdout
