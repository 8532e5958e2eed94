"""The one wrapper that is exported: an RGB image in, logits or labels out, the normalisation inside.

Its operators are those that every runtime takes into its accelerated part; ``docs/deploy.md`` lists them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fusion.trained import Decoder
from .presets import PRESETS
from .spec import Spec

# Half precision holds no larger power of two. Three times, it makes one of any difference of two float32 logits that
# matters.
_STEP = 2.0**15


class Program(nn.Module):
    """An image of one fixed size through a segmenter.

    Args:
        network: has ``logits(x)``: (1, 3, H, W) normalised -> (1, classes, h, w).
        spec: sizes, normalisation and output.
        axes: of the image and of the logits in the file, see :func:`effseg.deploy.interface.axes`; when left out, of no
            file, but to be looked at in torch.
        divisor: the runtime has already subtracted the mean and divided all channels by this.
        compare: find the label by arithmetic instead of argmax and comparison, for runtimes that delegate the former
            only.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: Spec,
        axes: tuple[str, str] | None = None,
        compare: bool = False,
        divisor: float | None = None,
    ):
        super().__init__()
        self.network = network
        self.spec = spec
        self.size = (spec.height, spec.width)
        self.labels, self.whole = spec.decided, PRESETS[spec.preset].whole
        self.align_corners = spec.align_corners
        # what a logit must exceed for its sigmoid to exceed the threshold
        self.bar = None if spec.threshold is None else math.log(spec.threshold / (1 - spec.threshold))
        self.axes = axes or ('NHWC', 'NCHW')
        self.in_file = axes is not None
        self.compare = compare
        self.divisor = divisor
        self.register_buffer('mean', torch.tensor(spec.mean).reshape(1, 3, 1, 1))
        self.register_buffer('scale', (divisor or 1) / torch.tensor(spec.std).reshape(1, 3, 1, 1))
        self.register_buffer('index', torch.arange(len(spec.classes), dtype=torch.float32))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """
        Args:
            image: (N, H, W, 3) RGB, 0-255, float32 or uint8, or with other ``axes``. Phones take N = 1.

        Returns:
            Logits (N, channels, h, w), or with other ``axes``; or labels (N, H, W): int32, or whole float32 with
            ``compare``; or these and their confidence (N, H, W), of no file as one tensor (N, 2, H, W).
        """
        x = image if image.dtype == torch.float32 else image.float()
        # contiguous: or tracing takes the whole network for channels-last, and ExecuTorch leaves its copies out of the
        # delegate
        x = x if self.axes[0] == 'NCHW' else x.permute(0, 3, 1, 2).contiguous()
        logits = self.network.logits((x if self.divisor else x - self.mean) * self.scale)
        if self.labels or self.whole:
            logits = F.interpolate(logits, size=self.size, mode='bilinear', align_corners=self.align_corners)
        if not self.labels:
            if self.spec.channels > logits.shape[1]:
                logits = torch.cat([logits * 0 + self.bar, logits], 1)
            return logits if self.axes[1] == 'NCHW' else logits.permute(0, 2, 3, 1).contiguous()
        labels, confidence = (self._of_one if self.bar is not None else self._of_many)(logits)
        shape = image.shape[0], *self.size
        labels = labels.reshape(shape) if self.compare else labels.reshape(shape).to(torch.int32)
        if not self.spec.confident:
            return labels
        confidence = confidence.reshape(shape)
        return (labels, confidence) if self.in_file else torch.stack([labels.float(), confidence], 1)

    def _of_one(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and their probability of logits of one channel, at the image's size."""
        assert self.bar is not None
        labels = step(logits - self.bar) if self.compare else (logits > self.bar).float()
        if not self.spec.confident:
            return labels, labels
        # whole numbers beside a map are casts, which ExecuTorch leaves outside of its delegate
        return labels, torch.sigmoid(logits * (labels * 2.0 - 1.0))

    def _of_many(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and their probability of logits of a channel per class, at the image's size."""
        # one over the sum of exponentials is the largest of the softmax, without the others, which take most of the
        # time
        if not self.compare:
            labels = logits.argmax(1)
            if not self.spec.confident:
                return labels, labels
            size = torch.rsqrt(torch.exp(logits - logits.amax(1, keepdim=True)).sum(1))
            return labels, size * size
        # channels last: of maps with one channel ExecuTorch loses track of the layout, and copies them outside of the
        # delegate, and takes a softmax along another axis
        values = logits.permute(0, 2, 3, 1)
        labels, winners = largest(values, self.index)
        if not self.spec.confident:
            return labels, winners
        size = torch.rsqrt(total(torch.exp(values - winners)))
        return labels, size * size


def step(x: Tensor) -> Tensor:
    """1 where ``x`` is positive, else 0, by the clamp that all runtimes delegate; in half precision as well, where a
    larger factor would be infinite, and infinity times 0 no number."""
    x = torch.clamp(F.relu(x), -1, 1)
    for _ in range(3):
        x = torch.clamp(x * _STEP, -1, 1)
    return x


def largest(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The class of a pixel's largest logit, as float32, and that logit (``values.amax(3, keepdim=True)``), by halving:
    each half's winners meet until one is left. Of equal logits one wins, not always the first, as argmax has it.

    Args:
        values: (1, H, W, C).
        index: (C,), the numbers 0 to C - 1.
    """
    while (count := values.shape[3]) > 1:
        half = (count + 1) // 2
        a, b = values[..., : count - half], values[..., half:]
        ia, ib = index[..., : count - half], index[..., half:]
        winners, index_of = torch.maximum(a, b), ia + step(b - a) * (ib - ia)  # the lower half wins a tie
        if half > count - half:
            odd = values[..., count - half : half]
            winners = torch.cat([winners, odd], 3)
            index_of = torch.cat([index_of, index[..., count - half : half] + 0.0 * odd], 3)
        values, index = winners, index_of
    return index, values


def total(values: Tensor) -> Tensor:
    """``values.sum(3, keepdim=True)`` of (1, H, W, C), adding one half to the other until one is left."""
    while (count := values.shape[3]) > 1:
        half = (count + 1) // 2
        sums = values[..., : count - half] + values[..., half:]
        values = sums if half == count - half else torch.cat([sums, values[..., count - half : half]], 3)
    return values


class Unfused(nn.Module):
    """MMSegmentation's model as it was trained, under the name that :class:`Program` calls."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.decoder = model.eval().backbone, Decoder(model)

    def logits(self, x: Tensor) -> Tensor:
        """(1, 3, H, W) normalised -> (1, classes, h, w)."""
        return self.decoder(self.backbone(x))
