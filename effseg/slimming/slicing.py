"""What can be taken out of a trained segmenter, one action at a time: a smaller config and its weights."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.arch import Arch
from .channels import groups, select, sizes

STEP = 16  # stages are narrowed by multiples of this, as in the papers: what processors compute at once
_BLOCK = re.compile(r'backbone\.stages\.(\d)\.blocks\.(\d+)\.(.*)')


@dataclass(frozen=True)
class Action:
    """One thing to take out of a network."""

    # 'block' leaves a block out, 'attention' takes the attention out of a block, 'hidden' narrows a block's
    # MLP, 'width' a stage, 'head' the decode head and 'neck' the FPN in front of it
    kind: str
    # numbers, or None where the kind has none; `_check` says which
    stage: Any = None  # for a block or a stage, counted from 0
    block: Any = None  # its place in the stage, counted from 0 in the network that the action is applied to
    to: Any = None  # channels that stay, where channels go

    def __str__(self):
        where = '' if self.stage is None else f' stage {self.stage + 1}'
        where += '' if self.block is None else f' block {self.block + 1}'
        what = {
            'block': 'leave out',
            'attention': 'no attention in',
            'hidden': 'narrow the MLP of',
            'width': 'narrow',
            'head': 'narrow the head',
            'neck': 'narrow the FPN',
        }[self.kind]
        return f'{what}{where}' + ('' if self.to is None else f' to {self.to}')


@dataclass(frozen=True)
class Shape:
    """What of an architecture its time depends on."""

    arch: Arch  # of the backbone
    head: int = 0  # channels of the decode head, 0 for a backbone alone
    neck: int = 0  # channels of the FPN, 0 without one

    def after(self, action: Action) -> 'Shape':
        """The architecture once an action is done."""
        arch, stage, block = self.arch, action.stage, action.block
        if action.kind in ('head', 'neck'):
            return replace(self, **{action.kind: action.to})
        depths, dims, vit = list(arch.depths), list(arch.embed_dims), list(arch.num_vit)
        hidden = [list(widths) for widths in arch.hidden_dims]
        if action.kind == 'width':
            dims[stage] = action.to
        elif action.kind == 'hidden':
            hidden[stage][block] = action.to
        elif action.kind == 'attention':
            vit[stage] -= 1
        else:
            vit[stage] -= arch.attends(stage, block)
            depths[stage] -= 1
            del hidden[stage][block]
        return replace(self, arch=Arch(tuple(depths), tuple(dims), tuple(vit), tuple(map(tuple, hidden))))


@dataclass(frozen=True)
class TokenStats:
    """What a block that attends to tokens saw, for its MLP to become one of convs with BatchNorm."""

    spread: float  # the mean over tokens of the standard deviation over channels in front of the MLP
    # mean and variance (hidden,) of the first layer's centred products, before division by the spread
    hidden: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]  # mean and variance (C,) of what the second layer gives


@dataclass(frozen=True)
class Network:
    """A segmenter, or a backbone alone, as data."""

    model: dict  # the config of the segmenter; for a backbone alone dict(backbone=...)
    arch: Arch  # of the backbone
    # weights by name; those of a backbone alone have the prefix backbone. as well
    state: dict[str, Tensor] = field(repr=False)

    @property
    def groups(self) -> dict:
        """The groups of the axes of each tensor: :func:`effseg.slimming.channels.groups`."""
        return groups(self.state, self.model)

    @property
    def shape(self) -> Shape:
        """What its time depends on."""
        head, neck = self.model.get('decode_head') or {}, self.model.get('neck') or {}
        return Shape(self.arch, head.get('channels', 0), neck.get('out_channels', 0))

    def place(self, stage: int, block: int) -> int:
        """The number of a block in the names of tensors: the first generation marks by a module of its own, which has
        a number as well, where a map becomes tokens."""
        tokens = self.model['backbone']['type'] == 'EfficientFormer' and self.arch.attends(stage, block)
        return block + tokens


def apply(
    network: Network,
    action: Action,
    importance: Mapping[str, Tensor],
    tokens: Mapping[tuple[int, int], TokenStats] | None = None,
) -> Network:
    """The network after an action; the one given is left as it is.

    Args:
        network: to take something out of.
        action: what.
        importance: of each channel, by group: :func:`effseg.slimming.channels.importance`.
        tokens: by stage and block, for the action ``'attention'`` on the first generation.

    Raises:
        ConfigError: for what is not there, or would leave nothing.
    """
    _check(network, action)
    shape = network.shape.after(action)
    smaller = replace(network, model=configured(network.model, shape), arch=shape.arch)
    if action.kind in ('block', 'attention'):
        return replace(smaller, state=_renumbered(network, smaller, action, tokens or {}))
    named = network.groups
    keep = {
        group: importance[group].topk(size).indices.sort().values for group, size in _narrowed(network, action, named)
    }
    return replace(smaller, state=select(network.state, named, keep))


def _check(network: Network, action: Action) -> None:
    shape, arch, stage, block, to = network.shape, network.arch, action.stage, action.block, action.to
    if action.kind in ('head', 'neck'):
        fits = to is not None and 1 <= to <= getattr(shape, action.kind)
    elif stage is None or not 0 <= stage < len(arch.depths):
        fits = False
    elif action.kind == 'width':
        fits = to is not None and 2 <= to <= arch.embed_dims[stage]
    elif block is None or not 0 <= block < arch.depths[stage]:
        fits = False
    elif action.kind == 'hidden':
        fits = to is not None and 1 <= to <= arch.hidden_dims[stage][block]
    elif action.kind == 'attention':
        # attention stays in the last blocks of a stage, so the first of them loses it
        fits = block == arch.depths[stage] - arch.num_vit[stage]
    else:
        fits = arch.depths[stage] > 1
    if not fits:
        raise ConfigError(f'"{action}" cannot be done to {arch.as_config()}, head {shape.head}, FPN {shape.neck}')


def _narrowed(network: Network, action: Action, named: Mapping) -> Iterator[tuple[str, int]]:
    """The groups that an action narrows, and to how many channels."""
    assert action.to is not None
    if action.kind == 'width':
        yield f'stage{action.stage}', action.to
        if action.stage == 0:  # the stem's first conv has half the width
            yield 'stem', action.to // 2
    elif action.kind == 'hidden':
        yield f'hidden.{action.stage}.{network.place(action.stage, action.block)}', action.to
    else:
        kinds = ('head', 'level', 'scale') if action.kind == 'head' else ('neck', 'pyramid')
        for group in sizes(network.state, named):
            if group.startswith(kinds):
                yield group, action.to


def configured(model: Mapping, shape: Shape) -> dict:
    """The config of a segmenter, or of a backbone alone, with another architecture; the one given is left as it is."""
    changed = copy.deepcopy(dict(model))
    changed['backbone']['arch'] = shape.arch.as_config()
    maps = [shape.arch.embed_dims[index] for index in model['backbone'].get('out_indices', range(4))]
    if shape.head:
        decoder = changed['decode_head']
        decoder['channels'] = shape.head
        decoder['in_channels'] = [shape.neck or maps[index] for index in decoder['in_index']]
    if shape.neck:
        changed['neck'].update(in_channels=maps, out_channels=shape.neck)
    return changed


def _renumbered(network: Network, smaller: Network, action: Action, tokens: Mapping) -> dict[str, Tensor]:
    """The weights of ``network`` without a block or its attention, under the names that they have in ``smaller``."""
    state: Mapping[str, Tensor] = network.state
    if action.kind == 'attention':
        state = _without_attention(network, action.stage, action.block, tokens)
    places = {
        (stage, network.place(stage, block)): (stage, block)
        for stage, depth in enumerate(network.arch.depths)
        for block in range(depth)
    }
    renamed = {}
    for key, value in state.items():
        if match := _BLOCK.match(key):
            stage, block = places[int(match[1]), int(match[2])]
            if action.kind == 'block' and stage == action.stage:
                if block == action.block:
                    continue
                block -= block > action.block
            key = f'backbone.stages.{stage}.blocks.{smaller.place(stage, block)}.{match[3]}'
        renamed[key] = value.clone()
    return renamed


def _without_attention(network: Network, stage: int, block: int, tokens: Mapping) -> dict[str, Tensor]:
    prefix = f'backbone.stages.{stage}.blocks.{network.place(stage, block)}.'
    own = {key.removeprefix(prefix): value for key, value in network.state.items() if key.startswith(prefix)}
    rest = {key: value for key, value in network.state.items() if not key.startswith(prefix)}
    if network.model['backbone']['type'] == 'EfficientFormer':
        if (stage, block) not in tokens:
            raise ConfigError(
                f'stage {stage + 1} block {block + 1} becomes a pooling block by statistics of its '
                'tokens, and there are none: they take a trained segmenter and its training images'
            )
        own = pooling_from_tokens(own, tokens[stage, block])
    else:
        own = {key: value for key, value in own.items() if not key.startswith(('token_mixer.', 'ls1.'))}
    return rest | {prefix + key: value for key, value in own.items()}


def pooling_from_tokens(own: Mapping[str, Tensor], stats: TokenStats) -> dict[str, Tensor]:
    """Makes a block of pooling and conv MLP from the weights of one of attention and MLP over tokens.

    The MLP stays what it was but for one thing: LayerNorm divides each token by its own spread, BatchNorm all of them
    by one. Centring a token is linear, and goes into the first layer. Pooling starts with the scale 0.

    Args:
        own: the attention block's weights, by name inside the block.
        stats: of its tokens.
    """
    weight = own['mlp.fc1.weight'] * own['norm2.weight']
    weight = weight - weight.mean(1, keepdim=True)
    bias = own['mlp.fc1.weight'] @ own['norm2.bias'] + own['mlp.fc1.bias']
    (mean, var), (mean_out, var_out), eps = stats.hidden, stats.out, 1e-5
    return {
        'ls1.gamma': torch.zeros_like(own['ls1.gamma']),
        'ls2.gamma': own['ls2.gamma'],
        'mlp.fc1.weight': weight[:, :, None, None],
        'mlp.fc1.bias': torch.zeros_like(bias),
        **_norm('mlp.norm1', mean, var, (var + eps).sqrt() / stats.spread, bias + mean / stats.spread),
        'mlp.fc2.weight': own['mlp.fc2.weight'][:, :, None, None],
        'mlp.fc2.bias': own['mlp.fc2.bias'],
        **_norm('mlp.norm2', mean_out, var_out, (var_out + eps).sqrt(), mean_out),
    }


def _norm(name: str, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {
        f'{name}.running_mean': mean.to(bias.dtype),
        f'{name}.running_var': var.to(bias.dtype),
        f'{name}.weight': weight.to(bias.dtype),
        f'{name}.bias': bias,
        f'{name}.num_batches_tracked': torch.tensor(0),
    }
