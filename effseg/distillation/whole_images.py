"""What a teacher makes of whole images, once for each, found again behind the crops and flips of a training."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmseg.utils import SampleList
from torch import Tensor, nn

from ..engine.config import of_config
from ..engine.protect import protect_transforms
from ..errors import ConfigError


class WholeImages:
    """The logits of a segmenter for the images of a training, through the segmenter's own test pipeline.

    They are computed in the training's precision and kept as float16 on the CPU.

    Which images are kept changes how long a training takes, not what it learns: it resumes to the same weights.

    Args:
        model: the segmenter, in eval mode.
        cfg: its config.
        cache_gb: of logits kept, in GB; those of further images are computed at every visit.
    """

    def __init__(self, model: nn.Module, cfg: Config, cache_gb: float):
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        with of_config('test pipeline'):
            steps = cfg.get('test_pipeline') or cfg.test_dataloader.dataset.pipeline
            # protected, it loads no label map of an image that has none
            self.pipeline = Compose(protect_transforms(steps, 'the teacher', []))
        self.model, self.free, self.full = model, int(cache_gb * 1e9), False
        self._kept: dict[str, Tensor] = {}

    def logits(self, path: str) -> Tensor:
        """What the segmenter makes of an image file: (classes, h, w), float16, over the whole image.

        Raises:
            ConfigError: where the segmenter's test pipeline pads images.
        """
        if path in self._kept:
            return self._kept[path]
        logits = self._computed(path)
        if logits.nbytes <= self.free:
            self.free -= logits.nbytes
            self._kept[path] = logits
        elif not self.full:
            self.full = True
            print_log(
                f'teacher.cache_gb holds the logits of {len(self._kept)} images, {logits.nbytes / 1e6:.1f} MB each: '
                'the teacher computes those of further images at every visit',
                logger='current',
                level=logging.WARNING,
            )
        return logits

    @torch.no_grad()
    def _computed(self, path: str) -> Tensor:
        sample = self.pipeline(dict(img_path=path))
        batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        inputs = self.model.data_preprocessor(batch)['inputs']
        padded = any(type(step).__name__ == 'Pad' for step in self.pipeline.transforms)
        if padded or inputs.shape[2:] != sample['inputs'].shape[1:]:
            raise ConfigError(
                "the teacher's test pipeline or data_preprocessor.test_cfg pads images, whose logits then do not lie "
                'over the image: put ResizeToMultiple in the place of the padding, or leave cache_gb out'
            )
        return self.model(inputs, mode='tensor')[0].half().cpu()

    def at(self, samples: SampleList, inputs: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The logits at the cells of a grid over each of a batch's crops.

        Args:
            samples: with ``img_path``, ``img_shape`` and TrackPixels' ``pixels``.
            inputs: (N, 3, H, W), the crops, the smaller ones padded at the right and below.
            size: (h, w) of the grid.

        Returns:
            (N, classes, h, w) float32, and (N, h, w) bool: where the image is.

        Raises:
            ConfigError: for a pipeline that does not track pixels, or in which a step loses track.
        """
        self.model.to(inputs.device)
        found = [self._at(sample, inputs, size) for sample in samples]
        logits, inside = (torch.stack(part) for part in zip(*found))
        return logits, inside

    def _at(self, sample, inputs: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        pixels = _tracked(sample.metainfo)
        height, width = pixels.shape[:2]
        places = torch.from_numpy(pixels).to(inputs.device).permute(2, 0, 1)
        places = F.pad(places, (0, inputs.shape[3] - width, 0, inputs.shape[2] - height), value=np.nan)
        grid = F.adaptive_avg_pool2d(places, size).permute(1, 2, 0)  # the middle of each cell
        inside = (grid.abs() <= 1).all(-1)
        grid = grid.masked_fill(~inside[..., None], 0)
        whole = self.logits(sample.metainfo['img_path']).to(inputs.device).float()
        # border: half a cell at the edge of the map lies outside of its outermost centers
        return F.grid_sample(whole[None], grid[None], padding_mode='border', align_corners=False)[0], inside


def _tracked(meta: dict) -> np.ndarray:
    """The places (H, W, 2) of a sample's pixels in its image, as :class:`~effseg.datasets.transforms.TrackPixels` notes
    them.

    Args:
        meta: the sample's metainfo.

    Raises:
        ConfigError: where there are none, or of another size than the crop.
    """
    if 'pixels' not in meta:
        raise ConfigError(
            "teacher.cache_gb needs dict(type='TrackPixels') behind the loading of the training pipeline, and 'pixels' "
            "and 'img_path' in the meta_keys of its PackSegInputs"
        )
    if meta['pixels'].shape[:2] != tuple(meta['img_shape'][:2]):
        raise ConfigError(
            f'a step of the training pipeline made an image of {tuple(meta["img_shape"][:2])} and left pixels of '
            f'{meta["pixels"].shape[:2]}: it cannot be tracked (mosaics and paddings cannot); a teacher without '
            'cache_gb sees each crop'
        )
    return meta['pixels']
