"""From a folder of labels to a proven file: every step is one of the tools, and the config is there to be kept."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from pprint import pformat

import numpy as np
import torch
from mmengine.config import Config

from ..datasets.check.quick import check_datasets
from ..deploy.backends import SUFFIXES, require
from ..engine.budget import measure, parse_budget
from ..engine.config import load_config
from ..engine.optim import cpu_has_bfloat16, gpu_has_bfloat16
from ..errors import ConfigError, DataError
from ..files import write
from ..outputs import OutputFolder
from ..stack import resources
from .check_data import check_data
from .convert import FACTS, Dataset, convert, read_dataset, table
from .export import export
from .test import test
from .train import train

CONFIG = 'config.py'
VALIDATIONS = 10
MODEL = 'evit_effformerv2_s1'  # unless told otherwise
MOST_WORKERS = 8  # that load images for a GPU
RARE = 0.05  # the share of the pixels below which a class is rare
FPN_RATE = 5e-4  # of Semantic FPN from random weights; lighter decoders learn best at the recipe's
WEIGHTS = (0.5, 4.0)  # bounds of a class's weight in the loss
RUNTIMES = {
    'onnx': 'onnxruntime',
    'executorch': 'executorch.exir',
    'coreml': 'coremltools',
    'litert': 'litert_torch',
    'torch': 'torch.export.pt2_archive',
}
TEXT = """\
# written by tools/fit.py, to be kept and edited: python tools/train.py THIS_FILE trains it again
_base_ = [
    'effseg::{base}',
    'effseg::_base_/recipes/{recipe}.py',
    'effseg::_base_/default_runtime.py',
]
data_root = {root}
classes = {classes}
palette = {palette}
crop_size = {crop}  # height, width
iterations = {iterations}

dataset = dict(
    type='GuardedDataset',
    dataset_type='BaseSegDataset',
    data_root=data_root,
    img_suffix={suffix},
    seg_map_suffix='.png',
    metainfo=dict(classes=classes, palette=palette))
# transparent images on white, label maps turned along with their images
load_image = dict(type='LoadImageFromFile', backend_args=dict(backend='on_white'))
train_pipeline = [
    load_image,
    dict(type='LoadLabelMap'),
    dict(type='RandomResize', scale={scale}, ratio_range=(0.5, 2.0), keep_ratio=True),
    {crop_step},
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    load_image,
    dict(type='Resize', scale={scale}, keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadLabelMap'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size={batch},
    num_workers={workers},
    persistent_workers=True,
    sampler=dict(type='SeededSampler', sampler_type='InfiniteSampler', shuffle=True),
    dataset=dict(data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'), pipeline=train_pipeline,
                 **dataset))
val_dataloader = dict(
    batch_size=1,
    num_workers={workers},
    persistent_workers=True,
    sampler=dict(type='SeededSampler', sampler_type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'), pipeline=test_pipeline,
                 **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

model = {model}
{wrapper}param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end={warmup}, by_epoch=False),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin={warmup}, end=iterations, by_epoch=False),
]
train_cfg = dict(max_iters=iterations, val_interval={interval})
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval={interval}, max_keep_ckpts=1),
    channels_last=dict(type='ChannelsLastHook'))
log_processor = dict(window_size=10)
"""


def fit(
    data: str,
    out: str,
    model: str = MODEL,
    budget: str = '1h',
    to: str = 'onnx',
    weights: str | None = None,
    dry_run: bool = False,
    report: Callable[[str, list[str]], Path] | None = None,
    form: str | None = None,
    mapping: dict[str, str] | None = None,
    background: bool = False,
    leave_out: bool = False,
    seed: int = 0,
) -> Path:
    """Converts labels, writes a config, trains it, scores it, and exports the file that is proven to compute the same.

    Args:
        data: a folder that :func:`effseg.apis.convert.convert` reads, or one that it wrote.
        out: for everything: ``data/``, ``config.py``, ``run/``, and the file beside the checkpoint.
        model: the network of the shipped config ``MODEL_ade20k.py``.
        budget: of the training: ``'30m'``, ``'2h'``, or a number of iterations.
        to: the runtime of the file, see :func:`effseg.apis.export.export`.
        weights: a file of ImageNet weights; those of the hub when None, where it can be reached.
        dry_run: end when the config is written and the data are checked.
        report: writes a report of a config and weights.
        form, mapping, background, leave_out, seed: see :func:`effseg.apis.convert.convert`.

    Returns:
        The exported file; of a dry run the config.

    Raises:
        ConfigError: for a model, budget or runtime that there is not.
        DataError: for data that cannot be used.
        MissingRuntimeError: when the runtime is not installed.
    """
    limit = parse_budget(budget)
    leaf = _leaf(model)
    if to not in SUFFIXES:
        raise ConfigError(f'--for {to} is no runtime; one of {", ".join(SUFFIXES)} was expected')
    if not dry_run:
        require(to, RUNTIMES[to])  # before hours of training, not behind them
    folder = OutputFolder(out)
    folder.check([CONFIG])
    if (Path(data) / FACTS).is_file():
        dataset = read_dataset(Path(data))
    else:
        dataset = convert(data, str(folder.path / 'data'), form, mapping, background, leave_out, seed)
    print(table(dataset))
    values, rows = _decide(leaf, dataset, weights)
    folder.claim([CONFIG])
    path = folder.path / CONFIG
    batch, step, score = _batch(path, values)
    iterations = iterations_of(limit, batch, step, score, dataset)
    interval = max(iterations // VALIDATIONS, 1)
    _write(path, values, batch=batch, iterations=iterations, interval=interval)
    epochs = iterations * batch / dataset.images['train']
    rows += [
        ('batch', str(batch), 'as many as fit, 32 at most' if torch.cuda.is_available() else 'of a CPU'),
        ('iterations', str(iterations), f'{epochs:.0f} epochs, {step:.2f} s each and {score:.2f} s an image to score'),
        ('early stop', '10 validations', f'without 0.1 mIoU more; there is one every {interval} iterations'),
    ]
    print('\n' + '\n'.join(f'{what:14} {value:34} {reason}' for what, value, reason in rows) + f'\n\nconfig: {path}')
    if not check_data(str(path)):
        raise DataError(f'the data of {path} have errors, which are listed above')
    if dry_run:
        return path
    run = folder.path / 'run'
    best = str(run / 'best.pth')
    train(str(path), str(run), data_check=False)
    test(str(path), best, str(run))
    if report:
        print(f'report: {report(str(path), [best]).resolve().as_uri()}')
    exported = export(str(path), best, to, size=_export_size(values['scale'], dataset))
    print(exported)
    return exported.path


def iterations_of(limit: float | int, batch: int, step: float, score: float, dataset: Dataset) -> int:
    """How many iterations a budget allows.

    Args:
        limit: seconds of training, validation and test together, a float; or iterations, an int.
        batch: images of an iteration.
        step, score: seconds of an iteration, and of an image that is scored.
        dataset: how many images there are.

    Raises:
        ConfigError: when that is less than one pass over the training images.
    """
    scoring = score * dataset.images['val'] * (VALIDATIONS + 2)  # the test and the report score as well
    iterations = limit if isinstance(limit, int) else int((limit - scoring) / step)
    epoch = math.ceil(dataset.images['train'] / batch)
    if iterations < epoch:
        least = f'{epoch} iterations' if isinstance(limit, int) else f'{math.ceil((epoch * step + scoring) / 60)}m'
        raise ConfigError(
            f'--budget lasts for {max(iterations, 0)} iterations of {batch} images, and one pass over the '
            f'{dataset.images["train"]} training images takes {epoch}: give {least} at least, or a smaller --model'
        )
    return iterations


def literal(value: str | tuple | list) -> str:
    """Text, or a list of texts or numbers, as Python writes it in a config.

    MMEngine exchanges ``{{...}}`` in a config's text before it is read as Python, which could end a string; so names
    out of a file of labels are written without braces.
    """
    return pformat(value, width=100, compact=True).replace('{', r'\x7b')


def class_weights(shares: list[float]) -> list[float]:
    """The weight of each class in the loss: the root of how much rarer it is than the mean, bounded."""
    weights = np.sqrt(1 / (len(shares) * np.maximum(shares, 1e-9)))
    return [round(float(weight), 2) for weight in np.clip(weights, *WEIGHTS)]


def _leaf(model: str) -> Config:
    names = sorted(path.stem.removesuffix('_ade20k') for path in (resources() / 'configs').glob('*_ade20k.py'))
    if model not in names:
        raise ConfigError(f'--model {model} is unknown; one of {", ".join(names)} was expected')
    return load_config(f'effseg::{model}_ade20k.py')


def _decide(leaf: Config, dataset: Dataset, weights: str | None) -> tuple[dict, list[tuple[str, str, str]]]:
    """Chooses the values of the config that the data and the device decide; gives them, and rows that say why."""
    (base,) = re.findall(r"'(_base_/models/\w+\.py)'", Path(leaf.filename).read_text())
    start, why = _start(leaf.model.backbone.init_cfg.checkpoint, weights)
    short, long = np.median(np.sort(dataset.sizes, 1), 0).round().astype(int).tolist()
    shorter = min(short, 512)
    edge = max(min(shorter, 512 if torch.cuda.is_available() else 256) // 32 * 32, 32)
    scale = (round(long * shorter / short * 2), shorter)
    rare = tuple(label for label, share in enumerate(dataset.shares) if share < RARE)
    crop = f"dict(type='RareClassCrop', classes={rare}, crop_size=crop_size, cat_max_ratio=0.75)"
    weighted = class_weights(dataset.shares)
    model = _network(_difference(leaf.model, load_config(f'effseg::{base}').model), edge, start, weighted)
    amp = _mixed_precision()
    slower = not start and leaf.model.get('neck') is not None
    wrapper = amp | (dict(optimizer=dict(lr=FPN_RATE)) if slower else {})
    values = dict(
        base=base,
        recipe='small_data' if start else 'small_data_from_scratch',
        root=literal(str(dataset.root)),
        classes=literal(tuple(dataset.classes)),
        palette=literal(dataset.palette),
        suffix=literal(dataset.suffix),
        crop=(edge, edge),
        scale=scale,
        crop_step=crop if rare else "dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75)",
        model=pformat(model, width=110, sort_dicts=False).replace('{{', r'{\x7b'),  # see literal()
        wrapper=f'optim_wrapper = {wrapper}\n' if wrapper else '',
        workers=_workers() if torch.cuda.is_available() else 2,
    )
    names = ', '.join(dataset.classes[label] for label in rare)
    rows = [
        ('weights', start or 'random', why),
        (
            'recipe',
            values['recipe'],
            'averaged weights, warm-up, early stopping' + f'; learning rate {FPN_RATE}' * slower,
        ),
        ('scale', f'shorter side {shorter}', f'images are {long} x {short} in the middle of all'),
        (
            'crop',
            f'{edge} x {edge}',
            'a multiple of 32 in the image, ' + ('of a GPU' if torch.cuda.is_available() else '256 at most on a CPU'),
        ),
        ('rare crops', names[:34] or 'none', f'classes of less than {RARE:.0%}: half of the crops show one'),
        ('class weights', f'{min(weighted)} to {max(weighted)}', f'root of the rarity, bounded to {WEIGHTS}'),
        (
            'precision',
            'bfloat16' if amp else 'float32',
            'mixed, as the device has it' if amp else 'of a device without bfloat16',
        ),
        (
            'workers',
            str(values['workers']),
            'load images: ' + ('one less than the cores, 8 at most' if torch.cuda.is_available() else 'the CPU trains'),
        ),
    ]
    return values, rows


def _network(model: dict, edge: int, start: str | None, weights: list[float]) -> dict:
    """What the config says of the model besides its base config.

    Args:
        model: what the shipped config says so.
        edge: of the crop, in pixels.
        start: the ImageNet weights; None for random ones.
        weights: of each class in the loss.
    """
    model['data_preprocessor'] = dict(size=(edge, edge))
    pretrained = dict(type='Pretrained', checkpoint=start) if start else None
    model['backbone'].update(resolution=edge // 32, init_cfg=pretrained)
    model.setdefault('decode_head', {}).update(
        num_classes=len(weights),
        norm_cfg=dict(type='SyncBN' if torch.cuda.is_available() else 'BN', requires_grad=True),
        # avg_non_ignore fails in MMSegmentation 1.4.2 beside class_weight
        loss_decode=dict(class_weight=weights),
    )
    return model


def _workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(min(cores - 1, MOST_WORKERS), 1)


def _mixed_precision() -> dict:
    """The config's optimizer wrapper on a device that multiplies in bfloat16, nothing elsewhere."""
    if torch.cuda.is_available():
        return dict(type='AmpOptimWrapper', dtype='bfloat16') if gpu_has_bfloat16() else {}
    return dict(type='CPUAmpOptimWrapper') if cpu_has_bfloat16() else {}


def _start(name: str, weights: str | None) -> tuple[str | None, str]:
    """Where ImageNet weights come from, if from anywhere, and why."""
    if weights:
        if not Path(weights).is_file():
            raise ConfigError(f'--weights {weights} is no file')
        return str(Path(weights).resolve()), 'ImageNet weights in a file'
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    if isinstance(try_to_load_from_cache(name, 'model.safetensors'), str):
        return name, 'ImageNet weights, fetched before'
    reason = 'HF_HUB_OFFLINE is set'
    try:
        if not constants.HF_HUB_OFFLINE:
            get_session().head(
                f'{constants.ENDPOINT}/{name}/resolve/main/model.safetensors', timeout=5
            ).raise_for_status()
            return name, 'ImageNet weights of the hub, which can be reached'
    except Exception as error:  # whatever the network raises, there are no weights
        reason = type(error).__name__
    return None, f'the hub cannot be reached ({reason}): expect less; --weights FILE gives ImageNet weights'


def _difference(ours: dict, base: dict) -> dict:
    """What ``ours`` says besides ``base``."""
    found = {}
    for key, value in ours.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            value = _difference(value, base[key])
            if not value:
                continue
        elif key in base and base[key] == value:
            continue
        found[key] = value.to_dict() if hasattr(value, 'to_dict') else value
    if 'backbone' in ours:
        found.setdefault('backbone', {})
    return found


def _write(path: Path, values: dict, batch: int, iterations: int, interval: int) -> None:
    warmup = max(min(iterations // 10, 100), 1)
    write(path, TEXT.format(**values, batch=batch, iterations=iterations, interval=interval, warmup=warmup))


def _batch(path: Path, values: dict) -> tuple[int, float, float]:
    """Finds the largest batch that fits, and measures the seconds of an iteration and of an image to score."""
    batch = 32 if torch.cuda.is_available() else 8
    while True:
        _write(path, values, batch, iterations=1000, interval=100)
        cfg = load_config(str(path))
        check_datasets(cfg, ('train_dataloader', 'val_dataloader'))  # of a folder that was converted before
        try:
            return batch, *measure(cfg)
        except torch.cuda.OutOfMemoryError:
            if batch == 2:
                raise
            torch.cuda.empty_cache()
            batch //= 2


def _export_size(scale: tuple[int, int], dataset: Dataset) -> tuple[int, int]:
    """(height, width) of the median image at the config's scale, rounded up to multiples of 32."""
    width, height = np.median(dataset.sizes, 0) * scale[1] / np.median(dataset.sizes.min(1))
    return math.ceil(height / 32 - 0.01) * 32, math.ceil(width / 32 - 0.01) * 32
