"""From a config, a checkpoint and a table to a smaller config and checkpoint."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from pprint import pformat

import torch

from .. import files
from ..apis.opening import open_segmenter
from ..errors import ConfigError
from ..outputs import OutputFolder
from .evaluate import Samples, network_of
from .exhaustive import depths, exhaustive, judged_depths, measure_losses, realised, single_actions
from .latency import describe
from .search import Action, Step, begin, check_budget, gradual
from .slicing import Network
from .space import Shape, Space
from .table import Table, fingerprint

CONFIG, CHECKPOINT, REPORT, STATE = 'slim.py', 'slim.pth', 'report.json', 'search.pth'
SEARCHES = ('gradual', 'exhaustive', 'depths')


def slim(
    config: str,
    checkpoint: str,
    table: str,
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
        table: of ``tools/latency.py``.
        budget: share of the original's time, between 0 and 1.
        out: folder; files of others in it are safe.
        search: ``'gradual'`` takes the best single action again and again; ``'exhaustive'`` is the optimum of the
            whole space if what single actions cost adds up; ``'depths'`` judges every combination of depths.
        images: how many training images judge a candidate, and as many others measure BatchNorm's statistics.
        cfg_options: overrides of the config.

    Returns:
        The config.

    Raises:
        EffsegError: for a config, checkpoint or table that cannot be used, and a budget that nothing reaches.
    """
    if search not in SEARCHES:
        raise ConfigError(f'--search {search} is unknown; one of {", ".join(SEARCHES)} was expected')
    if not 0 < budget < 1 or images < 1:
        raise ConfigError(f'--budget {budget} must lie between 0 and 1, --images {images} at 1 or above')
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained
    original = network_of(model, model.cfg)
    times, space, folder = Table.read(table), Space(original), OutputFolder(out)
    times.check(fingerprint(original), None, None, None)
    target = budget * times.predict(space, space.original)
    check_budget(space, times, target)
    folder.claim([CONFIG, CHECKPOINT, REPORT, STATE])
    asked = dict(
        network=fingerprint(original),
        checkpoint=files.digest(Path(checkpoint)),
        table=hashlib.sha256(Path(table).read_bytes()).hexdigest(),
        budget=budget,
        images=images,
        search=search,
    )
    state = folder.path / STATE
    network, path, losses = _resume(state, asked, original)

    def save(network: Network, path: list[Step], losses: dict[str, float]) -> None:
        steps = [_plain(step) for step in path]
        _save(dict(asked=asked, path=steps, network=_parts(network), losses=losses), state)

    samples = Samples.of(model.cfg, model, images)
    if search == 'gradual':
        network, path = gradual(
            network, space, times, target, samples, path, lambda network, path: save(network, path, {})
        )
    else:
        network, path = _at_once(search, network, space, times, target, samples, path, losses, save)
    _save(dict(meta=dict(dataset_meta=dict(model.dataset_meta)), state_dict=network.state), folder.path / CHECKPOINT)
    files.write(folder.path / CONFIG, config_text(config, network, folder.path, cfg_options))
    report = dict(
        asked,
        runtime=times.runtime,
        device=times.device,
        threads=times.threads,
        size=times.size,
        predicted_ms=path[-1].ms,
        original_ms=path[0].ms,
        path=[step.as_dict() for step in path],
        original=dict(asdict(space.original)),
        chosen=dict(asdict(Shape.of(network))),
    )
    files.write(folder.path / REPORT, json.dumps(report, indent=1) + '\n')
    print(f'{describe(space.original)}: {path[0].ms:.2f} ms\n{describe(Shape.of(network))}: {path[-1].ms:.2f} ms')
    print(f'fine-tune it: python tools/train.py {folder.path / CONFIG}')
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
    shape = reduce(space.after, (step.action for step in path[1:] if step.action), space.original)
    for action, loss, smaller in realised(network, actions[len(path) - 1 :], samples):
        network, shape = smaller, space.after(shape, action)
        path = [*path, Step(action, loss, table.predict(space, shape))]
        print(f'step {len(path) - 1}: {action}, loss {loss:.4f}, {path[-1].ms:.2f} ms', flush=True)
        save(network, path, losses)
    return network, path


def config_text(base: str, network: Network, folder: Path, cfg_options: dict | None = None) -> str:
    """The config of a slimmed network, a few lines over the original.

    Args:
        base: the original, path or ``effseg::NAME.py``.
        network: slimmed.
        folder: that the config will lie in, beside its checkpoint.
        cfg_options: overrides that the network was opened with.
    """
    name = base if '::' in base else os.path.relpath(Path(base).resolve(), folder)
    lines = {
        'backbone': f'dict(arch=dict(_delete_=True, **{pformat(network.arch.as_config(), width=100)}), init_cfg=None)'
    }
    if network.neck:
        neck = network.model['neck']
        lines['neck'] = f'dict(in_channels={list(neck["in_channels"])}, out_channels={network.neck})'
    head = network.model['decode_head']
    lines['decode_head'] = f'dict(in_channels={list(head["in_channels"])}, channels={network.head})'
    body = ''.join(f'    {key}={value},\n' for key, value in lines.items())
    options = f'# it was made with --cfg-options {cfg_options!r}\n' if cfg_options else ''
    return (
        f'# what effseg slim left of {Path(base.rpartition("::")[2]).name}\n{options}_base_ = [{name!r}]\n'
        f'model = dict(\n{body})\nload_from = {str(folder / CHECKPOINT)!r}\n'
    )


def _resume(state: Path, asked: dict, original: Network) -> tuple[Network, list[Step], dict[str, float]]:
    if not state.exists():
        return original, [], {}
    saved = torch.load(state, weights_only=True)
    if saved['asked'] != asked:
        changed = [key for key, value in asked.items() if saved['asked'].get(key) != value]
        raise ConfigError(f'{state} is a search with another {", ".join(changed)}: give another --out, or remove it')
    parts = saved['network']
    arch = type(original.arch)(**parts['arch'])
    steps = [Step(None if s['action'] is None else Action(**s['action']), s['loss'], s['ms']) for s in saved['path']]
    print(f'going on behind step {len(steps) - 1}')
    return Network(parts['model'], arch, parts['state']), steps, saved['losses']


def _parts(network: Network) -> dict:
    return dict(model=network.model, arch=network.arch.as_config(), state=network.state)


def _plain(step: Step) -> dict:
    return dict(action=None if step.action is None else asdict(step.action), loss=step.loss, ms=step.ms)


def _save(content: dict, path: Path) -> None:
    partial = path.with_name(f'{path.name}.partial')
    torch.save(content, partial)
    partial.replace(path)
