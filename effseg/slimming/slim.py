"""Makes a smaller config and checkpoint out of a config, a checkpoint and a latency table."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from .. import files
from ..apis.opening import open_segmenter
from ..errors import ConfigError
from ..outputs import OutputFolder
from ..report.page import check_packages
from . import page
from .evaluate import Samples, network_of
from .latency import describe, facts, in_words
from .result import CONFIG, FILES, save_file, write_segmenter
from .search import Search, Step, check_budget
from .slicing import Action, Network
from .space import Space
from .table import Table, fingerprint

REPORT, PAGE, STATE = 'report.json', 'report.html', 'search.pth'
SEARCHES = ('gradual', 'exhaustive', 'depths')


def slim(
    config: str,
    checkpoint: str,
    table: str | Sequence[str],
    budget: float,
    out: str,
    images: int = 64,
    search: str = 'gradual',
    cfg_options: dict | None = None,
) -> Path:
    """Makes a trained segmenter fit a share of its time, and writes its config, checkpoint and report.

    The search is saved behind every step; the same call goes on where it was interrupted.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        checkpoint: trained weights.
        table: of ``tools/latency.py``; the first of several, of which the others are reported as well.
        budget: share of the original's time, between 0 and 1.
        out: folder; files of others in it are safe.
        search: ``'gradual'`` takes the best single action again and again; ``'exhaustive'`` is the optimum of the
            whole space if what single actions cost adds up, corrected by what they cost together; ``'depths'`` judges
            every combination of depths.
        images: how many training images judge a candidate, and as many others measure BatchNorm's statistics.

    Returns:
        The config.
    """
    if search not in SEARCHES:
        raise ConfigError(f'--search {search} is unknown; one of {", ".join(SEARCHES)} was expected')
    if not 0 < budget < 1 or images < 1:
        raise ConfigError(f'--budget {budget} must lie between 0 and 1, --images {images} at 1 or above')
    check_packages()
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained
    original = network_of(model, model.cfg)
    names = [table] if isinstance(table, str) else list(table)
    tables, space, folder = [Table.read(name) for name in names], Space(original), OutputFolder(out)
    for one in tables:
        one.check(fingerprint(original))
        one.require(space.all_parts())
    times = tables[0]
    target = budget * times.predict(space, space.original)
    check_budget(space, times, target)
    folder.claim([*FILES, REPORT, PAGE, STATE])
    asked = dict(
        network=fingerprint(original),
        checkpoint=files.digest(Path(checkpoint)),
        table=files.digest(Path(names[0])),
        budget=budget,
        images=images,
        search=search,
        cfg_options=cfg_options or {},
    )
    state = folder.path / STATE
    network, path, losses = _resume(state, asked, original)

    def save(found: Search) -> None:
        parts = dict(model=found.network.model, arch=found.network.arch.as_config(), state=found.network.state)
        steps = [asdict(step) for step in found.path]
        save_file(dict(asked=asked, path=steps, network=parts, losses=found.losses), state)

    found = Search(space, times, target, Samples.of(model.cfg, model, images), network, path, losses, save)
    if search == 'gradual':
        found.gradual()
    else:
        found.at_once(search)
    network, path = found.network, found.path
    commands = write_segmenter(folder.path, config, cfg_options, checkpoint, model, network)
    shape = network.shape
    print(f'{describe(space.original)}: {path[0].ms:.2f} ms\n{describe(shape)}: {path[-1].ms:.2f} ms')
    latency = [facts(original, shape, one) for one in tables]
    report = dict(
        asked,
        config=config,
        latency=latency,
        path=[step.as_dict() for step in path],
        original=asdict(space.original),
        chosen=asdict(shape),
        commands=commands,
    )
    files.write(folder.path / REPORT, json.dumps(report, indent=1) + '\n')
    page.write(folder.path / PAGE, report, space, times, shape, path)
    print(*map(in_words, latency), sep='\n')
    print(f'fine-tune it: {commands[0]}\nwithout a teacher: {commands[1]}\nreport: {folder.path / PAGE}')
    return folder.path / CONFIG


def _resume(state: Path, asked: dict, original: Network) -> tuple[Network, list[Step], dict[str, float]]:
    if not state.exists():
        return original, [], {}
    try:
        saved = torch.load(state, weights_only=True)
        if saved['asked'] != asked:
            changed = [key for key, value in asked.items() if saved['asked'].get(key) != value]
            raise ValueError(f'another {", ".join(changed)}')
        parts = saved['network']
        arch = type(original.arch)(**parts['arch'])
        steps = [Step(**{**step, 'action': step['action'] and Action(**step['action'])}) for step in saved['path']]
    except Exception as error:  # torch's reader passes on whatever the byte it stops at leads to
        reason = f'is a search with {error}' if type(error) is ValueError else 'cannot be read'
        raise ConfigError(f'{state} {reason}: give another --out, or remove it') from error
    print(f'going on behind step {len(steps) - 1}')
    return Network(parts['model'], arch, parts['state']), steps, saved['losses']
