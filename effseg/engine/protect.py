"""What our base configs name, for configs that do not come from them."""

import copy
import os

from mmengine.config import Config

from ..datasets.wrapped import leaves
from .config import DATALOADERS
from .progress import say

# the hooks of configs/_base_/schedules/adamw_40k.py that are ours, by the names that they have there
HOOKS = {
    'progress': 'ProgressHook',
    'iteration_seed': 'IterationSeedHook',
    'finite': 'FiniteHook',
    'due_validation': 'DueValidationHook',
    'stop': 'StopHook',
}
LOOPS = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
ON_WHITE = dict(backend='on_white')


def protect(cfg: Config) -> Config:
    """The same config with the loaders, samplers, loops and hooks that our base configs name.

    Whatever is replaced is said in one line each; a config that names them already is returned as it is.

    Args:
        cfg: of any segmenter. It is not changed.
    """
    cfg = copy.deepcopy(cfg)
    said: list[str] = []
    _protect_hooks(cfg, said)
    if isinstance(cfg.get('train_cfg'), dict):
        _protect_loop(cfg.train_cfg, said)
    head = cfg.model.get('decode_head') or {}
    head = head[0] if isinstance(head, (list, tuple)) else head
    # two dataloaders may be one dict in the config file; Config has made two of them
    for name in DATALOADERS:
        if isinstance(cfg.get(name), dict):
            _protect_sampler(cfg[name], name, said)
            _protect_dataset(cfg[name], head, name, said)
    if cfg.get('tta_pipeline'):
        cfg.tta_pipeline = protect_transforms(cfg.tta_pipeline, 'tta_pipeline', said)
    if os.environ.get('RANK', '0') == '0':
        for line in dict.fromkeys(said):
            say(f'protected: {line}')
    return cfg


def _protect_hooks(cfg: Config, said: list[str]) -> None:
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1)) | (cfg.get('default_hooks') or {})
    hooks = cfg.default_hooks
    checkpoint = hooks['checkpoint']
    if isinstance(checkpoint, dict) and _name(checkpoint) == 'CheckpointHook':
        checkpoint['type'] = 'SafeCheckpointHook'
        said.append('default_hooks.checkpoint is a SafeCheckpointHook, no CheckpointHook')
    present = {_name(hook) for hook in [*hooks.values(), *(cfg.get('custom_hooks') or [])] if isinstance(hook, dict)}
    for name, kind in HOOKS.items():
        if kind not in present:
            hooks[name] = dict(type=kind)
            said.append(f'default_hooks.{name} is a {kind}')


def _protect_loop(loop: dict, said: list[str]) -> None:
    before = _name(loop) or ('EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    if before in LOOPS:
        loop.pop('by_epoch', None)
        loop['type'] = LOOPS[before]
        said.append(f'train_cfg is a {loop["type"]}, no {before}')


def _protect_sampler(loader: dict, name: str, said: list[str]) -> None:
    sampler = loader.get('sampler')
    if isinstance(sampler, dict) and _name(sampler) and _name(sampler) != 'SeededSampler':
        # a type laid over a base config's leaves that one's sampler_type behind
        loader['sampler'] = {**sampler, 'type': 'SeededSampler', 'sampler_type': sampler['type']}
        said.append(f'{name}.sampler is a SeededSampler around {_name(sampler)}')


def _protect_dataset(loader: dict, head: dict, name: str, said: list[str]) -> None:
    loader['dataset'] = dataset = protect_transforms(loader['dataset'], f'{name}.dataset', said)
    if _name(dataset) in ('', 'GuardedDataset'):
        return
    ignored = {part.get('ignore_index', 255) for part in (head, *leaves(dataset))}
    loader['dataset'] = {
        **dataset,
        'type': 'GuardedDataset',
        'dataset_type': dataset['type'],
        'num_classes': head.get('num_classes'),
        'ignored': sorted(ignored),
    }
    said.append(f'{name}.dataset is a GuardedDataset around {_name(dataset)}')


def protect_transforms(value, name: str, said: list[str]):
    """The same config with LoadLabelMap for every LoadAnnotations, and ``on_white`` for every LoadImageFromFile."""
    if isinstance(value, dict):
        value = type(value)({key: protect_transforms(item, name, said) for key, item in value.items()})
        kind = _name(value)
        if kind == 'LoadAnnotations':
            value['type'] = 'LoadLabelMap'
            said.append(f'{name} loads label maps by LoadLabelMap, not by LoadAnnotations')
        usual = value.get('color_type', 'color') == 'color' and value.get('imdecode_backend', 'cv2') == 'cv2'
        if kind == 'LoadImageFromFile' and usual and not value.get('backend_args') and 'file_client_args' not in value:
            value['backend_args'] = dict(ON_WHITE)
            said.append(f'{name} loads transparent images on white')
    elif isinstance(value, (list, tuple)):
        value = type(value)(protect_transforms(item, name, said) for item in value)
    return value


def _name(part: dict) -> str:
    """The type that a part of a config names, without MMSegmentation's prefixes; '' for none."""
    kind = part.get('type')
    if isinstance(kind, type):  # a config of imports
        return kind.__name__ if kind.__module__.split('.')[0] in ('mmseg', 'mmengine', 'mmcv', 'effseg') else str(kind)
    if not isinstance(kind, str):
        return ''
    for prefix in ('mmseg.', 'mmengine.', 'mmcv.'):
        kind = kind.removeprefix(prefix)
    return kind
