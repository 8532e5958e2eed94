"""From a config to the pairs of files of its splits, and what is wrong with the config and the folders."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

from mmengine.config import Config
from mmengine.registry import init_default_scope

from ...errors import ConfigError
from ..images import IMAGE_SUFFIXES
from ..wrapped import leaves
from .findings import ERROR, WARNING, Finding, finding
from .pair import Rules

ADE20K = (
    'get ADEChallengeData2016.zip of the MIT scene parsing benchmark, unpack it, and set ADE20K_ROOT (or --cfg-options '
    'data_root=...) to the folder that holds images/{training,validation} and annotations/{training,validation}'
)
_TRIED = 200  # label maps whose names are looked at for a suffix that fits


@dataclass(frozen=True)
class Split:
    """A data set of the config.

    Attributes:
        name: 'train', 'val' or 'test'; numbered when the dataloader joins several data sets.
        rules: what becomes of its label values.
        pairs: paths of image and label map; the latter is empty in a test split without labels.
        findings: what is wrong with the config and the folders.
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
    splits, files_of = [], {}
    for name in names:
        loader = cfg.get(f'{name}_dataloader')
        datasets = list(leaves(loader.dataset)) if loader else []
        files_of[name] = [(data.get('data_root'), data.get('data_prefix'), data.get('ann_file')) for data in datasets]
        if name == 'test' and files_of['test'] == files_of.get('val'):
            continue
        for number, dataset in enumerate(datasets):
            splits.append(_split(name, f'[{number}]' if len(datasets) > 1 else '', dataset, cfg))
    if not splits:
        raise ConfigError(f'the config has no data set for {", ".join(names)}')
    _check_shared_files(splits)
    return splits


def _split(name: str, number: str, dataset_cfg: Config, cfg: Config) -> Split:
    from mmseg.registry import DATASETS

    findings: list[Finding] = []
    try:
        dataset = DATASETS.build(dict(dataset_cfg, lazy_init=True, pipeline=[], test_mode=False))
        rules = _rules(name, dataset, dataset_cfg, cfg, findings)
    except Exception as error:  # a data set is a user's class: whatever it raises is the user's to see
        raise ConfigError(
            f'the data set of {name}_dataloader cannot be built: {type(error).__name__}: {shorten(str(error), 300)}'
        ) from error
    pairs = [] if _folders_missing(name, dataset, dataset_cfg, findings) else _pairs(dataset, findings)
    return Split(name + number, rules, pairs, findings)


def _rules(name: str, dataset, dataset_cfg: Config, cfg: Config, findings: list[Finding]) -> Rules:
    head = cfg.model.decode_head[0] if isinstance(cfg.model.decode_head, list) else cfg.model.decode_head
    classes = tuple(dataset.metainfo.get('classes') or (str(number) for number in range(head.num_classes)))
    if name != 'train' and not dataset.metainfo.get('classes'):
        findings.append(finding('config: no class names', name, 'the data set names no classes to score'))
    if head.num_classes == 1:
        message = 'decode_head.num_classes is 1, and with one class every pixel is of it'
        findings.append(finding('config: one class', name, message))
    elif len(classes) != head.num_classes:
        message = f'the data set has {len(classes)} classes, decode_head.num_classes is {head.num_classes}'
        findings.append(finding('config: number of classes', name, message))
    ignored = {head.get('ignore_index', 255), getattr(dataset, 'ignore_index', 255)}
    if len(ignored) > 1:
        message = f'the decode head ignores {head.get("ignore_index", 255)}, the data set {dataset.ignore_index}'
        findings.append(finding('config: ignore_index', name, message))
    pipeline = {step['type']: step for step in dataset_cfg.get('pipeline', []) if isinstance(step, dict)}
    resize = pipeline.get('RandomResize') or pipeline.get('Resize') or {}
    scale, crop = resize.get('scale'), pipeline.get('RandomCrop', {}).get('crop_size')
    scale, crop = (
        edges if isinstance(edges, (list, tuple)) or not edges else (edges, edges) for edges in (scale, crop)
    )
    if scale and not isinstance(scale[0], (list, tuple)):
        largest = max(resize.get('ratio_range', (1, 1)))
        scale = (scale[0] * largest, scale[1] * largest)
    else:
        scale = None
    return Rules(
        classes,
        tuple(sorted(ignored)),
        bool(getattr(dataset, 'reduce_zero_label', False)),
        getattr(dataset, 'label_map', None),
        tuple(map(tuple, dataset.metainfo.get('palette') or ())),
        (int(crop[0]), int(crop[1])) if crop else None,
        scale,
    )


def _folders_missing(name: str, dataset, dataset_cfg: Config, findings: list[Finding]) -> bool:
    prefixes = getattr(dataset, 'data_prefix', {})
    folders = [prefixes.get(key) for key in ('img_path', 'seg_map_path')]
    missing = [folder for folder in folders if folder and not Path(folder).is_dir()]
    remedy = ADE20K if 'ADE20K' in str(dataset_cfg.get('dataset_type', dataset_cfg.type)) else None
    for folder in missing:
        findings.append(finding('folder: missing', folder, 'there is no such folder', remedy))
    if prefixes and not prefixes.get('seg_map_path') and name != 'test':
        findings.append(finding('folder: no label maps', name, 'the data set has images and no label maps'))
    return bool(missing)


def _pairs(dataset, findings: list[Finding]) -> list[tuple[str, str]]:
    """The pairs whose two files exist."""
    try:
        found = dataset.load_data_list()
    except Exception as error:  # a data set is a user's class: whatever it raises is the user's to see
        where = getattr(dataset, 'ann_file', type(dataset).__name__)
        findings.append(finding('folder: no list', where, f'{type(error).__name__}: {error}'))
        return []
    listed = [(str(pair['img_path']), str(pair.get('seg_map_path') or '')) for pair in found]
    without_image = [pair for pair in listed if not os.path.isfile(pair[0])]
    without_labels = [pair for pair in listed if pair[1] and not os.path.isfile(pair[1])]
    for image, _ in without_image:
        findings.append(finding('image: missing', image, 'there is no such image'))
    if hasattr(dataset, 'img_suffix'):
        remedy = _suffix_that_fits(dataset, without_labels)
        for image, label_map in without_labels:
            message = f'there is no such label map for {image}'
            findings.append(finding('label map: missing', label_map, message, remedy))
        if not listed:
            findings.append(_no_images(dataset))
        if not dataset.ann_file:
            _left_over(dataset, listed, findings)
    lost = {*without_image, *without_labels}
    return [pair for pair in listed if pair not in lost]


def _no_images(dataset) -> Finding:
    folder = dataset.data_prefix['img_path']
    others = Counter(path.suffix for path in _images_in(Path(folder)))
    message = f'no image ends in {dataset.img_suffix!r}' + ''.join(
        f'; {count} end in {suffix!r}' for suffix, count in others.most_common(2)
    )
    remedy = f"set img_suffix={others.most_common(1)[0][0]!r} in the data set's config" if others else None
    return finding('folder: no images', folder, message, remedy)


def _suffix_that_fits(dataset, without_labels: list[tuple[str, str]]) -> str | None:
    """What to do about label maps that are missing under their names, if most are there under a longer one."""
    if not without_labels:
        return None
    images, labels = dataset.data_prefix['img_path'], dataset.data_prefix['seg_map_path']
    names = {os.path.relpath(path, labels) for path in _images_in(Path(labels))}
    stems = [os.path.relpath(image, images).removesuffix(dataset.img_suffix) for image, _ in without_labels]
    # images may have an ending of their own: 0001_image.jpg beside 0001_mask.png
    common = os.path.commonprefix([stem[::-1] for stem in stems])[::-1] if len(stems) > 1 else ''
    common = common[min((common.find(mark) for mark in '_-.' if mark in common), default=len(common)) :]
    for ending in dict.fromkeys(('', common)):
        bare = [stem.removesuffix(ending) for stem in stems]
        rests = Counter(
            name.removeprefix(stem)
            for stem in bare[:_TRIED]
            for name in names
            if name.startswith(stem) and '/' not in name.removeprefix(stem)
        )
        for rest, count in rests.most_common(1):
            if 2 * count > min(len(bare), _TRIED) and 2 * sum(stem + rest in names for stem in bare) > len(bare):
                img_suffix = f'img_suffix={ending + dataset.img_suffix!r} and ' if ending else ''
                return f"set {img_suffix}seg_map_suffix={rest!r} in the data set's config"
    return None


def _images_in(folder: Path) -> list[Path]:
    """The files (and dead links) below a folder that are named like images; those that begin with a dot are not meant,
    and training does not see them."""
    return sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.') and not path.is_dir()
    )


def _left_over(dataset, pairs: list[tuple[str, str]], findings: list[Finding]) -> None:
    """Files that look like images or label maps, and belong to no pair."""
    images, labels = (Path(dataset.data_prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
    used = {Path(file) for pair in pairs for file in pair if file}
    present = _images_in(labels) if dataset.data_prefix.get('seg_map_path') else []
    labelled = Counter(path.relative_to(labels).with_suffix('') for path in present)
    for path in _images_in(images):
        if path in used:
            continue
        if not path.is_file():
            findings.append(finding('image: missing', path, 'is no file, or a link to none'))
            continue
        # in a folder of both, an image is among the files that may be label maps
        is_labelled = labelled[path.relative_to(images).with_suffix('')] > (images == labels)
        message = f'is left out: it does not end in {dataset.img_suffix!r}'
        severity = ERROR if is_labelled else WARNING
        findings.append(finding('image: other suffix', path, message, severity=severity))
    if images != labels:
        suffixes = f'{dataset.img_suffix!r} and {dataset.seg_map_suffix!r} are the suffixes'
        for path in present:
            if path not in used:
                findings.append(finding('label map: without image', path, f'belongs to no image; {suffixes}'))


def _check_shared_files(splits: list[Split]) -> None:
    """One finding for a split whose files are another's, such as a val split that is the training's folder."""
    files = [{os.path.realpath(image) for image, _ in split.pairs} for split in splits]
    for number, split in enumerate(splits):
        for other, theirs in list(zip(splits, files))[:number]:
            shared = files[number] & theirs
            # the parts of one split may share what they like
            if shared and split.name.partition('[')[0] != other.name.partition('[')[0]:
                message = f'{len(shared)} of the {len(files[number])} images of {split.name} are images of {other.name}'
                where = os.path.dirname(split.pairs[0][0])
                split.findings.append(finding('folder: in two splits', where, f'{message}: scores would be too good'))
