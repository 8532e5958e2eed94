"""From a config, a checkpoint and a table to a smaller config and checkpoint."""

import json
from collections.abc import Callable, Sequence
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
from .exhaustive import depths, exhaustive, judged_depths, measure_losses, realised, single_actions
from .latency import describe, facts, in_words
from .result import CONFIG, FILES, save_file, write_segmenter
from .search import Action, Step, begin, check_budget, gradual
from .slicing import Network
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
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights.
        table: of ``tools/latency.py``; the first of several, of which the others are reported as well.
        budget: share of the original's time, between 0 and 1.
        out: folder; files of others in it are safe.
        search: ``'gradual'`` takes the best single action again and again; ``'exhaustive'`` is the optimum of the
            whole space if what single actions cost adds up; ``'depths'`` judges every combination of depths.
        images: how many training images judge a candidate, and as many others measure BatchNorm's statistics.
        cfg_options: overrides of the config.

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
        one.check(fingerprint(original), None, None, None)
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
    )
    state = folder.path / STATE
    network, path, losses = _resume(state, asked, original)

    def save(network: Network, path: list[Step], losses: dict[str, float]) -> None:
        parts = dict(model=network.model, arch=network.arch.as_config(), state=network.state)
        save_file(dict(asked=asked, path=list(map(asdict, path)), network=parts, losses=losses), state)

    samples = Samples.of(model.cfg, model, images)
    if search == 'gradual':
        network, path = gradual(
            network, space, times, target, samples, path, lambda network, path: save(network, path, {})
        )
    else:
        network, path = _at_once(search, network, space, times, target, samples, path, losses, save)
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


def _at_once(
    search: str,
    network: Network,
    space: Space,
    table: Table,
    target: float,
    samples: Samples,
    path: list[Step],
    losses: dict[str, float],
    save: Callable[[Network, list[Step], dict[str, float]], None],
) -> tuple[Network, list[Step]]:
    """The searches that choose an architecture first and then take all the actions that lead there; arguments and
    results as of :func:`effseg.slimming.search.gradual`, and the losses that are known already."""
    if not path:
        network, path, seconds = begin(network, space, table, samples)
        count = len(single_actions(space))
        print(f'{count} single actions to judge, {seconds:.1f} s each: {count * seconds / 60:.1f} min')
        save(network, path, losses)
    if len(path) == 1:
        losses = measure_losses(network, space, samples, losses, lambda losses: save(network, path, losses))
    if search == 'exhaustive':
        actions, grows = exhaustive(space, table, target, losses)
        print(f'the best sum: the loss grows by {grows:.4f} if what {len(actions)} actions cost adds up')
    else:
        candidates = depths(space, table, target, losses)
        print(f'{len(candidates)} combinations of depths that none with a block more meets')
        # behind the first step all are known
        actions = judged_depths(network, candidates, samples, losses, lambda losses: save(network, path, losses))
    for action, (loss, accuracy, smaller) in realised(network, actions[len(path) - 1 :], samples):
        network = smaller
        path = [*path, Step(action, loss, accuracy, table.predict(space, network.shape))]
        print(f'step {len(path) - 1}: {action}, loss {loss:.4f}, {path[-1].ms:.2f} ms', flush=True)
        save(network, path, losses)
    return network, path


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
