"""Scores a model or an artifact in MMSegmentation's test loop."""

import warnings
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from ..apis.opening import Segmenter
from ..datasets.check.quick import check_datasets
from ..engine.config import load_config
from ..engine.protect import protect
from ..engine.runner import build_runner, named_errors
from ..errors import ConfigError
from ..segmentors.artifact import of_photos
from .recorder import Scene, SceneRecorder


@dataclass(frozen=True)
class Score:
    """What came out.

    Attributes:
        metrics: of MMSegmentation's metric, in percent, by name.
        confusion: (classes, classes), pixels by true label (row) and predicted label (column).
        scenes: every image with its label maps.
        unknown: what a bound on the labels' probability leaves unknown, in words; None without one.
    """

    metrics: dict[str, float]
    confusion: np.ndarray
    scenes: list[Scene]
    unknown: str | None = None


def read_config(config: str, cfg_options: dict | None) -> Config:
    """The config with a test set that can be scored.

    Raises:
        EffsegError: when the config or its data cannot be used.
    """
    cfg = load_config(config, cfg_options)
    if not cfg.get('test_dataloader') or 'seg_map_path' not in cfg.test_dataloader.dataset.get('data_prefix', {}):
        raise ConfigError(
            f'{config} has no test data with label maps (test_dataloader.dataset.data_prefix.seg_map_path); a report '
            'scores against them'
        )
    check_datasets(cfg, ('test_dataloader',))
    return cfg


def score(config: str, segmenter: Segmenter, folder: Path, cfg_options: dict | None = None) -> Score:
    """Scores a segmenter on the config's test data.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        segmenter: from :func:`effseg.apis.opening.open_segmenter`.
        folder: empty; for the label maps and the log.
    """
    cfg = read_config(config, cfg_options)
    cfg.work_dir, cfg.load_from, cfg.launcher = str(folder), None, 'none'
    # MMEngine keeps one visualizer per name and process, which would go on writing into the first one's folder
    cfg.visualizer = dict(type='SegLocalVisualizer', vis_backends=[], name=str(folder))
    metric = cfg.test_evaluator
    metrics = [metric] if isinstance(metric, dict) else list(metric or ())
    ignore = next((metric['ignore_index'] for metric in metrics if 'ignore_index' in metric), 255)
    if not metrics:
        raise ConfigError("test_evaluator names no metric; IoUMetric scores a segmenter: dict(type='IoUMetric', ...)")
    below = segmenter.unknown_below
    recording = dict(type='SceneRecorder', folder=str(folder), ignore_index=ignore, unknown_below=below)
    cfg.test_evaluator = [*metrics, recording]
    if below is not None:
        segmenter.with_confidence()
    warnings.filterwarnings('ignore', message='.* instance named of .* has been created')  # of the candidate before
    if hasattr(segmenter.model, 'artifact'):
        cfg = of_photos(cfg)  # scored as an app runs it
    runner = build_runner(protect(cfg), model=lambda: segmenter.model)
    with torch.no_grad(), named_errors():
        numbers = runner.test()
    recorder = next(metric for metric in runner.test_evaluator.metrics if isinstance(metric, SceneRecorder))
    assert recorder.confusion is not None  # the data set holds at least one image
    return Score(
        {name: float(value) for name, value in numbers.items() if isinstance(value, Real)},
        recorder.confusion,
        recorder.scenes,
        None if below is None else _unknown(below, *recorder.known.tolist()),
    )


def _unknown(below: float, labelled: int, known: int, right: int) -> str:
    return (
        f'{100 * (1 - known / max(labelled, 1)):.2f} % of the labelled pixels, whose probability is below {below:g}; '
        f'{100 * right / max(known, 1):.2f} % of the others are right'
    )
