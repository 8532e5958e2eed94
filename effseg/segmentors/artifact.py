"""An artifact in the place of the model: MMSegmentation's test loop and IoUMetric score the file itself, on the photo
as an app does, or through the config's test pipeline as a checkpoint is scored."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from ..deploy import Artifact, load
from ..deploy.backends import SUFFIXES
from ..deploy.fit import fill_of
from ..deploy.spec import normalisation
from ..errors import ArtifactError, ConfigError
from ..fusion.labels import label_map
from .network import resize_steps, say_windows, unflipped
from .windows import at_size, is_large, label_in_windows

AS_CONFIG = 'config'  # in the place of a fit: images go through the config's test pipeline
# what changes the size of an image in a test pipeline
SIZING = ('Resize', 'ResizeToMultiple', 'ResizeShortestEdge', 'RandomResize', 'Pad')


def is_artifact(path: str) -> bool:
    """Whether ``path`` is named as an exported file."""
    return Path(path).suffix in SUFFIXES.values()


def artifact_segmentor(cfg: Config, path: str, fit: str | None = None) -> 'FittedSegmentor | ArtifactSegmentor':
    """Opens an artifact in the place of the model of a config.

    The data preprocessor keeps everything but the normalisation, which is inside the file.

    Args:
        cfg: the config.
        path: of the file.
        fit: how images of another size go through, instead of the file's own fit: one of
            :data:`effseg.deploy.spec.FITS`, or :data:`AS_CONFIG`.

    Raises:
        ArtifactError: for a file that cannot be run here, or that normalises otherwise than the config.
        ConfigError: when the config's test mode cannot run through windows of the file's size.
    """
    artifact = load(path)
    spec = artifact.spec
    preprocessor = dict(cfg.model.data_preprocessor)
    came = normalisation(preprocessor)
    for inside in ('mean', 'std'):
        preprocessor.pop(inside, None)
    if not all(
        value is not None and np.allclose(value, own, atol=1e-6) for value, own in zip(came, (spec.mean, spec.std))
    ):
        raise ArtifactError(
            f'{path} normalises by mean {spec.mean} and std {spec.std}, the config by {came[0]} and {came[1]}; '
            'score the file with the config it was exported with'
        )
    if not preprocessor.get('bgr_to_rgb'):
        raise ConfigError('the config feeds BGR images, artifacts take RGB: data_preprocessor.bgr_to_rgb must be True')
    if preprocessor.get('test_cfg'):
        raise ConfigError(
            'data_preprocessor.test_cfg pads behind the normalisation, which is inside the artifact; pad in the '
            'pipeline instead (ResizeToMultiple)'
        )
    if fit == AS_CONFIG:
        return ArtifactSegmentor(artifact, dict(cfg.model.test_cfg), preprocessor)
    return FittedSegmentor(artifact, fit or spec.fit, preprocessor)


def of_photos(cfg: Config) -> Config:
    """The config with test data whose images have the size of their files: a file's fit takes those, as in an app."""
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader['dataset'] = _unsized(cfg.test_dataloader['dataset'])
    cfg.test_dataloader['batch_size'] = 1  # photos of several sizes are no batch
    return cfg


def _unsized(part):
    if isinstance(part, dict):
        return type(part)({key: _unsized(value) for key, value in part.items()})
    if isinstance(part, (list, tuple)):
        return type(part)(_unsized(value) for value in part if not _sizes(value))
    return part


def _sizes(step) -> bool:
    kind = step.get('type') if isinstance(step, dict) else None
    return (kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]) in SIZING


class FittedSegmentor(EncoderDecoder):
    """MMSegmentation's segmenter around an artifact that takes images of any size by its fit; only testing is possible.

    Args:
        artifact: the loaded file.
        fit: one of :data:`effseg.deploy.spec.FITS`.
        data_preprocessor: the config's, without the normalisation.

    Attributes:
        confident: whether predictions have the ``confidence`` (1, H, W) of their labels.
    """

    confident = False

    def __init__(self, artifact: Artifact, fit: str, data_preprocessor: dict):
        # past EncoderDecoder's constructor, which builds the network that the file replaces
        BaseSegmentor.__init__(self, data_preprocessor=data_preprocessor)
        self.artifact, self.fit, self.train_cfg = artifact, fit, None

    @property
    def protocol(self) -> str:
        """How images go through, in words."""
        spec, whose = self.artifact.spec, 'as an app does'
        if self.fit != spec.fit:
            whose = f'otherwise than an app, which goes by {spec.fit}'
        return (
            f'{whose}: photos of any size by {self.fit}, {spec.height}x{spec.width}; --fit {AS_CONFIG} scores it as a '
            "checkpoint, through the config's test pipeline"
        )

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """
        Args:
            inputs: (N, 3, H, W) RGB, 0-255.
            data_samples: say how each image came to its size, should the pipeline have changed it.

        Returns:
            The samples, with ``pred_sem_seg`` (1, H, W) at the size of the photo.
        """
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        for image, sample in zip(inputs, samples):
            run = self.artifact.confident if self.confident else lambda *given: (self.artifact.labels(*given),)
            for name, one in zip(('pred_sem_seg', 'confidence'), run(_pixels(image), self.fit)):
                result = torch.from_numpy(one)[None]
                if data_samples is not None:
                    result = at_size(result, resize_steps(samples[0].metainfo, sample.metainfo))
                result = result.long() if name == 'pred_sem_seg' else result
                sample.set_data({name: PixelData(data=unflipped(result, sample.metainfo))})
        return samples


def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W), 0-255 -> (H, W, 3) uint8."""
    return image.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


class ArtifactSegmentor(EncoderDecoder):
    """MMSegmentation's segmenter around an artifact, for images of a config's test pipeline; only testing is possible.

    Images of the artifact's size, and smaller ones behind padding with the mean color, take one run. Larger ones are
    cut into overlapping windows: the logits are averaged as in MMSegmentation's ``mode='slide'``; labels, and very
    large images, go through :func:`effseg.segmentors.windows.label_in_windows`.

    Args:
        artifact: the loaded file.
        test_cfg: the config's.
        data_preprocessor: the config's, without the normalisation.

    Raises:
        ConfigError: when the config's own windows do not fit the file.
    """

    def __init__(self, artifact: Artifact, test_cfg: dict, data_preprocessor: dict):
        # past EncoderDecoder's constructor, which builds the network that the file replaces
        BaseSegmentor.__init__(self, data_preprocessor=data_preprocessor)
        self.artifact, spec = artifact, artifact.spec
        self.size = (spec.height, spec.width)
        self.num_classes, self.out_channels = len(spec.classes), spec.channels
        self.align_corners = spec.align_corners
        # its threshold is all that postprocess_result reads of the head
        self.decode_head = SimpleNamespace(threshold=spec.threshold)
        self.train_cfg = None
        self.test_cfg = Config(dict(test_cfg))._cfg_dict
        if self.test_cfg.get('mode') == 'slide':
            if any(window > own for window, own in zip(self.test_cfg.crop_size, self.size)):
                raise ConfigError(
                    f'test_cfg.crop_size={tuple(self.test_cfg.crop_size)} is larger than the {self.size} of '
                    f'{artifact.path}; export that size, or set a smaller window'
                )
        else:
            cells = (-(-side // count) for side, count in zip(self.size, spec.grid or self.size))
            stride = tuple(max(side * 2 // 3 // cell * cell, cell) for side, cell in zip(self.size, cells))
            self.test_cfg.update(crop_size=self.size, stride=stride)

    @property
    def protocol(self) -> str:
        """How images go through, in words."""
        window, stride = (tuple(self.test_cfg[name]) for name in ('crop_size', 'stride'))
        return (
            f"as a checkpoint: images of the config's test pipeline, larger ones in windows of {window} every {stride} "
            f'pixels; an app goes by {self.artifact.spec.fit}, which is scored without --fit'
        )

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predicts as MMSegmentation does; files of labels, and all files on large images, give labels alone."""
        large = data_samples is not None and is_large(inputs.shape[2:], *(one.ori_shape[:2] for one in data_samples))
        if not (large or self.artifact.spec.decided):
            return super().predict(inputs, data_samples)
        samples = [SegDataSample() for _ in inputs] if data_samples is None else data_samples
        for image, sample in zip(inputs.split(1), samples):
            meta = sample.metainfo
            steps = [] if data_samples is None else resize_steps(samples[0].metainfo, meta)
            if self.artifact.spec.decided or is_large(inputs.shape[2:]):
                if large:
                    say_windows(self.size)
                # of overlapping windows one decides: averaged labels would tie, and ties go to the lower class
                labels = at_size(label_in_windows(image, self._label, tuple(self.test_cfg.crop_size)), steps)
            else:
                logits = self.inference(image, [meta])
                labels = label_map(logits, steps, self.align_corners, self.decode_head.threshold)
            sample.set_data(dict(pred_sem_seg=PixelData(data=unflipped(labels, meta))))
        return samples

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """(N, 3, H, W) RGB 0-255 -> logits (N, channels, H, W).

        Raises:
            ConfigError: for a file that returns labels, which cannot be averaged.
        """
        if self.artifact.spec.decided:
            raise ConfigError(
                f'{self.artifact.path.name} returns labels, and logits are to be averaged; export it with '
                '--output logits'
            )
        return self.slide_inference(inputs, batch_img_metas)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """As :meth:`inference`, for a window that is not larger than the artifact."""
        return torch.stack([self._logits(image) for image in inputs])

    def _logits(self, image: Tensor) -> Tensor:
        logits = torch.from_numpy(np.array(self.artifact(self._window(image))))[None]
        logits = F.interpolate(logits, size=self.size, mode='bilinear', align_corners=self.align_corners)[0]
        return logits[:, : image.shape[1], : image.shape[2]].to(image.device)

    def _label(self, window: Tensor) -> Tensor:
        """(1, 3, h, w) -> (1, h, w), of a window that is not larger than the artifact."""
        labels = torch.from_numpy(np.array(self.artifact.labels(self._window(window[0]))))[None].long()
        return labels[:, : window.shape[2], : window.shape[3]].to(window.device)

    def _window(self, image: Tensor) -> np.ndarray:
        """The artifact's image with (3, h, w) in its corner, the rest in the mean color."""
        window = np.empty(self.artifact.spec.image_shape, dtype=np.uint8)
        window[:] = fill_of(self.artifact.spec)
        window[: image.shape[1], : image.shape[2]] = _pixels(image)
        return window
