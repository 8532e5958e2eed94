"""From a config file to the Config that a Runner takes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger

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
    _check_parts(cfg, path)
    if 'data_root' in (cfg_options or {}):
        for loader in DATALOADERS:
            if cfg.get(loader):
                _innermost(cfg[loader].dataset).data_root = cfg.data_root
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / file.stem)
    return cfg


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


def _check_parts(cfg: Config, path: str) -> None:
    if 'model' not in cfg:
        raise ConfigError(f"{path} has no 'model'; it is not the config of a segmenter")
    for name in ('model', *DATALOADERS, 'train_cfg', 'optim_wrapper', 'default_hooks', 'env_cfg', 'randomness'):
        if cfg.get(name) is not None and not isinstance(cfg[name], dict):
            raise ConfigError(f'{name}={cfg[name]!r} came in {path} or --cfg-options; a dict was expected')
    for name in DATALOADERS:
        if cfg.get(name) and not isinstance(cfg[name].get('dataset'), dict):
            raise ConfigError(f'{name} of {path} has no dataset; a dict was expected')
    if not isinstance(cfg.model.get('decode_head'), (dict, list)):
        raise ConfigError(f'the model of {path} has no decode_head; it is not the config of a segmenter')
    for name in ('val_evaluator', 'test_evaluator'):
        metrics = cfg.get(name) or []
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            unknown = set(metric.get('iou_metrics', ())) - {'mIoU', 'mDice', 'mFscore'}
            if unknown and metric.get('type') == 'IoUMetric':
                raise ConfigError(f'{name}.iou_metrics names {sorted(unknown)[0]!r}; mIoU, mDice and mFscore are known')


def _innermost(dataset: Config) -> Config:
    """The data set inside wrappers such as RepeatDataset."""
    while 'data_root' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset
