"""A network sliced to an architecture that is named, not searched for: smaller than any that weights are published for,
or to compare with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..apis.opening import open_segmenter
from ..checkpoint.load import load_pretrained
from ..checkpoint.names import unwrapped
from ..checkpoint.read import read_checkpoint
from ..engine.config import build_model, load_config
from ..errors import ConfigError
from ..models.arch import Arch, resolve_arch
from ..outputs import OutputFolder
from .channels import importance
from .evaluate import Samples, gradients, judge, network_of
from .latency import describe
from .result import CONFIG, FILES, write_backbone, write_segmenter
from .slicing import Action, Network, TokenStats, apply

ATTENTION = {'EfficientFormer': (3,), 'EfficientFormerV2': (2, 3)}  # stages whose last blocks may attend
ARCH_KEYS = ('depths', 'embed_dims', 'num_vit', 'hidden_dims', 'mlp_ratios')
Weigh = Callable[[Network], tuple[Mapping[str, Tensor], Mapping[tuple[int, int], TokenStats]]]


def slim_to(
    config: str, weights: str, given: Mapping, out: str, images: int = 64, cfg_options: dict | None = None
) -> Path:
    """Slices weights to an architecture, and writes its config and weights; returns the config.

    Args:
        config: of a segmenter, path or ``effseg::NAME.py``.
        weights: of a trained segmenter, which is sliced by ``|w g|`` over training images; or of its backbone alone,
            which is sliced by ``|w|``.
        given: see :func:`slice_to`.
        out: folder; files of others in it are safe.
        images: how many training images weigh a segmenter's channels, and as many others judge the result.
        cfg_options: overrides of the config.
    """
    if images < 1:
        raise ConfigError(f'--images {images} must be 1 or above')
    folder = OutputFolder(out)
    folder.check(FILES)
    whole = any(key.startswith('decode_head.') for key in unwrapped(read_checkpoint(weights).state_dict))
    if whole:
        model = open_segmenter(config, weights, cfg_options=cfg_options, device='cpu').trained
        cfg, network = model.cfg, network_of(model, model.cfg)
        samples = Samples.of(cfg, model, images)
        sliced = slice_to(network, given, lambda now: gradients(now, samples.statistics))
        (before, _, _), (after, _, sliced) = judge(network, samples), judge(sliced, samples)
        print(f'loss {before:.4f}, sliced {after:.4f}')
    else:
        cfg = load_config(config, cfg_options)
        model = build_model(cfg)
        load_pretrained(model.backbone, weights)
        network = network_of(model, cfg)
        own = {key: value for key, value in network.state.items() if key.startswith('backbone.')}
        sliced = slice_to(replace(network, state=own), given, lambda now: (magnitudes(now), {}))
    folder.claim(FILES)
    commands = (
        write_segmenter(folder.path, config, cfg_options, weights, model, sliced)
        if whole
        else write_backbone(folder.path, config, cfg_options, cfg, sliced)
    )
    print(f'{describe(network.shape)} became\n{describe(sliced.shape)}')
    print(f'train it: {commands[0]}')
    return folder.path / CONFIG


def magnitudes(network: Network) -> dict[str, Tensor]:
    """``|w|`` of every weight; statistics of BatchNorm say nothing of what matters."""
    return {
        key: value.abs() for key, value in network.state.items() if value.is_floating_point() and 'running_' not in key
    }


def slice_to(network: Network, given: Mapping, weigh: Weigh) -> Network:
    """The network sliced to an architecture, by what matters least.

    Args:
        network: to be sliced.
        given: ``depths``, ``embed_dims``, ``num_vit`` and ``hidden_dims`` or ``mlp_ratios``, as a config's ``arch``
            takes them, and ``head`` and ``neck``, channels. What is left out stays as it is; hidden widths, in
            proportion to their stage's.
        weigh: gives how much each weight of a network matters, by its name, and what it knows of tokens.

    Raises:
        ConfigError: for what is no architecture, or asks for more than the network has.
    """
    target = _target(network, given)
    for stage in range(len(target.depths)):
        network = _without_blocks(network, target, stage, weigh)
    actions = list(_narrower(network, target, given))
    if actions:
        scores = importance(weigh(network)[0], network.groups)
    for action in actions:
        network = apply(network, action, scores)
    return network


def _target(network: Network, given: Mapping) -> Arch:
    """The architecture; its hidden widths are right only where ``given`` has some."""
    own = network.arch.as_config()
    if unknown := sorted(set(given) - {*ARCH_KEYS, 'head', 'neck'}):
        raise ConfigError(f'--arch has {", ".join(unknown)}; {", ".join(ARCH_KEYS)}, head and neck were expected')
    for key in ('head', 'neck'):
        if type(given.get(key, 0)) is not int:
            raise ConfigError(f'--arch {key}={given[key]!r} came; a whole number of channels was expected')
    numbers = {key: own[key] for key in ('depths', 'embed_dims', 'num_vit')} | {
        key: value for key, value in given.items() if key in ARCH_KEYS
    }
    stages = ATTENTION[network.model['backbone']['type']]
    if 'num_vit' not in given:
        plain = {key: numbers[key] for key in ('depths', 'embed_dims')} | {'num_vit': 0}
        numbers['num_vit'] = tuple(map(min, own['num_vit'], resolve_arch(plain, {}, stages).depths))
    target = resolve_arch(numbers, {}, stages)
    for key in ('depths', 'embed_dims', 'num_vit'):
        if any(new > old for new, old in zip(getattr(target, key), own[key])):
            raise ConfigError(f'--arch {key}={getattr(target, key)} has more than {own[key]}, and nothing can be added')
    return target


def _without_blocks(network: Network, target: Arch, stage: int, weigh: Weigh) -> Network:
    """The network with the target's blocks in a stage; those go first whose scales matter least."""
    depth, attend = target.depths[stage], target.num_vit[stage]
    while (now := network.arch).depths[stage] > depth or now.num_vit[stage] > attend:
        weights, tokens = weigh(network)
        first = now.depths[stage] - now.num_vit[stage]  # that attends
        if first < depth - attend:
            network = apply(network, Action('attention', stage, first), {}, tokens)
            continue
        blocks = range(first) if first > depth - attend else range(first, now.depths[stage])
        prices = {block: _scale(network, weights, stage, block) for block in blocks}
        network = apply(network, Action('block', stage, min(prices, key=prices.__getitem__)), {})
    return network


def _scale(network: Network, weights: Mapping[str, Tensor], stage: int, block: int) -> float:
    prefix = f'backbone.stages.{stage}.blocks.{network.place(stage, block)}.ls'
    return sum(float(value.sum()) for key, value in weights.items() if key.startswith(prefix))


def _narrower(network: Network, target: Arch, given: Mapping) -> Iterator[Action]:
    """What is left to do once the depths are right."""
    arch = network.arch
    proportional = not {'hidden_dims', 'mlp_ratios'} & set(given)
    for stage, (dim, to) in enumerate(zip(arch.embed_dims, target.embed_dims)):
        for block, hidden in enumerate(arch.hidden_dims[stage]):
            width = max(1, round(hidden * to / dim)) if proportional else target.hidden_dims[stage][block]
            if width != hidden:
                yield Action('hidden', stage, block, width)
        if to != dim:
            yield Action('width', stage, to=to)
    for kind in ('head', 'neck'):
        if kind in given:
            yield Action(kind, to=given[kind])
