"""From a config file to the Config that a Runner takes."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from ..datasets.wrapped import leaves
from ..errors import ConfigError, EffsegError

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(path: str, cfg_options: dict | None = None, work_dir: str | None = None) -> Config:
    """Reads an MMEngine config.

    Args:
        path: the config file, or ``effseg::NAME.py`` for one that is shipped.
        cfg_options: ``{'key.subkey': value}`` merged over it. ``data_root`` reaches every data set of the config.
        work_dir: where logs and checkpoints go; ``work_dirs/<name of the config>`` if neither this nor the config says.

    Raises:
        ConfigError: when the file is missing or is not a config.
    """
    from ..stack import config_root, resources

    package, _, name = path.partition('::')
    root = config_root(package) if name else None
    file = root / name if root else Path(path)
    if not file.is_file():
        shipped = sorted(p.name for p in (resources() / 'configs').glob('*.py'))
        raise ConfigError(f"no config at {path!r}; give a file, or 'effseg::NAME' with one of {', '.join(shipped)}")
    # MMEngine's own logger, until a Runner makes one: its notes on variables would be the first thing on the terminal
    MMLogger.get_instance('mmengine', log_level='WARNING')
    try:
        cfg = Config.fromfile(str(file))
        cfg.merge_from_dict(cfg_options or {})
    except Exception as error:  # a config is code: whatever it raises is the user's to see, as one line
        raise ConfigError(f'{path} cannot be read as a config: {type(error).__name__}: {error}') from error
    if cfg.get('data_preprocessor') and isinstance(cfg.get('model'), dict):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as MMEngine's Runner does
    _check_parts(cfg, path)
    if 'data_root' in (cfg_options or {}):
        for loader in DATALOADERS:
            if cfg.get(loader):
                for dataset in leaves(cfg[loader].dataset):
                    dataset['data_root'] = cfg.data_root
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / file.stem)
    return cfg


def build_model(cfg: Config | ConfigDict) -> nn.Module:
    """The model of a config with random weights, without SyncBatchNorm, on the CPU.

    Raises:
        ConfigError: when it cannot be built.
    """
    from mmseg.registry import MODELS

    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about the loss of a training, which this is not
        with of_config('model'):
            return revert_sync_batchnorm(MODELS.build(cfg.model))


@contextlib.contextmanager
def of_config(part: str) -> Iterator[None]:
    """Whatever is raised inside while a part of a config is built is an error of the config; with ``--debug`` its
    origin is seen.

    Raises:
        ConfigError: naming the part.
    """
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        if isinstance(error, EffsegError):
            raise
        said = ' '.join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"the config's {part} cannot be built: {said} (an option inherited from a base config is dropped by "
            '_delete_=True in the inheriting dict)'
        ) from error


def dataset_of(cfg: Config, loader: str) -> ConfigDict:
    """The data set of a dataloader.

    Raises:
        ConfigError: when the config has none.
    """
    if not cfg.get(loader):
        raise ConfigError(f'the config {cfg.filename} has no {loader}, whose data set names the classes')
    return cfg[loader].dataset


_NONE = type(None)
# what a part of a config must be where it is given, and the keys of such parts; {loader} stands for each dataloader
_KINDS: dict[tuple[type, ...], tuple[str, ...]] = {
    (dict,): (
        *('model', 'model.backbone', 'model.test_cfg', 'model.data_preprocessor', 'log_processor', 'randomness'),
        *('{loader}.dataset', '{loader}.dataset.data_prefix', '{loader}.sampler', 'optim_wrapper.optimizer'),
        *('env_cfg', 'env_cfg.mp_cfg', 'env_cfg.dist_cfg'),
    ),
    (dict, _NONE): (
        *('{loader}', '{loader}.dataset.metainfo', 'tta_model', 'train_cfg', 'val_cfg', 'test_cfg'),
        *('optim_wrapper', 'default_hooks', 'visualizer'),
    ),
    (dict, list, _NONE): ('val_evaluator', 'test_evaluator', 'param_scheduler'),
    (list,): ('{loader}.dataset.pipeline', 'test_pipeline'),
    (list, _NONE): ('tta_pipeline', 'custom_hooks'),
    (str,): ('{loader}.dataset.data_prefix.img_path', 'default_scope'),
    (str, _NONE): (
        *('{loader}.dataset.data_root', '{loader}.dataset.ann_file', '{loader}.dataset.data_prefix.seg_map_path'),
        *('env_cfg.mp_cfg.mp_start_method', 'work_dir', 'load_from'),
    ),
    (str, type): ('{loader}.dataset.type', '{loader}.dataset.dataset_type'),
    (str, int): ('log_level',),
}
_WORDS = {dict: 'a dict', list: 'a list', str: 'a text', int: 'a number', type: 'a class'}


def _check_parts(cfg: Config, path: str) -> None:
    if 'model' not in cfg:
        raise ConfigError(f"{path} has no 'model'; it is not the config of a segmenter")
    for kinds, patterns in _KINDS.items():
        for name in dict.fromkeys(pattern.format(loader=loader) for pattern in patterns for loader in DATALOADERS):
            _check_kind(cfg, name, kinds, path)
    for name in DATALOADERS:
        if cfg.get(name) and 'dataset' not in cfg[name]:
            raise ConfigError(f'{name} of {path} has no dataset; a dict was expected')
    heads = cfg.model.get('decode_head')
    heads = heads if isinstance(heads, list) else [heads]
    if not heads or not all(isinstance(head, dict) and 'num_classes' in head for head in heads):
        raise ConfigError(
            f'the model of {path} has no decode_head with num_classes; it is not the config of a segmenter'
        )
    if 'backbone' in cfg.model and 'data_preprocessor' not in cfg.model:
        raise ConfigError(
            f'the model of {path} has no data_preprocessor, which makes batches of images: give it '
            "dict(type='SegDataPreProcessor', bgr_to_rgb=True, mean=..., std=..., size=...)"
        )
    if str(cfg.get('log_level', 'INFO')) not in (*logging._nameToLevel, *map(str, logging._levelToName)):
        raise ConfigError(
            f'log_level={cfg.log_level!r} came in {path}; one of {", ".join(logging._nameToLevel)} was expected'
        )
    for name in DATALOADERS:
        for step in (cfg[name].dataset.get('pipeline') or ()) if cfg.get(name) else ():
            if not isinstance(step, dict) or not isinstance(step.get('type'), (str, type)):
                raise ConfigError(f'the pipeline of {name} in {path} holds {step!r}; a dict with a type was expected')
            crop = step.get('crop_size', 1)
            edges = crop if isinstance(crop, (list, tuple)) and len(crop) == 2 else [crop]
            if not all(type(edge) is int and edge > 0 for edge in edges):
                raise ConfigError(
                    f'crop_size={crop!r} came in {name} of {path}; (height, width) in pixels was expected'
                )
    for name in ('val_evaluator', 'test_evaluator'):
        metrics = cfg.get(name) or []
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            if not isinstance(metric, dict):
                raise ConfigError(f'{name} of {path} holds {metric!r}; a dict was expected')
            measures = metric.get('iou_metrics', [])
            measures = list(measures) if isinstance(measures, (list, tuple)) else [measures]
            unknown = set(map(str, measures)) - {'mIoU', 'mDice', 'mFscore'}
            if unknown and metric.get('type') == 'IoUMetric':
                raise ConfigError(f'{name}.iou_metrics names {min(unknown)!r}; mIoU, mDice and mFscore are known')


def _check_kind(cfg: Config, name: str, kinds: tuple[type, ...], path: str) -> None:
    part, keys = cfg, name.split('.')
    for key in keys:
        if not isinstance(part, (dict, Config)) or key not in part:
            return
        part = part[key]
    # True is an int to Python; a tuple does where a list does
    fits = isinstance(part, (*kinds, tuple) if list in kinds else kinds) and not isinstance(part, bool)
    if not fits:
        expected = ' or '.join(_WORDS[kind] for kind in kinds if kind in _WORDS)
        raise ConfigError(f'{name}={part!r} came in {path} or --cfg-options; {expected} was expected')
