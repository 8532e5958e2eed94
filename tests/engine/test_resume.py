"""A resumed training is the one that was interrupted, or says why it cannot be."""

import io
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import ValLoop
from networks import EPOCHS, TINY

from effseg.checkpoint.read import read_file
from effseg.engine.atomic import lock
from effseg.engine.datasets import GuardedDataset
from effseg.engine.progress import say

pytestmark = pytest.mark.medium
QUICKLY = ['--no-data-check', '--cfg-options', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None']
QUICKLY += ['default_hooks.checkpoint.save_best=None']


@pytest.fixture
def train(tool, scenes):
    """Trains tiny.py without validation."""

    def call(work_dir, *options, more=(), config=TINY):
        return tool('train', config, '--work-dir', work_dir, *more, *QUICKLY, *options)

    return call


def weights(folder, iteration: int) -> dict:
    return torch.load(Path(folder) / f'iter_{iteration}.pth', weights_only=True)


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(value, second['state_dict'][key]) for key, value in first['state_dict'].items())


def test_exact_without_a_seed_in_the_config(train, tmp_path):
    assert train(tmp_path / 'a', 'randomness.seed=None', 'train_cfg.max_iters=4').status == 0
    assert train(tmp_path / 'a', 'randomness.seed=None', more=['--resume']).status == 0
    seed = weights(tmp_path / 'a', 8)['meta']['seed']
    assert train(tmp_path / 'b', f'randomness.seed={seed}').status == 0
    assert same(weights(tmp_path / 'a', 8), weights(tmp_path / 'b', 8))


def test_exact_while_gradients_are_accumulated(train, tmp_path):
    options = ['optim_wrapper.accumulative_counts=4', 'default_hooks.checkpoint.max_keep_ckpts=9']
    assert train(tmp_path / 'whole', *options).status == 0
    (tmp_path / 'run').mkdir()
    shutil.copy(tmp_path / 'whole/iter_6.pth', tmp_path / 'run')
    assert 'gradients' in weights(tmp_path / 'run', 6) and 'gradients' not in weights(tmp_path / 'whole', 8)
    assert train(tmp_path / 'run', *options, more=['--resume']).status == 0
    assert same(weights(tmp_path / 'run', 8), weights(tmp_path / 'whole', 8))


def test_exact_where_the_training_began_with_the_weights_of_another(train, tmp_path):
    """The same command with --resume goes on with this training, not with the one that it began from."""
    assert train(tmp_path / 'first', 'train_cfg.max_iters=6', 'randomness.seed=5').status == 0
    begin = f'load_from={tmp_path / "first/iter_6.pth"}'
    assert train(tmp_path / 'whole', begin, 'default_hooks.checkpoint.max_keep_ckpts=9').status == 0
    (tmp_path / 'run').mkdir()
    shutil.copy(tmp_path / 'whole/iter_4.pth', tmp_path / 'run')
    assert train(tmp_path / 'run', begin, more=['--resume']).status == 0
    assert same(weights(tmp_path / 'run', 8), weights(tmp_path / 'whole', 8))


@pytest.fixture
def averaged(tmp_path) -> Path:
    """tiny.py with the mean of the weights, in the layout channels_last."""
    hooks = [
        dict(type='ResumableEMAHook', ema_type='WarmAverage', momentum=0.1, update_buffers=True),
        dict(type='ChannelsLastHook'),
    ]
    path = tmp_path / 'averaged.py'
    path.write_text(f'_base_ = {TINY!r}\ncustom_hooks = {hooks}\n')
    return path


def test_exact_with_averaged_weights_while_gradients_are_accumulated(train, tmp_path, averaged):
    options = ['optim_wrapper.accumulative_counts=4', 'default_hooks.checkpoint.max_keep_ckpts=9']
    assert train(tmp_path / 'whole', *options, config=averaged).status == 0
    (tmp_path / 'run').mkdir()
    shutil.copy(tmp_path / 'whole/iter_6.pth', tmp_path / 'run')
    assert train(tmp_path / 'run', *options, more=['--resume'], config=averaged).status == 0
    ours, whole = weights(tmp_path / 'run', 8), weights(tmp_path / 'whole', 8)
    assert same(ours, whole)
    assert all(torch.equal(value, whole['ema_state_dict'][key]) for key, value in ours['ema_state_dict'].items())
    trained = ours['ema_state_dict']
    assert any(not torch.equal(value, trained[f'module.{key}']) for key, value in ours['state_dict'].items())


def test_exact_with_averaged_weights_after_a_stop_in_the_validation(tool, scenes, tmp_path, averaged, monkeypatch):
    options = ['--no-data-check', '--cfg-options', 'default_hooks.checkpoint.interval=8']
    validate, asked = ValLoop.run_iter, []

    def stopped(self, index, batch):
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))
        return validate(self, index, batch)

    assert tool('train', averaged, '--work-dir', tmp_path / 'whole', *options).status == 0
    monkeypatch.setattr(ValLoop, 'run_iter', stopped)
    assert tool('train', averaged, '--work-dir', tmp_path / 'run', *options).status == 128 + signal.SIGTERM
    assert weights(tmp_path / 'run', 4)
    assert tool('train', averaged, '--work-dir', tmp_path / 'run', '--resume', *options).status == 0
    assert same(weights(tmp_path / 'run', 8), weights(tmp_path / 'whole', 8))


def test_what_mmengine_alone_saved_is_resumed_by_it_and_by_us(train, tmp_path):
    stock = ['default_hooks.checkpoint.type=CheckpointHook', 'default_hooks.checkpoint.interval=4']
    assert train(tmp_path, *stock, 'train_cfg.max_iters=4', more=['--no-protect']).status == 0
    for end, more in ((8, ['--resume', '--no-protect']), (12, ['--resume'])):
        outcome = train(tmp_path, *stock, f'train_cfg.max_iters={end}', more=more)
        assert outcome.status == 0, outcome.err
        assert (tmp_path / f'iter_{end}.pth').is_file()


def test_numbers_of_numpy_come_as_numbers_and_other_objects_are_left_out(tmp_path):
    hub = dict(
        best=np.float64(41.5),
        count=np.int32(7),
        flag=np.bool_(True),
        history=HistoryBuffer([1.0], [1]),
        several=[np.float32(0.5), np.arange(3)],
    )
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'message_hub': hub}, tmp_path / 'a.pth')
    found = read_file(tmp_path / 'a.pth')['message_hub']
    assert found == dict(best=41.5, count=7, flag=True, several=[0.5])
    assert [type(found[name]) for name in ('best', 'count', 'flag')] == [float, int, bool]


def test_two_trainings_do_not_share_a_work_dir(train, tmp_path):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        held = lock(tmp_path)
        os.write(writer, b'x')
        signal.pause()
        held.close()
    os.read(reader, 1)
    try:
        outcome = train(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert outcome.status == 2 and f'process {child}' in outcome.err and 'host ' in outcome.err
    assert not list(tmp_path.glob('*.pth'))
    assert train(tmp_path).status == 0  # what a killed one leaves locks nothing


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory) -> Path:
    from effseg.apis.train import train

    folder = tmp_path_factory.mktemp('trained')
    train(TINY, str(folder), data_check=False, cfg_options={'train_cfg.val_interval': 99})
    return folder


@pytest.mark.parametrize(
    'option, status, words',
    [
        ('optim_wrapper.optimizer.lr=0.5', 0, 'optim_wrapper.optimizer.lr was 0.001 .* is 0.5 .* keeps what it was'),
        ('optim_wrapper.optimizer.weight_decay=0', 0, 'weight_decay was 0.0001 .* is 0 '),
        ('param_scheduler.0.power=2', 0, 'param_scheduler.0.power was 0.9 .* is 2 '),
        ('train_dataloader.batch_size=3', 0, 'batch_size was 2 .* is 3 .* what the config says'),
        ('train_cfg.max_iters=6', 2, 'iteration 8 .* ends at 6'),
        ('optim_wrapper.optimizer.type=SGD', 2, 'holds the state of AdamW and the config names SGD'),
    ],
)
def test_a_config_that_has_changed_is_said_or_refused(train, trained, tmp_path, option, status, words):
    folder = shutil.copytree(trained, tmp_path / 'run')
    outcome = train(folder, option, more=['--resume'])
    said = ' '.join((outcome.out + outcome.err).split())
    assert outcome.status == status and re.search(words, said), said
    assert 'Traceback' not in said and (status == 2 or '8 of 8 iterations are done' in said)


@pytest.mark.parametrize(
    'config, options, word',
    [
        (TINY, ['train_cfg.max_iters=0'], 'train nothing'),
        (EPOCHS, ['train_cfg.max_epochs=0'], 'train nothing'),
        (EPOCHS, ['train_dataloader.batch_size=16', 'train_dataloader.drop_last=True'], 'an epoch has no iteration'),
    ],
)
def test_a_training_of_nothing_is_refused(train, tmp_path, config, options, word):
    outcome = train(tmp_path, *options, config=config)
    assert outcome.status == 2 and word in outcome.err and 'Traceback' not in outcome.err
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('config', [TINY, pytest.param(EPOCHS, marks=pytest.mark.slow)])
def test_a_dead_loader_is_one_line_and_costs_nothing(train, tmp_path, config, monkeypatch):
    load, parent = GuardedDataset.__getitem__, os.getpid()

    def dying(self, draw):
        if os.getpid() != parent and os.path.exists(tmp_path / 'run/iter_2.pth'):
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, draw)

    options = ['default_hooks.checkpoint.by_epoch=False', 'train_dataloader.num_workers=1']
    monkeypatch.setattr(GuardedDataset, '__getitem__', dying)
    outcome = train(tmp_path / 'run', *options, config=config)
    assert outcome.status == 2 and 'Traceback' not in outcome.err, outcome.err
    line = outcome.err.strip().splitlines()[-1]
    assert 'a process that loads data died' in line and 'go on with --resume' in line
    monkeypatch.setattr(GuardedDataset, '__getitem__', load)
    assert train(tmp_path / 'run', *options, more=['--resume'], config=config).status == 0
    assert train(tmp_path / 'whole', *options, config=config).status == 0
    last = max(int(path.stem[5:]) for path in (tmp_path / 'whole').glob('iter_*.pth'))
    assert same(weights(tmp_path / 'run', last), weights(tmp_path / 'whole', last))


def test_a_terminal_that_is_gone_or_knows_no_unicode_ends_no_training(train, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, 'w')
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
    closed = io.StringIO()
    closed.close()
    for stdout in (gone, ascii_only, closed, None):
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'stdout', stdout)
            say('Größe')
            say('Größe')
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'stdout', None)
        status = train(tmp_path, 'train_cfg.max_iters=2').status
    assert status == 0 and (tmp_path / 'iter_2.pth').is_file()


def test_the_terminal_s_loss_is_the_log_s(train, tmp_path):
    out = train(tmp_path, 'log_processor.window_size=2').out
    (log,) = tmp_path.glob('*/*.log')
    found = re.findall(r'Iter\(train\) \[(\d)/8\].*  loss: ([\d.]+)', log.read_text())
    logged = {int(iteration): float(loss) for iteration, loss in found}
    shown = {int(line.split()[1].split('/')[0]): line.split()[3] for line in out.splitlines() if 'train ' in line[:6]}
    assert shown == {step: f'{loss:.3f}' for step, loss in logged.items()} and len(shown) == 4


def test_mixed_precision_on_a_cpu_is_bfloat16(train, tmp_path, monkeypatch):
    monkeypatch.setattr('effseg.apis.train.get_device', lambda: 'cpu')
    monkeypatch.setattr('effseg.apis.train.cpu_has_bfloat16', lambda: True)
    seen, conv = [], torch.nn.Conv2d.forward

    def forward(self, image):
        seen.append(conv(self, image).dtype)
        return conv(self, image)

    monkeypatch.setattr(torch.nn.Conv2d, 'forward', forward)
    assert train(tmp_path, 'train_cfg.max_iters=2', more=['--amp']).status == 0
    assert set(seen) == {torch.bfloat16}
    assert Config.fromfile(tmp_path / 'tiny.py').optim_wrapper.type == 'CPUAmpOptimWrapper'
