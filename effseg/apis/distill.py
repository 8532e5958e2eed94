"""A backbone that starts from what a pretrained network of timm sees, learnt from images without labels."""

from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.model import is_model_wrapper

from ..checkpoint.safetensors import write_safetensors
from ..datasets.images import IMAGE_SUFFIXES
from ..datasets.wrapped import leaves
from ..engine.config import dataset_of, load_config
from ..engine.progress import say
from ..engine.protect import protect
from ..engine.runner import build_runner, named_errors
from ..errors import ConfigError
from ..outputs import OutputFolder
from .predict import find_images
from .train import mixed_precision

BACKBONE = 'backbone.safetensors'
LABELS = ('LoadAnnotations', 'LoadLabelMap')


def distill(
    config: str,
    teacher: str,
    images: str | None = None,
    teacher_weights: str | None = None,
    work_dir: str | None = None,
    resume: bool = False,
    amp: bool = False,
    cfg_options: dict | None = None,
) -> Path:
    """Trains the backbone of a config to give the maps of a teacher, by the config's optimizer, schedule and crops.

    Args:
        config: path, or ``effseg::NAME.py``; its decode head is left out.
        teacher: name of a timm network with maps at the strides 4, 8, 16 and 32.
        images: a folder, read with all its subfolders; the config's training images when left out.
        teacher_weights: a file in timm's names; the weights that timm fetches when left out.
        work_dir: for logs and checkpoints, see :func:`effseg.engine.config.load_config`.
        resume: continue from the newest checkpoint of ``work_dir``.
        amp: see :func:`effseg.apis.train.train`.
        cfg_options: overrides of the config.

    Returns:
        ``backbone.safetensors`` in ``work_dir``, for ``model.backbone.init_cfg.checkpoint``.

    Raises:
        EffsegError: for a config, teacher or images that cannot be used, and a ``backbone.safetensors`` of somebody
            else's in ``work_dir``.
    """
    cfg = load_config(config, cfg_options, work_dir)
    if images is not None:
        find_images([images])
    if teacher_weights is not None and not Path(teacher_weights).is_file():
        raise ConfigError(f'--teacher-weights {teacher_weights} is no file')
    backbone = {key: value for key, value in cfg.model.backbone.items() if key != 'init_cfg'}
    preprocessor = cfg.model.data_preprocessor
    cfg = protect(_without_labels(cfg, images))
    cfg.model = ConfigDict(
        type='FeatureDistiller',
        backbone=backbone,
        teacher=teacher,
        teacher_weights=teacher_weights,
        data_preprocessor=preprocessor,
    )
    cfg.resume = resume
    if amp:
        mixed_precision(cfg)
    folder = OutputFolder(cfg.work_dir)
    folder.check([BACKBONE])  # before hours of training, not behind them
    runner = build_runner(cfg)
    say(f'teaching the backbone of {config} the maps of {teacher}: logs and checkpoints in {cfg.work_dir}')
    with named_errors():
        runner.train()
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    folder.claim([BACKBONE])
    write_safetensors(folder.path / BACKBONE, model.backbone.state_dict())
    return folder.path / BACKBONE


def _without_labels(cfg: Config, images: str | None) -> Config:
    """The config, changed to train on images alone: without label maps and validation."""
    datasets = list(leaves(dataset_of(cfg, 'train_dataloader')))
    head = cfg.model.decode_head
    ignored = (head[0] if isinstance(head, list) else head).get('ignore_index', 255)
    for dataset in datasets:
        dataset.pipeline = [_unlabelled(step, ignored) for step in dataset.pipeline]
    if images is not None:
        cfg.train_dataloader.dataset = ConfigDict(
            type='BaseSegDataset',
            data_prefix=dict(img_path=images),
            img_suffix=(*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)),
            metainfo=dict(classes=('image',), palette=[[0, 0, 0]]),
            pipeline=datasets[0].pipeline,
        )
    for split in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'{split}_{part}'] = None
    cfg.tta_pipeline = None
    if isinstance(cfg.default_hooks.get('checkpoint'), dict):
        cfg.default_hooks.checkpoint.save_best = None
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or () if 'monitor' not in hook]
    return cfg


def _unlabelled(step: dict, ignored: int) -> dict:
    """A transform of a pipeline that looks at labels, in the form that needs none."""
    if step['type'] in LABELS:
        return dict(type='Unlabelled', ignore_index=ignored)
    if step['type'] in ('RandomCrop', 'RareClassCrop'):
        return dict(type='RandomCrop', crop_size=step['crop_size'])
    return step
