"""A loss that is not finite stops the training, and leaves the good checkpoints alone."""
import pytest
import torch
from mmseg.models import EncoderDecoder
from torch import nn

from effseg.engine.watch import FiniteHook

from .conftest import TINY

pytestmark = pytest.mark.medium


def spoil_loss_from(call, monkeypatch, value):
    calls, loss = [], EncoderDecoder.loss

    def spoilt(self, inputs, data_samples):
        calls.append(0)
        losses = loss(self, inputs, data_samples)
        return {name: item * value if len(calls) >= call and 'loss' in name else item for name, item in losses.items()}

    monkeypatch.setattr(EncoderDecoder, 'loss', spoilt)


def test_a_nan_loss_stops_and_names_iteration_files_and_learning_rate(tool, scenes, tmp_path, monkeypatch):
    spoil_loss_from(6, monkeypatch, float('nan'))
    outcome = tool('train', TINY, '--work-dir', tmp_path)
    assert outcome.status == 2 and 'Traceback' not in outcome.err
    line = outcome.err.strip().splitlines()[-1]
    assert line.startswith('error: the loss is nan at iteration 6, at learning rate 0.000') and line.count(str(scenes / 'images/train')) == 2
    assert torch.load(tmp_path / 'iter_4.pth', weights_only=True)['meta']['iter'] == 4
    assert not (tmp_path / 'iter_6.pth').exists()


def test_weights_that_are_not_finite_are_not_saved(tool, scenes, tmp_path, monkeypatch):
    def spoil(self, runner, *args, **kwargs):
        if runner.iter == 3:
            next(runner.model.parameters()).data.fill_(float('inf'))

    monkeypatch.setattr(FiniteHook, 'after_train_iter', spoil)
    outcome = tool('train', TINY, '--work-dir', tmp_path)
    assert outcome.status == 2 and 'weights are NaN or infinite at iteration 4' in outcome.err
    assert (tmp_path / 'iter_2.pth').is_file() and not (tmp_path / 'iter_4.pth').exists()


class Scaler:
    def is_enabled(self):
        return True


class FakeRunner:
    """What the hook asks of a runner."""
    def __init__(self):
        self.iter, self.hooks, self.work_dir, self.model = 0, [], 'somewhere', nn.Identity()
        self.optim_wrapper = type('Wrapper', (), {'loss_scaler': Scaler(), 'get_lr': lambda self: {'lr': [0.1]}})()


def test_steps_that_mixed_precision_skips_do_not_count_until_nothing_else_happens():
    hook, runner, batch = FiniteHook(), FakeRunner(), {'data_samples': []}
    hook.before_train(runner)
    hook.interval = 3
    for loss in [1., float('inf'), float('inf'), 1., float('nan'), float('inf')]:
        hook.after_train_iter(runner, 0, batch, {'loss': loss})
    try:
        hook.after_train_iter(runner, 0, batch, {'loss': float('inf')})
    except RuntimeError as error:
        assert 'iteration 1' in str(error)
    else:
        raise AssertionError('the third in a row did not stop it')
