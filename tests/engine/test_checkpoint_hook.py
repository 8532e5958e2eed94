"""Files are there whole or not at all, and what is kept, pointed at and resumed from is right."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from networks import TINY

from effseg.engine.atomic import AtomicBackend, link
from effseg.engine.datasets import GuardedDataset
from effseg.engine.resuming import newest_whole_checkpoint
from effseg.errors import DiskError

pytestmark = pytest.mark.medium


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory) -> Path:
    """The folder of a short training: 8 iterations, saved every 2, all kept."""
    from effseg.apis.train import train

    folder = tmp_path_factory.mktemp('trained') / 'run'
    train(TINY, str(folder), cfg_options={'default_hooks.checkpoint.max_keep_ckpts': 3})
    return folder


def test_a_full_disk_leaves_what_was_there_and_says_what_is_needed(tmp_path, monkeypatch):
    backend, file = AtomicBackend(), tmp_path / 'a.pth'
    backend.put(b'before', file)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('Usage', 'free')(17))
    with pytest.raises(DiskError, match='(?s)needs 2000 bytes, 17 are free.*No space left'):
        backend.put(bytes(2000), file)
    assert file.read_bytes() == b'before' and os.listdir(tmp_path) == ['a.pth']


def test_a_folder_that_is_gone_is_no_full_disk(tmp_path, monkeypatch):
    def gone(source, target):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, 'replace', gone)
    with pytest.raises(DiskError, match='No such file') as caught:
        AtomicBackend().put(b'x', tmp_path / 'a.pth')
    assert 'free' not in str(caught.value) and not os.listdir(tmp_path)


def test_the_best_one_scored_again_leaves_nothing_behind(tmp_path):
    (tmp_path / 'best_4.pth').write_bytes(b'x')
    for _ in range(2):
        link(tmp_path / 'best_4.pth', tmp_path / 'best.pth')
    assert sorted(os.listdir(tmp_path)) == ['best.pth', 'best_4.pth']


@pytest.mark.skipif(
    not os.path.ismount('/dev/shm') or os.geteuid() != 0, reason='takes the right to mount a small file system'
)
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / 'disk'
    disk.mkdir()
    if os.system(f'mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null'):
        pytest.skip('file systems cannot be mounted here')
    try:
        AtomicBackend().put(bytes(20000), disk / 'a.pth')
        with pytest.raises(DiskError, match='needs 60000 bytes'):
            AtomicBackend().put(bytes(60000), disk / 'a.pth')
        assert os.listdir(disk) == ['a.pth'] and (disk / 'a.pth').stat().st_size == 20000
    finally:
        os.system(f'umount {disk}')


def test_removals_wait_for_the_end_and_do_not_come_after_an_error(tmp_path):
    backend = AtomicBackend()
    for name in 'ab':
        backend.put(b'x', tmp_path / name)
    with backend.removals_last():
        backend.remove(tmp_path / 'a')
        assert (tmp_path / 'a').is_file()
    assert not (tmp_path / 'a').exists()
    with pytest.raises(KeyError), backend.removals_last():
        backend.remove(tmp_path / 'b')
        raise KeyError
    assert (tmp_path / 'b').is_file()


def test_what_a_training_leaves(trained):
    names = sorted(path.name for path in trained.glob('*.pth'))
    (best,) = [name for name in names if name.startswith('best_mIoU')]
    assert names == sorted(['best.pth', best, 'iter_4.pth', 'iter_6.pth', 'iter_8.pth'])
    assert (trained / 'best.pth').read_bytes() == (trained / best).read_bytes()
    assert Path((trained / 'last_checkpoint').read_text()) == trained / 'iter_8.pth'


def test_our_checkpoints_load_under_bare_weights_only(trained):
    for path in trained.glob('*.pth'):
        content = torch.load(path, weights_only=True)
        assert content['message_hub']['log_scalars']['train/loss']['log_history'].dtype == torch.float64
        assert len(content['meta']['dataset_meta']['classes']) == 8


def test_a_resumed_training_keeps_its_curves(trained, tmp_path, tool):
    folder = shutil.copytree(trained, tmp_path / 'moved')
    assert tool('train', TINY, '--work-dir', folder, '--resume', '--cfg-options', 'train_cfg.max_iters=10').status == 0
    history = torch.load(folder / 'iter_10.pth', weights_only=True)['message_hub']['log_scalars']['train/loss'][
        'log_history'
    ]
    before = torch.load(trained / 'iter_8.pth', weights_only=True)['message_hub']['log_scalars']['train/loss'][
        'log_history'
    ]
    assert len(history) == 10 and torch.equal(history[:8], before)


def test_a_resumed_training_loads_nothing_twice_and_nothing_in_vain(trained, tmp_path, tool, monkeypatch):
    def draws(*arguments):
        seen = []
        monkeypatch.setattr(
            GuardedDataset, '__getitem__', lambda self, draw: seen.append(draw.seed) or load(self, draw)
        )
        assert (
            tool(
                'train',
                TINY,
                *arguments,
                '--no-data-check',
                '--cfg-options',
                'train_cfg.max_iters=10',
                'train_cfg.val_interval=99',
                'default_hooks.checkpoint.interval=99',
                'val_cfg=None',
                'val_dataloader=None',
                'val_evaluator=None',
            ).status
            == 0
        )
        return seen

    load = GuardedDataset.__getitem__
    resumed = draws('--work-dir', shutil.copytree(trained, tmp_path / 'moved'), '--resume')
    assert len(resumed) == 4 and resumed == draws('--work-dir', tmp_path / 'whole')[-4:]


def newest(folder):
    path, passed_over = newest_whole_checkpoint(folder)
    return path and path.name, ' '.join(passed_over)


@pytest.mark.parametrize(
    'corrupt, expected, said',
    [
        (lambda f: None, 'iter_8.pth', ''),
        (
            lambda f: (f / 'iter_8.pth').write_bytes((f / 'iter_8.pth').read_bytes()[:-1000]),
            'iter_6.pth',
            'iter_8.pth is damaged',
        ),
        (lambda f: (f / 'iter_8.pth').unlink(), 'iter_6.pth', 'iter_8.pth is missing'),
        (lambda f: (f / 'last_checkpoint').unlink(), 'iter_8.pth', ''),
        (lambda f: (f / 'last_checkpoint').write_text(''), 'iter_8.pth', ''),
        (lambda f: (f / 'last_checkpoint').write_bytes(b'\xff\0'), 'iter_8.pth', 'is missing'),
        (lambda f: (f / 'last_checkpoint').write_text('/elsewhere/iter_8.pth'), 'iter_8.pth', ''),
        (lambda f: shutil.copy(f / 'best.pth', f / 'iter_8.pth'), 'iter_6.pth', 'holds no state'),
        (
            lambda f: (shutil.copy(f / 'iter_4.pth', f / 'iter_99.pth'), os.utime(f / 'iter_99.pth', (0, 0))),
            'iter_8.pth',
            '',
        ),
        (
            # a file system of whole seconds
            lambda f: (
                shutil.copy(f / 'iter_4.pth', f / 'iter_99.pth'),
                [os.utime(f / name, (1, 1)) for name in ('iter_99.pth', 'last_checkpoint')],
            ),
            'iter_8.pth',
            '',
        ),
        (lambda f: [path.unlink() for path in f.glob('iter_*')], None, 'missing'),
    ],
)
def test_the_newest_whole_checkpoint_is_found(trained, tmp_path, corrupt, expected, said):
    folder = shutil.copytree(trained, tmp_path / 'run')
    corrupt(folder)
    name, passed_over = newest(folder)
    assert name == expected and said in passed_over and bool(said) == bool(passed_over)


def test_a_cut_newest_checkpoint_is_passed_over_aloud(trained, tmp_path, tool):
    folder = shutil.copytree(trained, tmp_path / 'run')
    (folder / 'iter_8.pth').write_bytes(b'')
    (folder / 'last_checkpoint').write_bytes(b'\xff')  # of a disk that lost it
    outcome = tool('train', TINY, '--work-dir', folder, '--resume')
    assert (
        outcome.status == 0 and 'iter_8.pth' in outcome.err + outcome.out and 'passed over' in outcome.err + outcome.out
    )
    assert 'train 8/8' in outcome.out and 'train 6/8' not in outcome.out


def test_what_a_kill_left_half_written_is_cleared_away_though_nothing_more_is_saved(trained, tmp_path, tool):
    folder = shutil.copytree(trained, tmp_path / 'run')
    for name in ('iter_8.pth.partial', 'last_checkpoint.partial'):
        (folder / name).write_bytes(b'half')
    assert tool('train', TINY, '--work-dir', folder, '--resume').status == 0
    assert not list(folder.glob('*.partial'))


def test_resume_from_another_network_is_refused(trained, tmp_path, tool):
    folder = shutil.copytree(trained, tmp_path / 'run')
    outcome = tool(
        'train',
        TINY,
        '--work-dir',
        folder,
        '--resume',
        '--cfg-options',
        'model.neck.out_channels=24',
        'model.decode_head.in_channels=[24,24,24,24]',
    )
    assert outcome.status == 2 and 'another network' in outcome.err and 'Traceback' not in outcome.err


def test_mmengine_s_readers_are_ours():
    from mmengine.runner import CheckpointLoader

    for name in (
        'a.pth',
        'http://x/a.pth',
        'https://x/a.pth',
        'torchvision://resnet50',
        'open-mmlab://resnet50_v1c',
        's3://b/a.pth',
        'pavi://a',
    ):
        assert CheckpointLoader._get_checkpoint_loader(name).__module__ == 'effseg.checkpoint.mmengine_loader', name
