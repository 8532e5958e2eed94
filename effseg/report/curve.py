"""The curve of a training, from what MMEngine's LocalVisBackend wrote into its work dir."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError


@dataclass(frozen=True)
class Curve:
    """Points over the iterations of a training.

    Attributes:
        loss: (iteration, training loss).
        miou: (iteration, validation mIoU in percent).
    """

    loss: list[tuple[int, float]]
    miou: list[tuple[int, float]]


def read_curve(work_dir: Path, required: bool = False) -> Curve | None:
    """The curve of the runs in a work dir; a resumed run takes over from the iteration it began at.

    Args:
        work_dir: of ``tools/train.py``.
        required: whether a work dir without a curve is an error.

    Raises:
        DataError: when it is required and not there.
    """
    loss: dict[int, float] = {}
    miou: dict[int, float] = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        points = [
            point
            for line in file.read_text(errors='replace').splitlines()
            if (point := _point(line)) and 'step' in point
        ]
        losses = {point['step']: point['loss'] for point in points if 'loss' in point}
        if losses:
            first = min(losses)
            loss = {step: value for step, value in loss.items() if step < first}
            miou = {step: value for step, value in miou.items() if step < first}
            loss.update(losses)
            miou.update({point['step']: point['mIoU'] for point in points if 'mIoU' in point})
    if required and not loss:
        raise DataError(
            f'{work_dir} holds no curve (*/vis_data/scalars.json with losses); give the --work-dir of a training, or '
            'leave it out'
        )
    return Curve(sorted(loss.items()), sorted(miou.items())) if loss else None


def _point(line: str) -> dict:
    try:
        point = json.loads(line)
    except (ValueError, RecursionError):  # the last line of a run that was killed
        return {}
    if not isinstance(point, dict):
        return {}
    return {key: value for key, value in point.items() if type(value) in (int, float)}
