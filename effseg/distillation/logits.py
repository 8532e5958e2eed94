"""Distillation of logits: a small segmenter learns what a trained one makes of each pixel, labelled or not."""

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.utils import SampleList, add_prefix
from torch import Tensor, nn

from ..checkpoint.load import load_segmentor
from ..engine.config import build_model, load_config
from ..errors import ConfigError
from .whole_images import WholeImages


class Teacher:
    """A trained segmenter, in eval mode and without gradients.

    Args:
        config: of the teacher, path or ``effseg::NAME.py``.
        checkpoint: its trained weights.
        cache_gb: GB of logits of whole images kept, as :class:`~effseg.distillation.whole_images.WholeImages` does;
            None for a teacher that sees each crop.
    """

    def __init__(self, config: str, checkpoint: str, cache_gb: float | None = None):
        self.checkpoint = checkpoint
        cfg = load_config(config)
        self.model = build_model(cfg)
        load_segmentor(self.model, checkpoint)
        self.model.eval().requires_grad_(False)
        self.whole_images = None if cache_gb is None else WholeImages(self.model, cfg, cache_gb)

    @torch.no_grad()
    def logits(self, inputs: Tensor, preprocessor: nn.Module) -> Tensor:
        """What the teacher makes of a batch: (N, classes, h, w).

        Args:
            inputs: (N, 3, H, W), normalised for the student.
            preprocessor: the student's data preprocessor.
        """
        own = self.model.to(inputs.device).data_preprocessor
        (mean, std, swaps), (own_mean, own_std, own_swaps) = _normalisation(preprocessor), _normalisation(own)
        images = inputs * std + mean
        if swaps != own_swaps:
            images = images.flip(1)
        return self.model((images - own_mean) / own_std, mode='tensor')


def _normalisation(preprocessor: nn.Module) -> tuple[Tensor | float, Tensor | float, bool]:
    """Mean and standard deviation of a data preprocessor, and whether it exchanges blue and red."""
    # MMEngine's own attribute, and MMSegmentation 1.2's
    swaps = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False))
    return getattr(preprocessor, 'mean', 0.0), getattr(preprocessor, 'std', 1.0), swaps


@MODELS.register_module()
class DistilledEncoderDecoder(EncoderDecoder):
    """MMSegmentation's EncoderDecoder, which also learns the logits of a trained segmenter of the same classes.

    The loss is Hinton et al.'s (https://arxiv.org/abs/1503.02531) at every pixel of the logits' grid, pixels without a
    label included: T^2 KL(teacher / T, student / T). Weights and names are EncoderDecoder's, so that the checkpoint is
    an ordinary one, and testing opens no teacher.

    Args:
        teacher: ``config`` and ``checkpoint`` of any segmenter of MMSegmentation. With ``cache_gb`` too it sees each
            image whole and once, as far as that many GB of logits reach, and no crop; the training pipeline then has
            :class:`~effseg.datasets.transforms.TrackPixels`.
        distill_weight: of the loss, beside the heads' own losses.
        temperature: T; above 1 the teacher's lesser guesses count for more.
        options: EncoderDecoder's.

    Raises:
        ConfigError: for a head that gives one logit for two classes, or computes its loss in a way of its own.
    """

    def __init__(self, teacher: dict, distill_weight: float = 1.0, temperature: float = 1.0, **options):
        super().__init__(**options)
        if set(teacher) - {'cache_gb'} != {'config', 'checkpoint'}:
            raise ConfigError(
                f'teacher takes config, checkpoint and perhaps cache_gb; {", ".join(teacher) or "nothing"} came'
            )
        cache_gb = teacher.get('cache_gb')
        if cache_gb is not None and not (isinstance(cache_gb, (int, float)) and cache_gb >= 0):
            raise ConfigError(f'teacher.cache_gb={cache_gb!r} must be a number of GB, or None')
        if distill_weight < 0 or temperature <= 0:
            raise ConfigError(
                f'distill_weight={distill_weight} must be 0 or more, and temperature={temperature} more than 0'
            )
        if self.decode_head.out_channels < 2 or type(self.decode_head).loss is not BaseDecodeHead.loss:
            raise ConfigError(
                f'{type(self.decode_head).__name__} cannot be distilled: its logits must be one map per class, and its '
                'loss must be of the logits alone'
            )
        self.distill_weight, self.temperature = distill_weight, temperature
        self.options = dict(teacher)
        self._teacher: list[Teacher] = []  # in a list, where torch sees no part of this model

    def init_weights(self) -> None:
        """As EncoderDecoder's, which training alone calls; a teacher that cannot be used ends it here."""
        super().init_weights()
        self.teacher()

    def teacher(self) -> Teacher:
        """The teacher, opened at the first call.

        Raises:
            ConfigError: when it has another number of classes.
            EffsegError: when it cannot be opened.
        """
        if not self._teacher:
            teacher = Teacher(**self.options)
            theirs, ours = teacher.model.out_channels, self.out_channels
            if theirs != ours:
                raise ConfigError(
                    f'the teacher {teacher.checkpoint} gives {theirs} classes and this model {ours}; '
                    'they must be the same'
                )
            seen = 'each crop' if teacher.whole_images is None else 'whole images, once each'
            print_log(f'distilled from {teacher.checkpoint}, which sees {seen}', logger='current')
            self._teacher = [teacher]
        return self._teacher[0]

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """The heads' own losses, and ``distill.loss_kl``.

        Args:
            inputs: (N, 3, H, W), normalised.
            data_samples: with ``gt_sem_seg``.
        """
        maps = self.extract_feat(inputs)
        logits = self.decode_head(maps)
        losses = add_prefix(self.decode_head.loss_by_feat(logits, data_samples), 'decode')
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(maps, data_samples))
        teacher = self.teacher()
        if teacher.whole_images is None:
            expected = teacher.logits(inputs, self.data_preprocessor)
            expected = resize(expected, logits.shape[2:], mode='bilinear', align_corners=self.align_corners)
            inside = torch.ones_like(logits[:, 0], dtype=torch.bool)
        else:
            expected, inside = teacher.whole_images.at(data_samples, inputs, (logits.shape[2], logits.shape[3]))
        losses['distill.loss_kl'] = self.distill_weight * divergence(logits, expected, self.temperature, inside)
        return losses


def divergence(logits: Tensor, expected: Tensor, temperature: float, inside: Tensor) -> Tensor:
    """T^2 KL(expected / T, logits / T), in float32, the mean over the pixels inside.

    Args:
        logits, expected: (N, classes, h, w).
        temperature: T.
        inside: (N, h, w) bool, the pixels that count.
    """
    ours, theirs = (F.log_softmax(x.float() / temperature, 1) for x in (logits, expected))
    per_pixel = F.kl_div(ours, theirs, reduction='none', log_target=True).sum(1)
    return temperature**2 * (per_pixel * inside).sum() / inside.sum().clamp(min=1)
