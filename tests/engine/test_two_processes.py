"""Two processes over gloo, as torchrun starts them on a machine without GPUs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from effseg.demo.dataset import write_demo_data

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/fpn_effformer_l1_demo.py'
TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']


# put into every Python of a run by the name that Python looks for: which files a process opens to write
WATCH = """
import os, sys
def written(event, arguments):
    if event != 'open' or not isinstance(arguments[0], str) or not isinstance(arguments[1], str):
        return
    if set(arguments[1]) & set('wax+'):
        with os.fdopen(os.open(os.environ['WRITTEN'], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 'a') as log:
            print(os.environ['RANK'], os.path.abspath(arguments[0]), file=log)
if 'RANK' in os.environ and 'WRITTEN' in os.environ:
    sys.addaudithook(written)
"""


def python(*arguments, **environment) -> None:
    run = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]


def writers(log: Path, folder: Path) -> dict[str, set[str]]:
    """Which ranks wrote which files of a folder, by name."""
    found = {}
    for line in log.read_text().splitlines():
        rank, _, path = line.partition(' ')
        if path.startswith(f'{folder}/'):
            # a partial file's name has its process in it
            found.setdefault(re.sub(r'\.\d+\.partial$', '.partial', Path(path).name), set()).add(rank)
    return found


def scores(work_dir: Path) -> dict[str, float]:
    """The metrics of the one run that logged there; IoUMetric rounds them to hundredths."""
    (file,) = work_dir.glob('*/*.json')
    return {
        name: value
        for name, value in json.loads(file.read_text().splitlines()[-1]).items()
        if name in ('aAcc', 'mIoU', 'mAcc')
    }


def test_what_has_nothing_to_train_is_not_wrapped():
    pytest.importorskip('mmseg')
    from effseg.engine.runner import Runner

    network = nn.Identity()
    assert Runner.wrap_model(SimpleNamespace(distributed=True), None, network) is network


@pytest.mark.slow
def test_two_processes_train_the_demo_and_score_a_checkpoint_as_one_does(tmp_path):
    # five held-out scenes: the second process gets one fewer, and must neither drop nor count one twice
    write_demo_data(tmp_path / 'data', train=8, val=5, size=(64, 96))
    data = f'data_root={tmp_path / "data"}'
    train = (
        'tools/train.py',
        CONFIG,
        '--work-dir',
        tmp_path / 'train',
        '--launcher',
        'pytorch',
        '--cfg-options',
        data,
        'model.data_preprocessor.size=(64,96)',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=4',
        'default_hooks.checkpoint.interval=4',
        'default_hooks.logger.interval=1',
    )
    (tmp_path / 'watch').mkdir()
    (tmp_path / 'watch/sitecustomize.py').write_text(WATCH)
    python(*TORCHRUN, *train, PYTHONPATH=str(tmp_path / 'watch'), WRITTEN=str(tmp_path / 'written'))
    written = writers(tmp_path / 'written', tmp_path / 'train')
    assert {'iter_4.pth.partial', 'last_checkpoint.partial'} <= set(written), written
    assert all(ranks == {'0'} for ranks in written.values()), written
    checkpoint = tmp_path / 'train/iter_4.pth'
    assert checkpoint.is_file()
    python(
        *TORCHRUN,
        'tools/test.py',
        CONFIG,
        checkpoint,
        '--work-dir',
        tmp_path / 'two',
        '--launcher',
        'pytorch',
        '--cfg-options',
        data,
    )
    python('tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'one', '--cfg-options', data)
    assert scores(tmp_path / 'two') == scores(tmp_path / 'one')
    fused = (checkpoint, '--fused', '--work-dir', tmp_path / 'fused', '--launcher', 'pytorch', '--cfg-options', data)
    python(*TORCHRUN, 'tools/test.py', CONFIG, *fused)
    assert scores(tmp_path / 'fused')['aAcc'] == pytest.approx(scores(tmp_path / 'one')['aAcc'], abs=0.2)
    assert set(scores(tmp_path / 'one')) == {'aAcc', 'mIoU', 'mAcc'}
