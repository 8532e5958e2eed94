"""Takes a segmenter's place in MMSegmentation's test loop, trained or fused, and gives labels without making logits of
the image's size."""

import functools
import logging
import time
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..deploy.program import Unfused
from ..errors import FuseError
from ..fusion.labels import Crop, Resize, label_map
from ..fusion.segmentor import FusedSegmentor, InBfloat16, check_model, fuse
from ..fusion.trained import deciding_head
from ..timing import MB, peak_memory, wait_for
from .windows import LARGEST, WINDOW, at_size, is_large, label_in_windows

Steps = list[Resize | Crop]
SAMPLED_STEPS = 4  # whose peak memory is measured; measuring takes time


class LabelSegmentor(EncoderDecoder):
    """Stands in for MMSegmentation's EncoderDecoder in testing; its predictions have ``pred_sem_seg``, and no
    ``seg_logits``.

    With ``test_cfg.mode='whole'`` full-size logits never exist. With ``'slide'`` they are what MMSegmentation averages,
    so they are made as it makes them. Images of more than :data:`~effseg.segmentors.windows.LARGEST` pixels go
    through in windows in both modes, which is said.

    Args:
        model: the trained EncoderDecoder; its data preprocessor, ``test_cfg``, ``cfg`` and ``dataset_meta`` go over.
        network: has ``logits(x)``: (N, 3, H, W) normalised -> (N, classes, h, w).

    Attributes:
        full_logits: whether predictions have ``seg_logits`` all the same.
        images: how many went through ``test_step``.
        seconds: that it took.
        peak: bytes that an image took at most, beside the weights; sampled on the first few, None where it cannot be
            known.
    """

    def __init__(self, model: EncoderDecoder, network: nn.Module):
        # past EncoderDecoder's constructor, which builds the network that is already there
        BaseSegmentor.__init__(self, data_preprocessor=model.data_preprocessor)
        self.network = network
        self.test_cfg, self.train_cfg = model.test_cfg, None
        self.align_corners = model.align_corners
        self.num_classes, self.out_channels = model.num_classes, model.out_channels
        # its threshold is all that postprocess_result reads of the head
        self.decode_head = SimpleNamespace(threshold=deciding_head(model).threshold)
        for name in ('cfg', 'dataset_meta'):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.full_logits = False
        self.images, self.seconds, self._steps = 0, 0.0, 0
        self.peak: int | None = None
        self.eval()

    def test_step(self, data: dict) -> list[SegDataSample]:
        """As MMEngine's; measures how long it takes."""
        started = time.perf_counter()
        if self._steps < SAMPLED_STEPS:
            with peak_memory(self.data_preprocessor.device) as peak:
                samples = super().test_step(data)
            # the first step may build the network, which is not what an image takes
            if self._steps < 2 or self.peak is None or peak.bytes is None:
                self.peak = peak.bytes
            else:
                self.peak = max(self.peak, peak.bytes)
        else:
            samples = super().test_step(data)
        wait_for(self.data_preprocessor.device)
        self.seconds += time.perf_counter() - started
        self.images += len(samples)
        self._steps += 1
        return samples

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """
        Args:
            inputs: (N, 3, H, W) normalised.
            data_samples: say how each image came to its size, as MMSegmentation's pipelines note it.

        Returns:
            The samples, with ``pred_sem_seg`` (1, H, W) at the size of the photo: ``ori_shape``, or that of ``inputs``.
        """
        large = is_large(inputs.shape[2:])
        if self.full_logits or (self.test_cfg.get('mode', 'whole') != 'whole' and not large):
            return super().predict(inputs, data_samples)
        logits: Any = None if large else self.network.logits(inputs)
        samples = data_samples if data_samples is not None else [SegDataSample() for _ in inputs]
        for index, sample in enumerate(samples):
            steps: Steps = [Resize(*inputs.shape[2:])]
            if data_samples is not None:
                steps = resize_steps(samples[0].metainfo, sample.metainfo)
            if large:
                say_windows(WINDOW)
                labels = at_size(label_in_windows(inputs[index : index + 1], self._label_whole), steps)
            else:
                labels = label_map(logits[index : index + 1], steps, self.align_corners, self.decode_head.threshold)
            labels = unflipped(labels, sample.metainfo if data_samples is not None else {})
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
        return samples

    def _label_whole(self, inputs: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, H, W)."""
        return label_map(
            self.network.logits(inputs), [Resize(*inputs.shape[2:])], self.align_corners, self.decode_head.threshold
        )

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """(N, 3, H, W) of one window -> (N, classes, H, W), for MMSegmentation's ``slide_inference``."""
        size = _input_size(batch_img_metas[0])
        return F.interpolate(self.network.logits(inputs), size=size, mode='bilinear', align_corners=self.align_corners)


def _input_size(meta: dict) -> tuple[int, int]:
    """The size that MMSegmentation's head resizes its logits to."""
    if isinstance(meta['img_shape'], torch.Size) or 'pad_shape' not in meta:
        return tuple(meta['img_shape'][:2])
    return tuple(meta['pad_shape'][:2])


def resize_steps(first: dict, meta: dict) -> Steps:
    """What MMSegmentation does to the logits of an image on their way to its labels.

    Args:
        first: metainfo of the batch's first image, which decides the padded size of all.
        meta: metainfo of the image.
    """
    height, width = _input_size(first)
    left, right, top, bottom = (
        meta['img_padding_size'] if 'img_padding_size' in meta else meta.get('padding_size', [0] * 4)
    )
    crop = Crop(top, left, height - bottom - top, width - right - left)
    return [Resize(height, width), crop, Resize(*meta['ori_shape'][:2])]


@functools.cache
def say_windows(size: tuple[int, int]) -> None:
    """Says once in a process that large images are not labelled as MMSegmentation would."""
    print_log(
        f'images of more than {LARGEST} pixels are labelled in windows of {size[0]}x{size[1]}, of each of which '
        'the middle is kept',
        logger='current',
        level=logging.WARNING,
    )


def unflipped(labels: Tensor, meta: dict) -> Tensor:
    if not meta.get('flip'):
        return labels
    return labels.flip(2 if meta['flip_direction'] == 'horizontal' else 1)


class _Fused(nn.Module):
    """A network that is fused at the size of the first image, which the others mostly have as well."""

    def __init__(self, model: EncoderDecoder, bfloat16: bool):
        super().__init__()
        check_model(model)
        self.network: FusedSegmentor | InBfloat16 | None = None
        self.bfloat16 = bfloat16
        self._waiting = [model]  # in a list, so that it is no part of this module

    def logits(self, x: Tensor) -> Tensor:
        if self.network is None:
            network = fuse(self._waiting.pop(), tuple(x.shape[2:]))
            print_log('\n'.join(network.parts), logger='current')
            self.network = InBfloat16(network) if self.bfloat16 else network
        return self.network.logits(x)


def label_segmentor(model: nn.Module) -> nn.Module:
    """Wraps a trained model so that it finds labels without logits of the image's size; gives the model itself where it
    finds labels in a way of its own."""
    head = getattr(model, 'decode_head', None)
    kept = isinstance(head, BaseDecodeHead) and all(
        getattr(type(head), name) is getattr(BaseDecodeHead, name) for name in ('predict', 'predict_by_feat')
    )
    if type(model) is not EncoderDecoder or not kept:
        return model
    return LabelSegmentor(model, Unfused(model))


def fused_segmentor(model: nn.Module, bfloat16: bool = False) -> LabelSegmentor:
    """The fused form of a trained model in eval mode, in its place; built for the size of the first image.

    Args:
        model: MMSegmentation's EncoderDecoder.
        bfloat16: compute in it.

    Raises:
        FuseError: when the model has no exact fused form.
    """
    if not isinstance(model, EncoderDecoder):
        raise FuseError(f'a {type(model).__name__} cannot be fused; an EncoderDecoder was expected')
    return LabelSegmentor(model, _Fused(model, bfloat16))


def speed(model: nn.Module) -> str:
    """Images per second and peak memory of the images that went through ``model``; empty for one that has no clock."""
    if not getattr(model, 'images', 0):
        return ''
    memory = 'unknown on this system' if model.peak is None else f'{model.peak / MB:.0f} MB'
    device = model.data_preprocessor.device
    where = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'{torch.get_num_threads()} threads'
    return (
        f'{model.images / model.seconds:.2f} images/s in the model and its labels ({where}), '
        f'peak memory of an image {memory}'
    )
