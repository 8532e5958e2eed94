"""One way to label a picture, whatever computes it: the trained model, its fused form, or an artifact."""

import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from ..checkpoint.load import load_segmentor
from ..engine.config import dataset_of, load_config, of_config
from ..errors import ArtifactError, ConfigError
from ..segmentors.artifact import is_artifact, use_artifact
from ..segmentors.network import fused_segmentor, label_segmentor


class Labeller:
    """A segmenter that is ready for pictures of any size. Made by :func:`open_labeller`.

    Attributes:
        model: MMSegmentation's model, or what stands in its place; has ``cfg`` and ``dataset_meta``.
        classes: names, by label.
        palette: (classes, 3) uint8, by label.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.classes = list(model.dataset_meta['classes'])
        self.palette = np.array(model.dataset_meta['palette'], dtype=np.uint8)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """
        Args:
            picture: (H, W, 3) uint8, RGB.

        Returns:
            (H, W) uint8 labels, through the config's test pipeline.
        """
        from mmseg.apis import inference_model

        return (
            inference_model(self.model, np.ascontiguousarray(picture[..., ::-1]))
            .pred_sem_seg.data[0]
            .cpu()
            .numpy()
            .astype(np.uint8)
        )

    def overlay(self, picture: np.ndarray, labels: np.ndarray, opacity: float) -> np.ndarray:
        """The colours of the labels over the picture: (H, W, 3) uint8, RGB; opacity 0 to 1."""
        return (picture * np.float32(1 - opacity) + self.palette[labels] * np.float32(opacity)).astype(np.uint8)

    def label_image(self, labels: np.ndarray) -> Image.Image:
        """The labels as 8-bit class numbers with the palette, to be saved as PNG."""
        image = Image.frombytes('P', labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
        image.putpalette(self.palette.flatten().tolist())
        return image


def open_labeller(
    config: str, weights: str, fused: bool = False, cfg_options: dict | None = None, device: str | None = None
) -> Labeller:
    """Opens a checkpoint or an artifact.

    Args:
        config: path, or ``effseg::NAME.py``.
        weights: a checkpoint, or an exported artifact.
        fused: fuse the checkpoint's model.
        cfg_options: overrides of the config.
        device: ``'cpu'``, ``'cuda'``, ...; the GPU if there is one when left out. Artifacts run where their runtime
            runs them.

    Raises:
        EffsegError: for a config, checkpoint or artifact that cannot be used.
    """
    if not is_artifact(weights):
        model = build_segmentor(config, weights, cfg_options, device)
        # neither makes logits of the photo's size, which would not fit for a large one
        return Labeller(fused_segmentor(model) if fused else label_segmentor(model))
    if fused:
        raise ConfigError(f'{weights} is an artifact and cannot be fused; tools/export.py fused it when it was written')
    from mmseg.registry import MODELS

    cfg = load_config(config, cfg_options)
    meta = dataset_meta(cfg)
    use_artifact(cfg, weights)
    model = MODELS.build(cfg.model).eval()
    check_classes(model.artifact.spec.classes, meta['classes'], weights, config)
    model.cfg, model.dataset_meta = cfg, meta
    return Labeller(model)


def check_classes(came: tuple[str, ...], expected: tuple[str, ...], weights: str, config: str) -> None:
    """
    Raises:
        ArtifactError: when an artifact's classes are not the data set's.
    """
    if tuple(came) != tuple(expected):
        differing = next(
            (f'{own!r} where the config has {other!r}' for own, other in zip(came, expected) if own != other),
            'the first ones agree',
        )
        raise ArtifactError(
            f'{Path(weights).name} has {len(came)} classes and {config} {len(expected)} ({differing}); use the '
            'config it was exported with'
        )


def build_segmentor(
    config: str, checkpoint: str, cfg_options: dict | None = None, device: str | None = None
) -> nn.Module:
    """A trained segmenter in eval mode, as MMSegmentation's ``inference_model`` takes it.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights.
        cfg_options: overrides of the config.
        device: ``'cpu'``, ``'cuda'``, ...; the GPU if there is one when left out.

    Returns:
        The model, with ``cfg`` and ``dataset_meta`` (classes and palette).

    Raises:
        EffsegError: for a config or checkpoint that cannot be used.
    """
    from mmseg.registry import MODELS

    cfg = load_config(config, cfg_options)
    meta = dataset_meta(cfg)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about the loss of a training, which this is not
        with of_config('model'):
            model = MODELS.build(cfg.model)
    load_segmentor(model, checkpoint)
    model.cfg, model.dataset_meta = cfg, meta
    try:
        return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {device} cannot be used: {str(error).splitlines()[0]}; give 'cpu', 'cuda' or 'cuda:N'"
        ) from error


def dataset_meta(cfg: Config) -> dict:
    """``classes`` and ``palette`` of a config's test data.

    Raises:
        ConfigError: when the config has none, or a data set that cannot be built.
    """
    from mmseg.registry import DATASETS

    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with of_config('test_dataloader.dataset'):
        return DATASETS.build(dict(dataset_of(cfg, 'test_dataloader'), lazy_init=True, pipeline=[])).metainfo
