"""Two processes over gloo, as torchrun starts them on a machine without GPUs."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effseg.datasets.demo import write_demo_data

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/fpn_effformer_l1_demo.py'
TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']


def python(*arguments) -> None:
    run = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'},
                         capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]


def scores(work_dir: Path) -> dict[str, float]:
    """The metrics of the one run that logged there; IoUMetric rounds them to hundredths."""
    (file,) = work_dir.glob('*/*.json')
    return {name: value for name, value in json.loads(file.read_text().splitlines()[-1]).items() if name in ('aAcc', 'mIoU', 'mAcc')}


@pytest.mark.slow
def test_two_processes_train_the_demo_and_score_a_checkpoint_as_one_does(tmp_path):
    # five held-out scenes: the second process gets one fewer, and must neither drop nor count one twice
    write_demo_data(tmp_path / 'data', train=8, val=5, size=(64, 96))
    data = f'data_root={tmp_path / "data"}'
    train = ('tools/train.py', CONFIG, '--work-dir', tmp_path / 'train', '--launcher', 'pytorch', '--cfg-options', data,
             'model.data_preprocessor.size=(64,96)', 'train_dataloader.batch_size=2', 'train_cfg.max_iters=4', 'train_cfg.val_interval=4',
             'default_hooks.checkpoint.interval=4', 'default_hooks.logger.interval=1')
    python(*TORCHRUN, *train)
    checkpoint = tmp_path / 'train/iter_4.pth'
    assert checkpoint.is_file()
    python(*TORCHRUN, 'tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'two', '--launcher', 'pytorch', '--cfg-options', data)
    python('tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'one', '--cfg-options', data)
    assert scores(tmp_path / 'two') == scores(tmp_path / 'one')
    assert set(scores(tmp_path / 'one')) == {'aAcc', 'mIoU', 'mAcc'}
