"""What must be true of the data before a run starts: a quick look."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..errors import ConfigError, DataError
from .pairs import ERROR
from .splits import find_splits
from .survey import survey

ADE20K = (
    'Get ADEChallengeData2016.zip of the MIT scene parsing benchmark, unpack it, and set ADE20K_ROOT (or --cfg-options '
    'data_root=...) to the folder that holds images/{training,validation} and annotations/{training,validation}.'
)
QUICK = 32  # pairs of a split that the quick look reads


def check_datasets(cfg: Config, loaders: tuple[str, ...], sample: int = 0) -> None:
    """Checks that the data sets of a config are there, complete, and of as many classes as the model.

    Args:
        cfg: the config.
        loaders: which of its dataloaders, such as ``'train_dataloader'``.
        sample: how many pairs of each to read as well, spread evenly.

    Raises:
        DataError: for a missing or empty folder, an image without label map, or an error among the pairs that were
            read.
        ConfigError: when data set and decode head differ in their number of classes.
    """
    from mmseg.registry import DATASETS

    init_default_scope(cfg.get('default_scope', 'mmseg'))
    for loader in loaders:
        dataset_cfg = cfg.get(loader) and cfg[loader].dataset
        if not dataset_cfg or 'data_prefix' not in dataset_cfg:
            continue
        _check_folders(dataset_cfg)
        try:
            dataset = DATASETS.build(dict(dataset_cfg, lazy_init=True, pipeline=[]))
        except Exception as error:  # a data set is a user's class: whatever it raises is the user's to see
            raise ConfigError(f'the data set of {loader} cannot be built: {type(error).__name__}: {error}') from error
        _check_pairs(dataset, dataset_cfg)
        classes = dataset.metainfo.get('classes')
        num_classes = cfg.model.decode_head.num_classes
        if classes is not None and len(classes) != num_classes:
            raise ConfigError(
                f'{loader} has {len(classes)} classes but decode_head.num_classes is {num_classes}; make them equal '
                '(--cfg-options model.decode_head.num_classes=... or metainfo in the config)'
            )
    if sample:
        _check_sample(cfg, tuple(loader.removesuffix('_dataloader') for loader in loaders), sample)


def _check_sample(cfg: Config, names: tuple[str, ...], sample: int) -> None:
    for split in find_splits(cfg, names):
        found = survey(split, workers=0, sample=sample)
        errors = [finding for finding in found.findings if finding.severity == ERROR]
        if errors:
            first = errors[0]
            raise DataError(
                f'{first.path}: {first.message}. What to do: {first.remedy}. {len(errors)} errors in a quick look at '
                f'{found.pairs} pairs of {split.name}; tools/check_data.py shows all, --no-data-check trains '
                'all the same'
            )
        for finding in found.findings:
            if finding.kind.startswith(('labels', 'config')):
                print(f'warning: {finding.path}: {finding.message}. What to do: {finding.remedy}')


def _check_folders(dataset_cfg: Config) -> None:
    root = Path(dataset_cfg.get('data_root') or '')
    hint = (
        ADE20K
        if 'ADE20K' in str(dataset_cfg.get('dataset_type', dataset_cfg.type))
        else 'Set data_root (--cfg-options data_root=...) to the folder that holds '
        + ' and '.join(dataset_cfg.data_prefix.values())
        + '.'
    )
    for prefix in dataset_cfg.data_prefix.values():
        if not (root / prefix).is_dir():
            raise DataError(f'no data at {root / prefix}. {hint}')


def _check_pairs(dataset, dataset_cfg: Config) -> None:
    pairs = dataset.load_data_list()
    if not pairs:
        raise DataError(
            f'no image ending in {dataset.img_suffix!r} in {dataset.data_prefix["img_path"]}; set img_suffix in the '
            "data set's config"
        )
    lost = [pair['img_path'] for pair in pairs if not Path(pair.get('seg_map_path', '')).is_file()]
    if lost:
        raise DataError(
            f'{len(lost)} of {len(pairs)} images have no label map, the first is {lost[0]}; a file of the same name '
            f'ending in {dataset.seg_map_suffix!r} was expected in {dataset.data_prefix["seg_map_path"]}'
        )
