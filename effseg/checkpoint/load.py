"""Weights into a network, with an account of every tensor.

Two ways in: :func:`load_pretrained` starts a backbone from ImageNet weights, :func:`load_segmentor` restores a whole
segmenter. Either all that must be there is there and fits, or there is one error; nothing is half loaded.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import WeightsError
from ..models.attention_bias import resize_table
from . import names
from .read import Checkpoint, read_checkpoint

_COUNTER = '.num_batches_tracked'  # BatchNorm's own count, unused with a fixed momentum; not every format keeps it


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor, of the file and of the network.

    Attributes:
        source: the checkpoint's name.
        matched: the network's tensors that the file gave, as they are.
        interpolated: those of them that were carried over to another resolution (attention bias tables).
        missing: the network's tensors that are new, and keep the values they had.
        unexpected: the file's tensors that were left out on purpose (a classifier's head); anything else is an error.
        dataset_meta: classes and palette, as far as the file names them.
    """

    source: str
    matched: tuple[str, ...] = ()
    interpolated: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    dataset_meta: dict = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f'{len(self.matched)} tensors loaded from {self.source}']
        for label, keys in (
            ('new', self.missing),
            ('carried over to another resolution', self.interpolated),
            ('left out of the file', self.unexpected),
        ):
            if keys:
                parts.append(f'{label}: {_few(keys)}')
        return '; '.join(parts)


def load_pretrained(backbone: nn.Module, source: str | Path, prefix: str | None = None) -> LoadReport:
    """Starts a backbone from weights trained elsewhere, and logs the report.

    Args:
        backbone: an effseg backbone.
        source: see :func:`effseg.checkpoint.read.read_checkpoint`. Names may be timm's or the original's, with or
            without the names of wrappers and of a segmenter around them.
        prefix: take only the keys that start so; found by itself where it is ``backbone.``.

    Returns:
        The report. Output norms may be missing; attention bias tables of another resolution are carried over by offset.

    Raises:
        WeightsError: when the trunk is not covered whole, something is left over, has another shape or is not finite.
            The backbone is then as it was.
    """
    checkpoint = read_checkpoint(source)
    state_dict, outside = _backbone_part(checkpoint, prefix)
    state_dict, unused = names.split_unused(state_dict)
    state_dict = names.to_ours(state_dict, backbone.original_names)
    later = [key for key in state_dict if _is_later_stage(key, len(backbone.stages))]
    state_dict = {key: value for key, value in state_dict.items() if key not in set(later)}
    state_dict, interpolated = _carried_over(backbone, state_dict)
    own = backbone.state_dict()
    new = tuple(key for key in own if key.startswith('norm') and key not in state_dict)
    _require_match(checkpoint.source, {key: value for key, value in own.items() if key not in new}, state_dict)
    _copy(backbone, state_dict)
    report = LoadReport(
        checkpoint.source,
        tuple(key for key in state_dict if key not in set(interpolated)),
        tuple(interpolated),
        new,
        (*outside, *unused, *later),
        checkpoint.dataset_meta,
    )
    print_log(str(report), logger='current')
    return report


def load_segmentor(model: nn.Module, source: str | Path | Checkpoint, new_head: bool = False) -> LoadReport:
    """Restores a whole segmenter, to test, predict, fuse or export it, and logs the report.

    The original code's released segmenters load as well; their attention bias tables are 16 x 16
    (``model.backbone.resolution=16``), and off 512 x 512 they expect ``model.backbone.bias_resize='matrix'``.

    Args:
        model: an MMSegmentation segmentor, or a wrapper that holds one as ``module``.
        source: see :func:`effseg.checkpoint.read.read_checkpoint`; or what that returned.
        new_head: let the layers that give one channel per class (``conv_seg``) keep their values where the file has
            another number of classes: to continue training on other data.

    Raises:
        WeightsError: when a tensor is missing, left over, of another shape or not finite. The model is then as it was.
    """
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    state_dict = names.unwrapped(checkpoint.state_dict)
    if not any(key.startswith('decode_head.') for key in state_dict):
        raise WeightsError(
            f'{checkpoint.source} holds no segmenter: no decode_head among its {len(state_dict)} tensors '
            f'({_few(list(state_dict))}). ImageNet weights go into model.backbone.init_cfg.checkpoint'
        )
    unused: list[str] = []
    if rules := getattr(getattr(model, 'backbone', None), 'original_names', ()):  # of a backbone of ours
        backbone, rest = _split_prefix(state_dict, 'backbone.')
        backbone, unused = names.split_unused(backbone)
        state_dict = {**{f'backbone.{key}': value for key, value in names.to_ours(backbone, rules).items()}, **rest}
    own = model.state_dict()
    classifiers = [
        key
        for key in own
        if '.conv_seg.' in key and key in state_dict and own[key].shape[:1] != state_dict[key].shape[:1]
    ]
    if classifiers and not new_head:
        _refuse_classes(checkpoint, own, state_dict, classifiers[0])
    for key in classifiers:
        state_dict.pop(key)
    _require_match(checkpoint.source, {key: value for key, value in own.items() if key not in classifiers}, state_dict)
    _copy(model, state_dict)
    report = LoadReport(
        checkpoint.source,
        tuple(state_dict),
        missing=tuple(classifiers),
        unexpected=tuple(f'backbone.{key}' for key in unused),
        dataset_meta=checkpoint.dataset_meta,
    )
    print_log(str(report), logger='current')
    return report


def rename_in_place(state_dict: dict, prefix: str, rules: names.Rules) -> None:
    """Puts the original's names under ``prefix`` into ours, for ``load_state_dict``; other names are not touched."""
    given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if not names.is_original(given):
        return
    for key in given:
        del state_dict[prefix + key]
    used, _ = names.split_unused(given)
    state_dict.update({prefix + key: value for key, value in names.to_ours(used, rules).items()})


def _backbone_part(checkpoint: Checkpoint, prefix: str | None) -> tuple[dict[str, Tensor], list[str]]:
    state_dict = names.unwrapped(checkpoint.state_dict)
    if prefix is None and not any(key.startswith('backbone.') for key in state_dict):
        return state_dict, []
    prefix = 'backbone.' if prefix is None else prefix.rstrip('.') + '.'
    inside, outside = _split_prefix(state_dict, prefix)
    if not inside:
        raise WeightsError(
            f'{checkpoint.source} has no key that starts with prefix={prefix!r}; its keys are {_few(list(state_dict))}'
        )
    return inside, list(outside)


def _split_prefix(state_dict: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    inside = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    return inside, {key: value for key, value in state_dict.items() if not key.startswith(prefix)}


def _is_later_stage(key: str, stages: int) -> bool:
    """Whether it belongs behind the last stage that the backbone keeps (``out_indices``)."""
    parts = key.split('.')
    if parts[0] == 'stages' and len(parts) > 1 and parts[1].isdigit():
        return stages <= int(parts[1]) < 4
    return parts[0] in [f'norm{index}' for index in range(stages, 4)]


def _carried_over(backbone: nn.Module, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict with attention bias tables resized to the backbone's resolution, and the names of those."""
    carried, interpolated, cut = dict(state_dict), [], {}
    for name, module in backbone.named_modules():
        key = f'{name}.attention_biases'
        given = state_dict.get(key)
        own = getattr(module, 'attention_biases', None)
        if own is None or given is None or given.dim() != 2 or given.shape == own.shape or len(given) != len(own):
            continue
        side = round(given.shape[1] ** 0.5)
        if side * side == given.shape[1]:
            if side > module.resolution[0]:
                cut[key] = side, module.resolution[0]
            carried[key] = resize_table(given.to(own.dtype), (side, side), module.resolution, module.bias_resize)
            interpolated.append(key)
    if cut:
        _warn_of_cut(cut)
    return carried, interpolated


def _warn_of_cut(tables: dict[str, tuple[int, int]]) -> None:
    """Says that attention bias tables lose offsets: by name, their side in the file and in the model."""
    key, (given, kept) = next(iter(tables.items()))
    # the table between the stages of V2 has twice the side
    resolution = given // (2 if '.downsample.' in key else 1)
    print_log(
        f'{len(tables)} attention bias tables are cut: {key} has {given} x {given} offsets in the file and '
        f'{kept} x {kept} in the model, {1 - (kept / given) ** 2:.0%} of them are lost; set '
        f'model.backbone.resolution={resolution} to keep them',
        logger='current',
        level=logging.WARNING,
    )


def _require_match(source: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises WeightsError unless the two have the same keys, shapes and kinds of number, all of them finite."""
    wanted = [key for key in own if not key.endswith(_COUNTER)]
    misfits = [key for key in given if key in own and own[key].shape != given[key].shape]
    if misfits:
        key = misfits[0]
        # the table between the stages of V2 has twice the side
        side = round(given[key].shape[-1] ** 0.5) // (2 if '.downsample.' in key else 1)
        advice = f'; set model.backbone.resolution={side}' if key.endswith('attention_biases') else ''
        raise WeightsError(
            f'{source} is for another network: {key} is {tuple(given[key].shape)} in the file and '
            f'{tuple(own[key].shape)} in the model, {len(misfits)} tensors differ in shape{advice}'
        )
    missing = [key for key in wanted if key not in given]
    left_over = [key for key in given if key not in own]
    if missing or left_over:
        parts = [f'{len(missing)} of {len(wanted)} tensors are not in the file ({_few(missing)})'] if missing else []
        parts += [f'{len(left_over)} in the file have no place in the model ({_few(left_over)})'] if left_over else []
        raise WeightsError(f'{source} is for another network: {"; ".join(parts)}')
    integers = [key for key in given if given[key].is_floating_point() != own[key].is_floating_point()]
    if integers:
        raise WeightsError(
            f'{source} is damaged: {integers[0]} is {given[integers[0]].dtype}, {own[integers[0]].dtype} was expected'
        )
    # as the network's kind of number: a float64 may be more than a float32 can hold
    broken = [
        key
        for key in given
        if given[key].is_floating_point() and not torch.isfinite(given[key].to(own[key].dtype)).all()
    ]
    if broken:
        raise WeightsError(
            f'{source} is corrupted: NaN or infinite numbers as {own[broken[0]].dtype} in {len(broken)} tensors '
            f'({_few(broken)})'
        )


def _refuse_classes(checkpoint: Checkpoint, own: Mapping[str, Tensor], given: Mapping[str, Tensor], key: str) -> None:
    trained, configured = len(given[key]), len(own[key])
    head = key.split('.conv_seg.')[0]
    raise WeightsError(
        f'{checkpoint.source} was trained for {trained} classes, the config has {configured} '
        f'(model.{head}.num_classes): use the config it was trained with, or, to train it further on other classes, '
        'new_head=True beside load_from in the config'
    )


def _copy(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    result = module.load_state_dict(dict(state_dict), strict=False)
    assert not result.unexpected_keys, result.unexpected_keys


def _few(keys, count: int = 3) -> str:
    shown = ', '.join(keys[:count])
    return shown if len(keys) <= count else f'{shown}, and {len(keys) - count} more'
