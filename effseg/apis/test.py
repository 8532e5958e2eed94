"""Scoring a checkpoint, through MMEngine's Runner and MMSegmentation's IoUMetric."""

from numbers import Real
from pathlib import Path

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from PIL import Image

from ..checkpoint.load import load_segmentor
from ..datasets.check.quick import check_datasets
from ..deploy import load
from ..engine.config import dataset_of, load_config
from ..engine.protect import protect
from ..engine.runner import build_runner, named_errors
from ..errors import ConfigError
from ..outputs import OutputFolder
from ..segmentors.artifact import is_artifact, use_artifact
from ..segmentors.network import fused_segmentor, label_segmentor, speed
from .segmenter import check_classes, dataset_meta


class LabelMapHook(Hook):
    """Writes every predicted label map as an 8-bit PNG, named after its image, in the numbers of the data set's own
    label maps.

    MMSegmentation's metric does so as well, and loses the axes of a picture that is one pixel high or wide.

    Args:
        folder: made if missing; label maps of an earlier call are replaced, files of others are not.

    Raises:
        ConfigError: when a label map would replace a file of somebody else's, such as the true label map.
    """

    def __init__(self, folder: str):
        self.folder = Path(folder).resolve()

    def before_test(self, runner) -> None:
        data = runner.test_dataloader.dataset
        if is_main_process():
            OutputFolder(self.folder).claim(self._name(data.get_data_info(index)) for index in range(len(data)))
        barrier()

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for sample in outputs:
            labels = sample.pred_sem_seg.data[0].cpu().numpy() + bool(sample.get('reduce_zero_label', False))
            Image.fromarray(labels.astype(np.uint8)).save(self.folder / self._name(sample))

    @staticmethod
    def _name(sample) -> str:
        return f'{Path(sample.get("img_path")).stem}.png'


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
) -> dict[str, float]:
    """Scores a trained segmenter on its config's test data.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: a file this project or MMSegmentation trained, an original ADE20K checkpoint, or an exported
            artifact.
        work_dir: for the log.
        out: a folder for the predicted label maps.
        show_dir: a folder for overlay pictures.
        tta: average over the scales and flips of the config's ``tta_pipeline``.
        cfg_options: overrides of the config.
        launcher: see :func:`effseg.engine.runner.build_runner`.
        fused: score the fused form of the model.
        protection: see :func:`effseg.apis.train.train`.

    Returns:
        The metrics by name, in percent.

    Raises:
        EffsegError: for a config, data set or checkpoint that cannot be used.
    """
    cfg = load_config(config, cfg_options, work_dir)
    dataset_of(cfg, 'test_dataloader')
    check_datasets(cfg, ('test_dataloader',))
    if show_dir:
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = show_dir
    artifact = is_artifact(checkpoint)
    if fused and artifact:
        raise ConfigError(
            f'{checkpoint} is an artifact and cannot be fused; tools/export.py fused it when it was written'
        )
    if fused and tta:
        raise ConfigError('--tta averages full-size logits, which --fused never makes; give one of them')
    if artifact:
        check_classes(load(checkpoint).spec.classes, dataset_meta(cfg)['classes'], checkpoint, config)
        use_artifact(cfg, checkpoint)
    if tta:
        if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
            raise ConfigError(f"--tta needs 'tta_pipeline' and 'tta_model' in {config}")
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(cfg.tta_model, module=cfg.model)
    cfg.load_from = None
    runner = build_runner(protect(cfg) if protection else cfg, launcher)
    if out:
        runner.register_hook(LabelMapHook(out))
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not artifact:
        load_segmentor(model, checkpoint)
        if not tta:
            runner.model = fused_segmentor(model.eval()) if fused else label_segmentor(model)
    with named_errors():
        metrics = runner.test()
    print('  '.join(f'{name} {value:.2f}' for name, value in metrics.items() if isinstance(value, Real)))
    if rate := speed(runner.model):
        print(rate)
    return metrics
