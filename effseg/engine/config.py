"""From a config file to the Config that a Runner takes."""
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger

from ..errors import ConfigError

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
    from ..stack import config_root
    package, _, name = path.partition('::')
    root = config_root(package) if name else None
    file = root / name if root else Path(path)
    if not file.is_file():
        shipped = sorted(p.name for p in config_root('effseg').glob('*.py'))
        raise ConfigError(f"no config at {path!r}; give a file, or 'effseg::NAME' with one of {', '.join(shipped)}")
    # MMEngine's own logger, until a Runner makes one: its notes on variables would be the first thing on the terminal
    MMLogger.get_instance('mmengine', log_level='WARNING')
    try:
        cfg = Config.fromfile(str(file))
        cfg.merge_from_dict(cfg_options or {})
    except Exception as error:  # a config is code: whatever it raises is the user's to see, as one line
        raise ConfigError(f'{path} cannot be read as a config: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise ConfigError(f"{path} has no 'model'; it is not the config of a segmenter")
    if 'data_root' in (cfg_options or {}):
        for loader in DATALOADERS:
            if cfg.get(loader):
                _innermost(cfg[loader].dataset).data_root = cfg.data_root
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / file.stem)
    return cfg


def _innermost(dataset: Config) -> Config:
    """The data set inside wrappers such as RepeatDataset."""
    while 'data_root' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset
