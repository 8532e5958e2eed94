"""How sure a segmenter is of the label that it gives a pixel."""

from collections.abc import Mapping

from torch import Tensor

from ..deploy.reference import probability
from ..errors import ConfigError

UNKNOWN = 255  # in the place of a label whose probability is too small; what masks ignore as well


def confidence_of(sample: Mapping) -> Tensor:
    """The probability of every label of a prediction: (1, H, W), 0 to 1.

    Args:
        sample: with ``pred_sem_seg``, and ``confidence`` or MMSegmentation's ``seg_logits``.

    Raises:
        ConfigError: for a model that gives labels alone.
    """
    if 'confidence' in sample:
        return sample['confidence']['data']
    if 'seg_logits' not in sample:
        raise ConfigError('this model gives labels alone, which have no confidence: leave --unknown-below out')
    return probability(sample['seg_logits']['data'], sample['pred_sem_seg']['data'])


def check_bound(unknown_below: float | None) -> None:
    """Raises ConfigError for a bound of probability that is not between 0 and 1."""
    if unknown_below is not None and not 0 < unknown_below < 1:
        raise ConfigError(f'--unknown-below {unknown_below} must lie between 0 and 1')
