"""EMA: the exponential moving average of the weights, which resumes exactly where a training was interrupted."""

import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu


def without_average(hooks: list) -> list:
    """A config's hooks without MMEngine's EMAHook and those that are made of it, for a test: a checkpoint holds the
    mean as its weights, and the hook would copy and exchange those of a fused network or an exported file."""
    return [hook for hook in hooks if not (isinstance(hook, dict) and _averages(hook.get('type')))]


def _averages(kind: object) -> bool:
    found = HOOKS.get(kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, EMAHook)


@MODELS.register_module()
class WarmAverage(ExponentialMovingAverage):
    """MMEngine's exponential moving average that forgets faster at first: otherwise a short training would end near the
    weights it began with."""

    def avg_func(self, averaged_param: torch.Tensor, source_param: torch.Tensor, steps: int) -> None:
        averaged_param.lerp_(source_param, max(self.momentum, 9 / (10 + int(steps))))


@HOOKS.register_module()
class ResumableEMAHook(EMAHook):
    """MMEngine's EMAHook, exact when a run is stopped while it validates, and when it starts from other weights.

    MMEngine's saves the mean as what is trained when it is stopped in a validation, in which both are exchanged; and it
    takes weights over by itself, which a new head does not fit. Options are EMAHook's.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self._exchanged = self._resumed = False

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if not self._resumed:  # the weights are complete only now
            self.ema_model.module.load_state_dict(self.src_model.state_dict())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._resumed = True
            super().after_load_checkpoint(runner, checkpoint)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['ema_state_dict'] = weights_to_cpu(self.ema_model.state_dict())  # as the weights that it goes for
        if not self._exchanged:
            self._swap_ema_state_dict(checkpoint)

    def _swap_ema_parameters(self) -> None:
        super()._swap_ema_parameters()
        self._exchanged = not self._exchanged
