"""From a config and candidates to the page."""

import os
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from mmengine.config import Config

from ..errors import ConfigError
from ..outputs import OutputFolder
from ..segmentors.confidence import check_bound
from . import page
from .candidates import find_candidates, measure, open_candidates
from .curve import read_curve
from .facts import environment
from .images import choose, layers
from .scoring import read_config, score

PAGE = 'report.html'
SHOWN = 6  # worst ones, and as many best ones


def report(
    config: str,
    weights: list[str],
    out: str | None = None,
    fused: bool = False,
    work_dir: str | None = None,
    shown: int = SHOWN,
    cfg_options: dict | None = None,
    unknown_below: float | None = None,
) -> Path:
    """Scores every candidate on the config's test data and writes one HTML file about them; returns the file.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        weights: checkpoints and artifacts; the first one is shown in full, the others are compared with it.
        out: folder for ``report.html``; ``report/`` beside the first candidate when left out.
        fused: adds the fused form of every checkpoint.
        work_dir: of the training, for its curve; the first candidate's folder when left out.
        shown: how many of the worst and how many of the best.
        unknown_below: pixels whose label has a smaller probability are shown as unknown, and counted; the metrics are
            of all pixels.
    """
    page.check_packages()
    check_bound(unknown_below)
    if shown < 0:
        raise ConfigError(f'--pictures {shown}: N must be 0 or more')
    cfg = read_config(config, cfg_options)
    candidates = find_candidates(weights, fused)
    folder = OutputFolder(out or candidates[0].path.parent / 'report')
    folder.check([PAGE])
    curve = read_curve(Path(work_dir) if work_dir else candidates[0].path.parent, required=work_dir is not None)
    opened = open_candidates(config, candidates, cfg_options, unknown_below)
    with tempfile.TemporaryDirectory(prefix='effseg-report-') as scratch:
        scores = {}
        for number, (candidate, segmenter) in enumerate(opened.items()):
            place = Path(scratch) / str(number)
            place.mkdir()
            print(f'report {number + 1}/{len(candidates)}  scoring {candidate.name}', flush=True)
            scores[candidate] = score(config, segmenter, place, cfg_options)
        first = scores[candidates[0]]
        rows = measure(opened, scores)
        classes, palette = rows[0].classes, np.array(rows[0].palette, dtype=np.uint8)
        worst, best = choose(first.scenes, shown)
        gallery = [[layers(scene, classes, palette) for scene in group] for group in (worst, best)]
    content = page.Content(
        config=config,
        data=f'{cfg.test_dataloader.dataset.get("data_root", "")}',
        images=len(first.scenes),
        classes=classes,
        rows=rows,
        confusion=first.confusion,
        confusions={row.name: scores[row.candidate].confusion for row in rows},
        worst=gallery[0],
        best=gallery[1],
        curve=curve,
        environment=environment(),
        command=command(),
        setting=setting(cfg),
        options=cfg_options or {},
    )
    folder.claim([PAGE])
    page.write(content, folder.path / PAGE)
    return folder.path / PAGE


def setting(cfg: Config) -> dict[str, str]:
    """The environment variables that the config reads, as far as they are set."""
    return {name: os.environ[name] for name in sorted(cfg.env_variables) if name in os.environ}


def command() -> str:
    """The command line of this process."""
    return shlex.join(['python', *sys.argv])
