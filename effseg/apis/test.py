"""Scoring a checkpoint, through MMEngine's Runner and MMSegmentation's IoUMetric."""

from numbers import Real
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import MODELS
from PIL import Image
from torch import nn

from ..datasets.check.quick import check_datasets
from ..engine.config import dataset_of, load_config, of_config
from ..engine.ema import without_average
from ..engine.protect import protect
from ..engine.runner import build_runner, named_errors
from ..errors import ConfigError
from ..files import check_name
from ..outputs import OutputFolder
from ..segmentors.artifact import AS_CONFIG, is_artifact, of_photos
from ..segmentors.network import speed
from .opening import open_segmenter
from .predict import output_names


class LabelMapHook(Hook):
    """Writes every predicted label map as an 8-bit PNG, named as :func:`effseg.apis.predict.output_names` names its
    image, in the numbers of the data set's own label maps.

    MMSegmentation's metric does so as well, and loses the axes of an image that is one pixel high or wide.

    Args:
        folder: made if missing; label maps of an earlier call are replaced, files of others are not.

    Raises:
        ConfigError: when a label map would replace a file of somebody else's, such as the true label map.
    """

    def __init__(self, folder: str):
        self.output = OutputFolder(folder)

    def before_test(self, runner) -> None:
        data = runner.test_dataloader.dataset
        images = dict.fromkeys(Path(data.get_data_info(index)['img_path']) for index in range(len(data)))
        self.names = {image: f'{name}.png' for image, name in output_names([*images]).items()}
        if is_main_process():
            self.output.claim(self.names.values())
        barrier()

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for sample in outputs:
            labels = sample.pred_sem_seg.data[0].cpu().numpy() + bool(sample.get('reduce_zero_label', False))
            Image.fromarray(labels.astype(np.uint8)).save(self.output.path / self.names[Path(sample.img_path)])


def test(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    fused: bool = False,
    protection: bool = True,
    fit: str | None = None,
    precision: str = 'fp32',
) -> dict[str, float]:
    """Scores a trained segmenter on its config's test data; returns the metrics by name, in percent.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        checkpoint: a file this project or MMSegmentation trained, an original ADE20K checkpoint, or an exported
            artifact.
        work_dir: for the log.
        out: a folder for the predicted label maps.
        show_dir: a folder for overlay images.
        tta: average over the scales and flips of the config's ``tta_pipeline``.
        launcher: see :func:`effseg.engine.runner.build_runner`.
        fused: score the fused form of the model.
        protection: see :func:`effseg.apis.train.train`.
        fit: of an artifact alone, instead of its own fit: another one, or ``'config'``, which takes its images through
            the config's test pipeline as a checkpoint's, larger ones in windows.
        precision: of the fused form, see :meth:`effseg.apis.opening.Segmenter.fused`.
    """
    cfg = load_config(config, cfg_options, work_dir)
    dataset_of(cfg, 'test_dataloader')
    check_datasets(cfg, ('test_dataloader',))
    if show_dir:
        check_name(Path(show_dir).absolute())
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = show_dir
    exported = is_artifact(checkpoint)
    if fit and not exported:
        raise ConfigError(f'--fit {fit} is for exported files, and {checkpoint} is a checkpoint; leave it out')
    if tta:
        _check_tta(cfg, fused, fit)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        fit = AS_CONFIG
    if exported and fit != AS_CONFIG:
        cfg = of_photos(cfg)
    cfg.load_from = None
    with of_config('custom_hooks'):
        cfg.custom_hooks = without_average(cfg.get('custom_hooks') or [])

    def opened() -> nn.Module:
        segmenter = open_segmenter(cfg, checkpoint, fused, fit=fit, precision=precision)
        if not tta:
            return segmenter.model
        # test-time augmentation averages logits, which only artifacts and the network as it was trained give
        averaged = segmenter.model if exported else segmenter.trained
        if exported and averaged.artifact.spec.decided:
            raise ConfigError(f'--tta averages logits, and {checkpoint} returns labels; export it with --output logits')
        return MODELS.build(dict(cfg.tta_model, module=averaged))

    runner = build_runner(protect(cfg) if protection else cfg, launcher, opened)
    if out:
        runner.register_hook(LabelMapHook(out))
    with named_errors():
        metrics = runner.test()
    print('  '.join(f'{name} {value:.2f}' for name, value in metrics.items() if isinstance(value, Real)))
    if rate := speed(runner.model):
        print(rate)
    if protocol := getattr(getattr(runner.model, 'module', runner.model), 'protocol', ''):
        print(f'scored {protocol}')
    return metrics


def _check_tta(cfg: Config, fused: bool, fit: str | None) -> None:
    if fused:
        raise ConfigError('--tta averages full-size logits, which --fused never makes; give one of them')
    if fit not in (None, AS_CONFIG):
        raise ConfigError(f'--tta resizes images by the config, and --fit {fit} by itself; give one of them')
    if not (cfg.get('tta_pipeline') and cfg.get('tta_model')):
        raise ConfigError(f"--tta needs 'tta_pipeline' and 'tta_model' in {cfg.filename}")
