"""The one way to a segmenter that is ready for images: from a checkpoint, its fused form, or an exported file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from ..checkpoint.load import load_segmentor
from ..datasets.wrapped import leaves
from ..engine.config import build_model, dataset_of, load_config, of_config
from ..engine.optim import check_bfloat16
from ..errors import ArtifactError, ConfigError, first_line
from ..segmentors.artifact import FittedSegmentor, artifact_segmentor, is_artifact
from ..segmentors.confidence import UNKNOWN, check_bound, confidence_of
from ..segmentors.network import LabelSegmentor, fused_segmentor, label_segmentor


class Segmenter:
    """A segmenter that labels images of any size; made by :func:`open_segmenter`, which is ``effseg.open``.

    Args:
        model: MMSegmentation's model or what stands in its place; has ``cfg`` and ``dataset_meta``.
        trained: MMSegmentation's model as it was trained, in eval mode; None for an artifact.

    Attributes:
        model: as given; goes into MMSegmentation's ``inference_model`` and test loop.
        cfg: the config.
        classes: names, by label.
        palette: (classes, 3) uint8 RGB, by label.
        unknown_below: labels whose probability is smaller become :data:`~effseg.segmentors.confidence.UNKNOWN`; None
            for none.
    """

    unknown_below: float | None = None

    def __init__(self, model: nn.Module, trained: nn.Module | None = None):
        self.model, self._trained, self.cfg = model, trained, model.cfg
        self.classes = list(model.dataset_meta['classes'])
        self.palette = np.array(model.dataset_meta['palette'], dtype=np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The label of every pixel, through the config's test pipeline; of an artifact by its fit: (H, W) uint8.

        Args:
            image: (H, W, 3) uint8, RGB.
        """
        if self.unknown_below is not None:
            labels, confidence = self.confident(image)
            return np.where(confidence < self.unknown_below, np.uint8(UNKNOWN), labels)
        if isinstance(self.model, FittedSegmentor):
            return self.model.artifact.labels(image, self.model.fit).astype(np.uint8)
        return self._inferred(image).pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)

    def confident(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The label of every pixel and its probability, the softmax or sigmoid of the logits at the photo's size. These
        are made whole of checkpoints, large photos included.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            (H, W) uint8, and (H, W) float32, 0 to 1.

        Raises:
            ConfigError: for an artifact or a model that gives labels alone.
        """
        if isinstance(self.model, FittedSegmentor):
            labels, confidence = self.model.artifact.confident(image, self.model.fit)
            return labels.astype(np.uint8), confidence
        self.with_confidence()
        sample = self._inferred(image)
        likely = confidence_of(sample.to_dict())[0]
        return sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8), likely.float().cpu().numpy()

    def with_confidence(self) -> None:
        """Lets the model's predictions in MMSegmentation's test loop have what confidence is made of."""
        if isinstance(self.model, FittedSegmentor):
            self.model.confident = True
        elif isinstance(self.model, LabelSegmentor):
            self.model.full_logits = True

    def _inferred(self, image: np.ndarray):
        from mmseg.apis import inference_model

        return inference_model(self.model, np.ascontiguousarray(image[..., ::-1]))  # BGR, as pipelines read files

    def count(self, labels: np.ndarray) -> np.ndarray:
        """Counts the pixels of each class; the last number is of those that are
        :data:`~effseg.segmentors.confidence.UNKNOWN`."""
        counts = np.bincount(labels.ravel(), minlength=UNKNOWN + 1)
        return np.append(counts[: len(self.classes)], counts[UNKNOWN])

    @property
    def trained(self) -> nn.Module:
        """MMSegmentation's model as it was trained, in eval mode.

        Raises:
            ConfigError: for an artifact.
        """
        if self._trained is None:
            raise ConfigError(
                f'{self.model.artifact.path} is an artifact, out of which no network can be taken: it can neither be '
                'fused nor exported again; give the checkpoint that it was made from'
            )
        return self._trained

    def fused(self, precision: str = 'fp32') -> 'Segmenter':
        """The same segmenter with its network fused, at the size of the first image.

        Args:
            precision: ``'fp32'``, or ``'bf16'``: faster where the device has it, and not the same label everywhere.

        Raises:
            ConfigError: for an artifact, and a device that bfloat16 is slower on.
            FuseError: for a network that has no exact fused form.
        """
        if precision != 'fp32':
            check_bfloat16(next(self.trained.parameters()).device)
        return Segmenter(fused_segmentor(self.trained, precision == 'bf16'), self.trained)

    def overlay(self, image: np.ndarray, labels: np.ndarray, opacity: float = 0.5) -> np.ndarray:
        """The colors of the labels over the image: (H, W, 3) uint8, RGB.

        Args:
            image: (H, W, 3) uint8, RGB.
            labels: (H, W).
            opacity: of the colors, 0 to 1.
        """
        mixed = (image * np.float32(1 - opacity) + self._colors()[labels] * np.float32(opacity)).astype(np.uint8)
        return np.where((labels == UNKNOWN)[..., None], image, mixed) if self.unknown_below is not None else mixed

    def label_image(self, labels: np.ndarray) -> Image.Image:
        """The labels (H, W) as 8-bit class numbers with the palette, to be saved as PNG."""
        image = Image.frombytes('P', labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
        # of a shorter palette Pillow writes so few bits that UNKNOWN does not fit
        image.putpalette((self.palette if self.unknown_below is None else self._colors()).flatten().tolist())
        return image

    def _colors(self) -> np.ndarray:
        colors = np.zeros((UNKNOWN + 1, 3), np.uint8)
        colors[: len(self.palette)] = self.palette
        return colors


def open_segmenter(
    config: str | Config,
    weights: str | None = None,
    fused: bool = False,
    cfg_options: dict | None = None,
    device: str | None = None,
    fit: str | None = None,
    precision: str = 'fp32',
    unknown_below: float | None = None,
) -> Segmenter:
    """Opens a trained segmenter, its fused form, or an exported file.

    Args:
        config: path, ``effseg::NAME.py``, or a config that was read already.
        weights: a checkpoint, or an artifact of ``tools/export.py``; random weights when left out.
        fused: fuse the checkpoint's network, at the size of the first image.
        cfg_options: overrides of the config, ``{'key.subkey': value}``.
        device: ``'cpu'``, ``'cuda'``, ...; the GPU if there is one when left out. Artifacts run where their runtime
            runs them.
        fit: in MMSegmentation's test loop, another one than the artifact's: see
            :func:`effseg.segmentors.artifact.artifact_segmentor`.
        precision: of a fused network, see :meth:`Segmenter.fused`.
        unknown_below: probability, 0 to 1, see :class:`Segmenter`.

    Raises:
        EffsegError: for a config, checkpoint, artifact or device that cannot be used.
    """
    check_bound(unknown_below)
    if precision != 'fp32' and not fused:
        raise ConfigError('--precision bf16 is of fused networks alone: add --fused, or export a file of it')
    cfg = config if isinstance(config, Config) else load_config(config, cfg_options)
    meta = dataset_meta(cfg)
    if weights is not None and is_artifact(weights):
        model = artifact_segmentor(cfg, weights, fit).eval()
        check_classes(model.artifact.spec.classes, meta['classes'], weights, str(cfg.filename))
        model.cfg, model.dataset_meta = cfg, meta
        segmenter = Segmenter(model)
    else:
        trained = _trained(cfg, weights, meta, device)
        # neither this nor the fused form makes logits of the photo's size, which would not fit for a large one
        segmenter = Segmenter(label_segmentor(trained), trained)
    segmenter = segmenter.fused(precision) if fused else segmenter
    segmenter.unknown_below = unknown_below
    return segmenter


def dataset_meta(cfg: Config) -> dict:
    """``classes`` and ``palette`` of a config's test data.

    Raises:
        ConfigError: when the config has none, more than 256 classes, or a data set that cannot be built.
    """
    from mmseg.registry import DATASETS

    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with of_config('test_dataloader.dataset'):
        dataset = next(leaves(dataset_of(cfg, 'test_dataloader')))
        meta = DATASETS.build(dict(dataset, lazy_init=True, pipeline=[])).metainfo
    missing = [name for name in ('classes', 'palette') if not meta.get(name)]
    if missing:
        raise ConfigError(
            f'test_dataloader.dataset names no {" and no ".join(missing)}: give it metainfo=dict(classes=("sky", ...), '
            'palette=[[110, 180, 230], ...])'
        )
    if len(meta['classes']) > 256:
        raise ConfigError(
            f'test_dataloader.dataset names {len(meta["classes"])} classes; labels have 8 bits, so 256 at most'
        )
    return meta


def check_classes(came: Sequence[str], expected: Sequence[str], weights: str, config: str) -> None:
    """Raises ArtifactError when an artifact's classes are not the data set's."""
    if tuple(came) != tuple(expected):
        differing = next(
            (f'{own!r} where the config has {other!r}' for own, other in zip(came, expected) if own != other),
            'the first ones agree',
        )
        raise ArtifactError(
            f'{Path(weights).name} has {len(came)} classes and {config} {len(expected)} ({differing}); use the config '
            'it was exported with'
        )


def _trained(cfg: Config, checkpoint: str | None, meta: dict, device: str | None) -> nn.Module:
    model = build_model(cfg)
    if checkpoint is not None:
        load_segmentor(model, checkpoint)
    model.cfg, model.dataset_meta = cfg, meta
    return to_device(model, device).eval()


def to_device(module: nn.Module, device: str | None) -> nn.Module:
    """Puts a module on a device; the GPU if there is one when that is None.

    Raises:
        ConfigError: for a device that is not there.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"--device {device} cannot be used: {first_line(error)}; give 'cpu', 'cuda' or 'cuda:N'"
        ) from error
