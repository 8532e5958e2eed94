"""What an artifact is compared with: the labels that the trained model's own ``predict`` gives.

Nothing of the export takes part in it: normalisation, resize and decision are MMSegmentation's.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, ParityError
from ..fusion.segmentor import check_logits
from ..fusion.trained import deciding_head
from .program import Unfused
from .spec import Spec


class Reference:
    """What the trained model makes of images, by MMSegmentation's own preprocessing, ``predict`` and post-processing.

    An image is one piece, as it is to the file: a config's ``test_cfg.mode='slide'`` is left out.

    Args:
        model: MMSegmentation's model with its data preprocessor.
        spec: of the artifact.
        images: (H, W, 3) uint8 RGB of the spec's size.
        masks: (H, W) labels of the first images; what is no class is ignored.

    Attributes:
        labels: (H, W) of every image.
        confidence: (H, W) of every image: the probability of its labels, of a spec whose file returns it.
        grid: (h, w) of the logits.

    Raises:
        ConfigError: when the model has other classes than the spec, or its preprocessing changes the size of images.
        FuseError: when its head returns something else than one tensor of logits.
        ParityError: when it gives values that are not numbers.
    """

    def __init__(self, model: nn.Module, spec: Spec, images: Sequence[np.ndarray], masks: Sequence[np.ndarray] = ()):
        check_classes(model, spec)
        self.model = copy.copy(model.eval())
        self.model.test_cfg = type(model.test_cfg)(mode='whole')
        self.images, self.masks = images, masks
        self.grid = tuple(self.logits(0).shape[1:])
        self.confidence: list[np.ndarray] = []
        self.labels = [self._predict(image, spec) for image in images]
        if any(labels.shape != image.shape[:2] for labels, image in zip(self.labels, images)):
            raise ConfigError('data_preprocessor.test_cfg changes the size of images, which an artifact does not')

    @torch.no_grad()
    def _predict(self, image: np.ndarray, spec: Spec) -> np.ndarray:
        (sample,) = self.model.predict(self._inputs(image))
        if not sample.seg_logits.data.isfinite().all():
            raise ParityError(
                'the trained model itself gives values that are not numbers, with which no file can be compared; its '
                'training diverged, or the checkpoint is damaged'
            )
        if spec.confident:
            likely = probability(sample.seg_logits.data, sample.pred_sem_seg.data)
            self.confidence.append(likely[0].cpu().numpy())
        return sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)

    @torch.no_grad()
    def logits(self, number: int) -> np.ndarray:
        """(channels, h, w) of an image, before the resize."""
        logits = Unfused(self.model).logits(self._inputs(self.images[number]))
        check_logits(logits, deciding_head(self.model))
        return logits[0].cpu().numpy()

    def only(self, numbers: Sequence[int]) -> 'Reference':
        """A reference of some of the images, in the order of ``numbers``, without masks."""
        other = copy.copy(self)
        for name in ('images', 'labels', *(['confidence'] if self.confidence else [])):
            setattr(other, name, [getattr(self, name)[number] for number in numbers])
        other.masks = ()
        return other

    def labelled(self, labels: list[np.ndarray]) -> 'Reference':
        """A reference of the same images that expects other labels (H, W)."""
        other = copy.copy(self)
        other.labels, other.masks = labels, ()
        return other

    def showing_most(self, count: int) -> 'Reference':
        """A reference of so many images, chosen one by one by how many classes they add to those chosen before."""
        left, seen = list(range(len(self.images))), set[int]()
        chosen: list[int] = []
        classes = [set(np.unique(labels).tolist()) for labels in self.labels]
        while left and len(chosen) < count:
            best = max(left, key=lambda number: len(classes[number] - seen))
            left.remove(best)
            chosen.append(best)
            seen |= classes[best]
        return self.only(chosen)

    def _inputs(self, image: np.ndarray) -> torch.Tensor:
        # OpenCV's order, in which MMSegmentation loads files
        bgr = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        return self.model.data_preprocessor(dict(inputs=[bgr], data_samples=[_Sample()]), False)['inputs']


class _Sample:
    """What a data preprocessor that pads notes its padding on."""

    def set_metainfo(self, metainfo: dict) -> None:
        pass


def check_classes(model: nn.Module, spec: Spec) -> None:
    """Raises ConfigError when a model's head decides between other classes than the spec names."""
    head = deciding_head(model)
    channels = len(spec.classes) if spec.threshold is None else 1
    if (head.num_classes, head.out_channels) != (len(spec.classes), channels):
        raise ConfigError(
            f'the head has num_classes={head.num_classes} and out_channels={head.out_channels}, the data set '
            f'{len(spec.classes)} classes; train or load a model whose decode_head.num_classes is that of the data'
        )


def probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability of every label of MMSegmentation's ``predict``: (1, H, W), 0 to 1.

    Args:
        logits: (C, H, W), its ``seg_logits``; of one channel they are the sigmoid already.
        labels: (1, H, W), its ``pred_sem_seg``.
    """
    likely = logits.softmax(0) if len(logits) > 1 else torch.cat([1 - logits, logits])
    return likely.gather(0, labels.long())
