"""From a config to the pairs of files of its splits, and what is wrong with the folders."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..errors import ConfigError
from .pairs import ERROR, WARNING, Finding, Rules

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Split:
    """A data set of the config.

    Attributes:
        name: ``'train'``, ``'val'`` or ``'test'``; numbered when the dataloader joins several data sets.
        rules: what becomes of its label values.
        pairs: paths of image and label map.
        findings: what is wrong with its folders.
    """

    name: str
    rules: Rules
    pairs: list[tuple[str, str]]
    findings: list[Finding] = field(default_factory=list)


def find_splits(cfg: Config, names: tuple[str, ...] = ('train', 'val', 'test')) -> list[Split]:
    """The splits that a config trains and scores on; a test split that is the val split again is left out.

    Raises:
        ConfigError: when the config has none of them, or a data set that cannot be built.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    splits, known = [], []
    for name in names:
        loader = cfg.get(f'{name}_dataloader')
        datasets = list(_leaves(loader.dataset)) if loader else []
        for number, dataset in enumerate(datasets):
            files = (dataset.get('data_root'), dataset.get('data_prefix'), dataset.get('ann_file'))
            if files not in known or len(names) == 1:
                known.append(files)
                splits.append(_split(name if len(datasets) == 1 else f'{name}[{number}]', dataset, cfg))
    if not splits:
        raise ConfigError(f'the config has no data set for {", ".join(names)}')
    return splits


def _leaves(dataset: Config) -> Iterator[Config]:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset)."""
    if 'datasets' in dataset:
        for inner in dataset.datasets:
            yield from _leaves(inner)
    elif 'dataset' in dataset:
        yield from _leaves(dataset.dataset)
    else:
        yield dataset


def _split(name: str, dataset_cfg: Config, cfg: Config) -> Split:
    from mmseg.registry import DATASETS

    findings: list[Finding] = []
    head = cfg.model.decode_head[0] if isinstance(cfg.model.decode_head, list) else cfg.model.decode_head
    try:
        dataset = DATASETS.build(dict(dataset_cfg, lazy_init=True, pipeline=[], test_mode=False))
    except Exception as error:  # a data set is a user's class: whatever it raises is the user's to see
        raise ConfigError(f'the {name} data set cannot be built: {type(error).__name__}: {error}') from error
    classes = tuple(dataset.metainfo.get('classes') or (str(number) for number in range(head.num_classes)))
    if len(classes) != head.num_classes:
        findings.append(
            Finding(
                'config: number of classes',
                ERROR,
                name,
                f'the data set has {len(classes)} classes, the decode head {head.num_classes}',
                'make model.decode_head.num_classes and metainfo agree',
            )
        )
    palette = tuple(map(tuple, dataset.metainfo.get('palette') or ()))
    if palette and len(palette) != len(classes):
        findings.append(
            Finding(
                'config: palette',
                WARNING,
                name,
                f'the palette has {len(palette)} colours for {len(classes)} classes',
                'give one per class',
            )
        )
    pipeline = {step['type']: step for step in dataset_cfg.get('pipeline', []) if isinstance(step, dict)}
    resize = pipeline.get('RandomResize') or pipeline.get('Resize') or {}
    scale = resize.get('scale')
    if scale and not isinstance(scale[0], (list, tuple)):
        scale = tuple(edge * max(resize.get('ratio_range', (1, 1))) for edge in scale)
    else:
        scale = None
    ignored = {head.get('ignore_index', 255), dataset.ignore_index}
    if len(ignored) > 1:
        findings.append(
            Finding(
                'config: ignore_index',
                WARNING,
                name,
                f'the decode head ignores {head.get("ignore_index", 255)}, the data set {dataset.ignore_index}',
                'set ignore_index to the same value in data set, decode head and evaluator',
            )
        )
    crop = pipeline.get('RandomCrop', {}).get('crop_size')
    rules = Rules(
        classes,
        tuple(sorted(ignored)),
        bool(dataset.reduce_zero_label),
        dataset.label_map,
        palette,
        tuple(crop) if crop else None,
        scale,
    )
    pairs = [] if _folders_missing(dataset, findings) else _pairs(dataset, findings)
    return Split(name, rules, pairs, findings)


def _folders_missing(dataset, findings: list[Finding]) -> bool:
    missing = [
        folder
        for key in ('img_path', 'seg_map_path')
        if (folder := dataset.data_prefix.get(key)) and not Path(folder).is_dir()
    ]
    for folder in missing:
        findings.append(
            Finding(
                'folder: missing',
                ERROR,
                folder,
                'there is no such folder',
                'set data_root and data_prefix (--cfg-options data_root=...)',
            )
        )
    return bool(missing)


def _pairs(dataset, findings: list[Finding]) -> list[tuple[str, str]]:
    try:
        found = dataset.load_data_list()
    except Exception as error:  # a data set is a user's class: whatever it raises is the user's to see
        findings.append(
            Finding(
                'folder: no list',
                ERROR,
                str(dataset.ann_file),
                f'{type(error).__name__}: {error}',
                "correct the data set's ann_file",
            )
        )
        return []
    pairs = [(pair['img_path'], pair.get('seg_map_path') or '') for pair in found]
    images, labels = (Path(dataset.data_prefix[key]) for key in ('img_path', 'seg_map_path'))
    if not pairs:
        findings.append(
            Finding(
                'folder: no images',
                ERROR,
                str(images),
                f'holds no file that ends in {dataset.img_suffix!r}',
                'set img_suffix',
            )
        )
    if not dataset.ann_file:
        _left_over(
            images, labels, dataset, {Path(image) for image, _ in pairs}, {Path(label) for _, label in pairs}, findings
        )
    return pairs


def _left_over(
    images: Path, labels: Path, dataset, used_images: set[Path], used_labels: set[Path], findings: list[Finding]
) -> None:
    """Files that look like images or label maps, and belong to no pair."""
    spare = {path for path in labels.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES} - used_labels
    stems = {path.relative_to(labels).with_suffix('') for path in spare}
    for path in sorted(
        path for path in images.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES and path not in used_images
    ):
        if images == labels and path in used_labels:
            continue
        if not path.is_file():
            findings.append(
                Finding(
                    'image: missing',
                    ERROR,
                    str(path),
                    'is no file, or a link to none',
                    'add the file, or delete the pair',
                )
            )
            continue
        labelled = path.relative_to(images).with_suffix('') in stems or path.relative_to(images).with_suffix('') in {
            label.relative_to(labels).with_suffix('') for label in used_labels if labels in label.parents
        }
        findings.append(
            Finding(
                'image: other suffix',
                ERROR if labelled else WARNING,
                str(path),
                f'is left out: it does not end in {dataset.img_suffix!r}',
                'give all images one suffix, and set img_suffix to it',
            )
        )
    if images != labels:
        for path in sorted(spare):
            findings.append(
                Finding(
                    'label map: without image',
                    WARNING,
                    str(path),
                    f'belongs to no image; {dataset.img_suffix!r} and {dataset.seg_map_suffix!r} are the suffixes',
                    'add the image, or set img_suffix and seg_map_suffix',
                )
            )
