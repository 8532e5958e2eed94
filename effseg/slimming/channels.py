"""Which channels the axes of a segmenter's tensors count, and how much each channel matters.

Channels that must be kept or left out together are a *group*: ``stage2`` is the width of the third stage, which its
blocks, the downsampling layers on both sides, the output norm and the decode head all read or write; ``hidden.2.5`` is
the inside of one block's MLP.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError

Groups = tuple[str, ...]  # along one axis, several where maps are concatenated; empty where nothing can be left out
HEADS = ('FPNHead', 'SegformerHead', 'DepthwiseSegformerHead')

# a name behind 'backbone.', the group of the first axis, and of the second one; {0} and {1} are the numbers in the
# name, {previous} is the stage before. A name takes the first pattern that it starts with.
_BACKBONE = tuple(
    (re.compile(pattern), first, second)
    for pattern, first, second in (
        (r'stem\.(?:conv1|norm1)\.', 'stem', ''),
        (r'stem\.(?:conv2|norm2)\.', 'stage0', 'stem'),
        (r'norm(\d)\.', 'stage{0}', ''),
        (r'stages\.(\d)\.downsample\.(?:conv|norm)\.', 'stage{0}', 'stage{previous}'),
        (r'stages\.(\d)\.downsample\.attn\.q\.local\.', 'stage{previous}', ''),
        (r'stages\.(\d)\.downsample\.attn\.(?:q\.proj|k|v)\.', '', 'stage{previous}'),
        (r'stages\.(\d)\.downsample\.attn\.proj\.', 'stage{0}', ''),
        (r'stages\.(\d)\.downsample\.attn\.', '', ''),
        (r'stages\.(\d)\.blocks\.(\d+)\.(?:ls1|ls2|norm1|norm2|token_mixer\.(?:stride_conv|proj))\.', 'stage{0}', ''),
        (r'stages\.(\d)\.blocks\.(\d+)\.token_mixer\.(?:qkv|q|k|v)\.', '', 'stage{0}'),
        (r'stages\.(\d)\.blocks\.(\d+)\.token_mixer\.', '', ''),
        (r'stages\.(\d)\.blocks\.(\d+)\.mlp\.(?:fc1|norm1)\.', 'hidden.{0}.{1}', 'stage{0}'),
        (r'stages\.(\d)\.blocks\.(\d+)\.mlp\.mid\.', 'hidden.{0}.{1}', ''),
        (r'stages\.(\d)\.blocks\.(\d+)\.mlp\.(?:fc2|norm2)\.', 'stage{0}', 'hidden.{0}.{1}'),
    )
)


def groups(state: Mapping[str, Tensor], model: Mapping) -> dict[str, tuple[Groups, ...]]:
    """For each tensor, the groups of its axes in order.

    Args:
        state: of a segmenter, or of a backbone alone under the prefix ``backbone.``; block numbers are those of the
            names.
        model: the config of the segmenter; only its backbone is read where ``state`` holds no more.

    Raises:
        ConfigError: for a decode head or a tensor of which nothing is known here.
    """
    named = {}
    for key, value in state.items():
        inner = key.removeprefix('backbone.')
        first, second = _of_backbone(inner) if inner != key else _of_decoder(key, model, state)
        named[key] = (first, second, *[()] * value.dim())[: value.dim()]
    return named


def _of_backbone(name: str) -> tuple[Groups, Groups]:
    for pattern, first, second in _BACKBONE:
        if match := pattern.match(name):
            numbers = match.groups()
            previous = int(numbers[0]) - 1 if numbers else None
            first, second = (text.format(*numbers, previous=previous) for text in (first, second))
            return (first,) if first else (), (second,) if second else ()
    raise ConfigError(f'nothing is known here of backbone.{name}; an EfficientFormer of this package can be slimmed')


def _of_decoder(key: str, model: Mapping, state: Mapping[str, Tensor]) -> tuple[Groups, Groups]:
    stages = [f'stage{index}' for index in model['backbone'].get('out_indices', range(4))]
    part, *names = key.split('.')
    kind = model['decode_head']['type']
    if kind not in HEADS or (kind == 'FPNHead') != bool(model.get('neck')):
        raise ConfigError(
            f'the decode head is a {kind}{" behind a neck" if model.get("neck") else ""}; heads that can be slimmed '
            'are SegformerHead and DepthwiseSegformerHead, and FPNHead behind an FPN'
        )
    head = ('head',)
    match part, names:
        case 'decode_head', ['conv_seg', *_]:
            return (), head
        case 'decode_head', ['convs', level, *_] if kind != 'FPNHead':
            return (f'level{level}',), (stages[model['decode_head']['in_index'][int(level)]],)
        case 'decode_head', ['fusion_conv', 'mixing', *_]:
            return head, ()
        case 'decode_head', ['fusion_conv', *_]:
            return head, tuple(f'level{level}' for level in range(len(model['decode_head']['in_index'])))
        case 'decode_head', ['scale_heads', level, number, *_]:
            # convs and resizes take turns; the last convs of all levels are added
            behind = f'decode_head.scale_heads.{level}.{int(number) + 2}.'
            last = not any(other.startswith(behind) for other in state)
            before = f'scale{level}.{int(number) - 2}' if int(number) else f'pyramid{level}'
            return head if last else (f'scale{level}.{number}',), (before,)
        case 'neck', ['lateral_convs', level, *_]:
            return ('neck',), (stages[int(level)],)
        case 'neck', ['fpn_convs', level, *_]:
            return (f'pyramid{level}',), ('neck',)
    raise ConfigError(f'nothing is known here of {key}, so the model cannot be slimmed')


def sizes(state: Mapping[str, Tensor], named: Mapping[str, Sequence[Groups]]) -> dict[str, int]:
    """How many channels each group has, read where it is alone on an axis."""
    return {
        axis[0]: state[key].shape[number]
        for key, axes in named.items()
        for number, axis in enumerate(axes)
        if len(axis) == 1 and key in state
    }


def importance(weights: Mapping[str, Tensor], named: Mapping[str, Sequence[Groups]]) -> dict[str, Tensor]:
    """How much each channel of each group matters: the sum over all tensors that read or write it.

    Args:
        weights: for each tensor, how much each number in it matters, such as ``|w g|``.
        named: from :func:`groups`.

    Returns:
        By group, (channels,) float64.
    """
    scores: dict[str, Tensor] = {}
    count = sizes(weights, named)
    for key, axes in named.items():
        for number, axis in enumerate(axes):
            if key not in weights or not axis:
                continue
            rest = [other for other in range(weights[key].dim()) if other != number]
            sums = weights[key].double().sum(rest) if rest else weights[key].double()
            for group, part in zip(axis, sums.split([count[group] for group in axis])):
                scores[group] = scores.get(group, 0) + part
    return scores


def select(
    state: Mapping[str, Tensor], named: Mapping[str, Sequence[Groups]], keep: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state dict of the kept channels alone.

    Args:
        state: by name.
        named: from :func:`groups`.
        keep: by group, the numbers of the channels to keep, ascending; groups that are not named stay whole.
    """
    count, sliced = sizes(state, named), {}
    for key, value in state.items():
        for number, axis in enumerate(named[key]):
            if not set(axis) & set(keep):
                continue
            indices, start = [], 0
            for group in axis:
                indices.append(start + keep.get(group, torch.arange(count[group])))
                start += count[group]
            value = value.index_select(number, torch.cat(indices))
        sliced[key] = value.clone()
    return sliced
