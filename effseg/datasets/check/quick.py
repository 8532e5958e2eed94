"""The quick look that every training takes at its data before it starts."""

from mmengine.config import Config

from ...errors import ConfigError, DataError
from .findings import ERROR, Finding
from .split import find_splits
from .survey import survey

QUICK = 32  # pairs of a split that the quick look reads
_ALWAYS = (
    *('config: no class', 'config: one', 'config: number', 'folder: missing', 'folder: no', 'image: missing'),
    'label map: missing',
)


def check_datasets(cfg: Config, loaders: tuple[str, ...], sample: int = 0) -> None:
    """Checks that the data sets of a config are there, complete, and of as many classes as the model.

    Args:
        cfg: the config.
        loaders: which of its dataloaders, such as ``'train_dataloader'``; those that it lacks are passed over.
        sample: how many pairs of each to read as well, spread evenly.

    Raises:
        DataError: for a missing or empty folder, an image without label map, or an error among the pairs that were
            read.
        ConfigError: when data set and decode head differ in their number of classes.
    """
    names = tuple(loader.removesuffix('_dataloader') for loader in loaders if cfg.get(loader))
    for split in find_splits(cfg, names) if names else []:
        errors = [found for found in split.findings if found.severity == ERROR]
        _refuse([found for found in errors if found.kind.startswith(_ALWAYS)], f'{len(split.pairs)} pairs')
        if not sample:
            continue
        found = survey(split, workers=0, sample=sample)
        errors = [one for one in found.findings if one.severity == ERROR]
        _refuse(errors, f'a quick look at {found.pairs} pairs', '; --no-data-check trains all the same')
        for one in found.findings:
            if one.kind.startswith(('labels', 'config')):
                print(f'warning: {one.path}: {one.message}. What to do: {one.remedy}')


def _refuse(errors: list[Finding], where: str, otherwise: str = '') -> None:
    if errors:
        first = errors[0]
        count = f'{len(errors)} error{"s" * (len(errors) > 1)}'
        raise (ConfigError if first.kind.startswith('config') else DataError)(
            f'{first.path}: {first.message}. What to do: {first.remedy}. {count} in {where}; tools/check_data.py shows '
            f'all{otherwise}'
        )
