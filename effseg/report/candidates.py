"""The candidates of a report: what they are, and the numbers they stand side by side with."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import files
from ..apis.opening import Segmenter, open_segmenter
from ..apis.predict import read_image
from ..errors import ConfigError, WeightsError
from ..segmentors.artifact import is_artifact
from ..timing import time_in_turn
from . import facts
from .recorder import Scene
from .scoring import Score

TIMED_IMAGES, ROUNDS = 5, 3
FOLDED = ('BatchNorm', 'SyncBatchNorm', 'LayerScale', 'Dropout')  # what a fused network has none of


@dataclass(frozen=True)
class Candidate:
    """What is scored.

    Attributes:
        name: for people, such as 'best.pth' or 'best.pth, fused'.
        path: the checkpoint or artifact.
        fused: whether a checkpoint is fused first.
    """

    name: str
    path: Path
    fused: bool = False


@dataclass(frozen=True)
class Row:
    """A candidate and its numbers.

    Attributes:
        candidate: what it is.
        metrics, unknown: see :class:`~effseg.report.scoring.Score`.
        agreement: share of all pixels with the first candidate's label, in percent.
        milliseconds: from image to label map, median.
        megabytes: of the file; of a fused network, of its numbers.
        parameters, gmacs: of a torch network; None for an artifact.
        size: (H, W) the work was counted at, or that an artifact takes.
        sha256: of the file.
        notes: what it is made of.
        classes, palette: by label.
    """

    candidate: Candidate
    metrics: dict[str, float]
    agreement: float
    milliseconds: float
    megabytes: float
    parameters: int | None
    gmacs: float | None
    size: tuple[int, int]
    sha256: str
    notes: list[str]
    classes: list[str]
    palette: list[tuple[int, int, int]]
    unknown: str | None = None

    @property
    def name(self) -> str:
        return self.candidate.name


def find_candidates(weights: list[str], fused: bool) -> list[Candidate]:
    """The candidates that are asked for, in order; a fused one behind its trained form.

    Raises:
        WeightsError: for a file that is not there.
        ConfigError: for one that came twice, or nothing to fuse.
    """
    candidates = []
    for path in map(Path, weights):
        if not path.exists():
            raise WeightsError(f'no checkpoint or artifact at {path}')
        same = sum(Path(other).name == path.name for other in weights)
        name = path.name if same == 1 else str(path)
        candidates.append(Candidate(name, path))
        if fused and not is_artifact(str(path)):
            candidates.append(Candidate(f'{name}, fused', path, fused=True))
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise ConfigError('a checkpoint or artifact was given twice')
    if fused and not any(candidate.fused for candidate in candidates):
        raise ConfigError('--fused takes a checkpoint; artifacts were fused when they were written')
    return candidates


def open_candidates(
    config: str, candidates: list[Candidate], cfg_options: dict | None = None, unknown_below: float | None = None
) -> dict[Candidate, Segmenter]:
    """Opens every file once. A checkpoint that is not fused goes through MMSegmentation's own predict, with which the
    others are compared.
    """
    files = {path: open_segmenter(config, str(path), cfg_options=cfg_options) for path in {c.path for c in candidates}}
    opened = {}
    for candidate in candidates:
        segmenter = files[candidate.path]
        if candidate.fused:
            segmenter = segmenter.fused()
        elif not is_artifact(str(candidate.path)):
            segmenter = Segmenter(segmenter.trained, segmenter.trained)
        segmenter.unknown_below = unknown_below
        opened[candidate] = segmenter
    return opened


def measure(opened: dict[Candidate, Segmenter], scores: dict[Candidate, Score]) -> list[Row]:
    """The rows of the table; all candidates are timed in turn on the same images, in this process."""
    candidates, segmenters = list(opened), list(opened.values())
    first = scores[candidates[0]].scenes
    chosen = np.linspace(0, len(first) - 1, min(TIMED_IMAGES, len(first))).round().astype(int)
    times = _times(segmenters, [read_image(first[index].image) for index in chosen])
    rows = [
        _row(candidate, scores[candidate], segmenter, taken, first)
        for candidate, segmenter, taken in zip(candidates, segmenters, times)
    ]
    for index, row in enumerate(rows):
        if row.candidate.fused:  # find_candidates puts it behind its trained form
            row.notes.append(f'folded away: {", ".join(_layers(segmenters[index - 1].model, FOLDED))}')
    return rows


def _row(candidate: Candidate, own: Score, segmenter: Segmenter, milliseconds: float, first: list[Scene]) -> Row:
    model = segmenter.model
    artifact = getattr(model, 'artifact', None)
    if artifact is not None:
        spec = artifact.spec
        size, numbers, work = (spec.height, spec.width), None, None
        notes = [
            f'{spec.backend}, {spec.precision}, returns {spec.output}; photos go through by {spec.fit}, as in an app',
            f'weights of the checkpoint {spec.checkpoint_sha256[:12]}',
        ]
    else:
        size = tuple(model.cfg.model.data_preprocessor.get('size') or (512, 512))
        network, forward = (model.network, model.network.logits) if candidate.fused else (model, model._forward)
        numbers, work, notes = (
            facts.parameters(network),
            facts.gmacs(forward, size, next(network.parameters()).device),
            _layers(network),
        )
    size_mb = 4e-6 * numbers if numbers and candidate.fused else files.size(candidate.path) / 1e6
    return Row(
        candidate,
        own.metrics,
        _agreement(own.scenes, first),
        milliseconds,
        size_mb,
        numbers,
        work,
        size,
        files.digest(candidate.path),
        notes,
        segmenter.classes,
        segmenter.palette.tolist(),
        own.unknown,
    )


def _layers(network: torch.nn.Module, kinds_of: tuple[str, ...] = ('',)) -> list[str]:
    leaves = (type(module).__name__ for module in network.modules() if not list(module.children()))
    return [f'{count} {kind}' for kind, count in Counter(leaves).most_common() if kind.startswith(kinds_of)]


def _agreement(scenes: list[Scene], first: list[Scene]) -> float:
    same = total = 0
    for own, other in zip(scenes, first):
        labels, others = (np.asarray(Image.open(scene.labels, formats=['PNG'])) for scene in (own, other))
        equal = labels == others
        same, total = same + int(equal.sum()), total + equal.size
    return 100 * same / max(total, 1)


def _times(segmenters: list[Segmenter], images: list[np.ndarray]) -> list[float]:
    """Median milliseconds per image of each."""

    def run(segmenter):
        return lambda: [segmenter(image) for image in images]

    timings = time_in_turn(
        {str(number): run(segmenter) for number, segmenter in enumerate(segmenters)}, runs=ROUNDS, warmup=1
    )
    return [1000 * timing.median / len(images) for timing in timings.values()]
