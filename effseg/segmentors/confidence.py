"""How sure a segmenter is of the label that it gives a pixel."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ConfigError

UNKNOWN = 255  # in the place of a label whose probability is too small; what masks ignore as well


def confidence_of(sample: Mapping) -> Tensor:
    """The probability of every label of a prediction.

    Args:
        sample: with ``pred_sem_seg``, and ``confidence`` or MMSegmentation's ``seg_logits``.

    Returns:
        (1, H, W), 0 to 1.

    Raises:
        ConfigError: for a model that gives labels alone.
    """
    if 'confidence' in sample:
        return sample['confidence']['data']
    if 'seg_logits' not in sample:
        raise ConfigError('this model gives labels alone, which have no confidence: leave --unknown-below out')
    return winning(sample['seg_logits']['data'], sample['pred_sem_seg']['data'])


def winning(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, H, W) as MMSegmentation's predict gives them, and labels (1, H, W) -> (1, H, W)."""
    # of one channel it gives the sigmoid already
    likely = logits.softmax(0) if len(logits) > 1 else torch.cat([1 - logits, logits])
    return likely.gather(0, labels.long())


def check_bound(unknown_below: float | None) -> None:
    """
    Raises:
        ConfigError: for a bound that no probability or every one lies below.
    """
    if unknown_below is not None and not 0 < unknown_below < 1:
        raise ConfigError(f'--unknown-below {unknown_below} must lie between 0 and 1')
