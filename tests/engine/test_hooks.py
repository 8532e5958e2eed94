"""A loss that is not finite stops the training, and leaves the good checkpoints alone."""

from types import SimpleNamespace

import pytest
import torch
from mmseg.models import EncoderDecoder
from networks import TINY
from torch import Tensor, nn

from effseg.engine.hooks import FiniteHook
from effseg.errors import TrainingError

pytestmark = pytest.mark.medium
GradScaler = getattr(torch.amp, 'GradScaler', None)  # for CPUs since torch 2.3


def replace_loss_from(call, monkeypatch, value):
    calls, loss = [], EncoderDecoder.loss

    def corrupted(self, inputs, data_samples):
        calls.append(0)
        losses = loss(self, inputs, data_samples)
        return {name: item * value if len(calls) >= call and 'loss' in name else item for name, item in losses.items()}

    monkeypatch.setattr(EncoderDecoder, 'loss', corrupted)


def test_a_nan_loss_stops_and_names_iteration_files_and_learning_rate(tool, scenes, tmp_path, monkeypatch):
    replace_loss_from(6, monkeypatch, float('nan'))
    outcome = tool('train', TINY, '--work-dir', tmp_path)
    assert outcome.status == 2 and 'Traceback' not in outcome.err
    line = outcome.err.strip().splitlines()[-1]
    assert (
        line.startswith('error: the loss is nan at iteration 6, at learning rate 0.000')
        and line.count(str(scenes / 'images/train')) == 2
    )
    assert torch.load(tmp_path / 'iter_4.pth', weights_only=True)['meta']['iter'] == 4
    assert not (tmp_path / 'iter_6.pth').exists()


def test_weights_that_are_not_finite_are_not_saved(tool, scenes, tmp_path, monkeypatch):
    def corrupt(self, runner, *args, **kwargs):
        if runner.iter == 3:
            next(runner.model.parameters()).data.fill_(float('inf'))

    monkeypatch.setattr(FiniteHook, 'after_train_iter', corrupt)
    outcome = tool('train', TINY, '--work-dir', tmp_path)
    assert outcome.status == 2 and 'weights are NaN or infinite at iteration 4' in outcome.err
    assert (tmp_path / 'iter_2.pth').is_file() and not (tmp_path / 'iter_4.pth').exists()


def test_an_optimizer_s_state_that_is_not_finite_is_not_saved(tool, scenes, tmp_path, monkeypatch):
    def corrupt(self, runner, *args, **kwargs):
        if runner.iter == 3:
            next(iter(runner.optim_wrapper.optimizer.state.values()))['exp_avg'].fill_(float('nan'))

    monkeypatch.setattr(FiniteHook, 'after_train_iter', corrupt)
    outcome = tool('train', TINY, '--work-dir', tmp_path)
    assert outcome.status == 2 and "of the optimizer's values are NaN or infinite at iteration 4" in outcome.err
    assert (tmp_path / 'iter_2.pth').is_file() and not (tmp_path / 'iter_4.pth').exists()


class FakeRunner:
    """What the hook asks of a runner: one weight, trained under a scaler that skips what is not finite, as
    AmpOptimWrapper does."""

    def __init__(self):
        self.iter, self.hooks, self.work_dir, self.model = 0, [], 'somewhere', nn.Linear(1, 1, bias=False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.optim_wrapper = SimpleNamespace(
            loss_scaler=GradScaler('cpu', init_scale=2.0**16), get_lr=lambda: {'lr': [0.1]}
        )

    def step(self, factor: float) -> Tensor:
        """One step; a factor that is not finite gives such a loss, and one that is large a gradient beyond float32."""
        self.optimizer.zero_grad()
        loss = (self.model.weight * factor).sum()
        scaler = self.optim_wrapper.loss_scaler
        scaler.scale(loss).backward()
        scaler.step(self.optimizer)
        scaler.update()
        return loss.detach()


@pytest.fixture
def amp():
    if GradScaler is None:
        pytest.skip('this torch scales gradients on GPUs alone')
    hook, runner = FiniteHook(), FakeRunner()
    hook.before_train(runner)
    hook.interval = 3

    def step(factor):
        hook.after_train_iter(runner, 0, {'data_samples': []}, {'loss': runner.step(factor)})
        runner.iter += 1

    return runner, step


def test_steps_that_mixed_precision_skips_do_not_count(amp):
    runner, step = amp
    before, scale = runner.model.weight.item(), runner.optim_wrapper.loss_scaler.get_scale()
    for factor in (1e35, float('inf'), float('nan')):
        step(factor)
        assert runner.model.weight.item() == before
    assert runner.optim_wrapper.loss_scaler.get_scale() == scale / 8
    step(1.0)
    assert runner.model.weight.item() != before
    for _ in range(2):
        step(float('nan'))


def test_nothing_but_skipped_steps_for_an_interval_stops(amp):
    runner, step = amp
    for factor in (1.0, float('inf'), float('nan')):
        step(factor)
    with pytest.raises(TrainingError, match='iteration 4'):
        step(float('inf'))


def test_without_a_scaler_the_first_one_stops(amp):
    runner, step = amp
    runner.optim_wrapper.loss_scaler = GradScaler('cpu', enabled=False)
    with pytest.raises(TrainingError, match='iteration 1'):
        step(float('nan'))
