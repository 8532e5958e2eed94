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
        axes: of the image and of the logits; :func:`effseg.deploy.interface.axes` has those of the file.
        divisor: the runtime has already subtracted the mean and divided all channels by this.
        compare: find the label by arithmetic instead of argmax and comparison, for runtimes that delegate the former
            only.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: Spec,
        axes: tuple[str, str] = ('NHWC', 'NCHW'),
        compare: bool = False,
        divisor: float | None = None,
    ):
        super().__init__()
        self.network = network
        self.spec = spec
        self.size = (spec.height, spec.width)
        self.labels, self.whole = spec.output == 'labels', PRESETS[spec.preset].whole
        self.align_corners = spec.align_corners
        # what a logit must exceed for its sigmoid to exceed the threshold
        self.bar = None if spec.threshold is None else math.log(spec.threshold / (1 - spec.threshold))
        self.axes = axes
        self.compare = compare
        self.divisor = divisor
        self.register_buffer('mean', torch.tensor(spec.mean).reshape(1, 3, 1, 1))
        self.register_buffer('scale', (divisor or 1) / torch.tensor(spec.std).reshape(1, 3, 1, 1))
        self.register_buffer('index', torch.arange(len(spec.classes), dtype=torch.float32))

    def forward(self, image: Tensor) -> Tensor:
        """
        Args:
            image: (N, H, W, 3) RGB, 0-255, float32 or uint8, or with other ``axes``. Phones take N = 1.

        Returns:
            Logits (N, channels, h, w), or with other ``axes``; or labels (N, H, W): int32, or whole float32 with
            ``compare``.
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
        if self.bar is not None:
            if not self.compare:
                return (logits > self.bar).reshape(image.shape[0], *self.size).to(torch.int32)
            return step(logits - self.bar).reshape(image.shape[0], *self.size)
        if self.compare:
            # channels last: of maps with one channel ExecuTorch loses track of the layout, and copies them outside of
            # the delegate
            return largest(logits.permute(0, 2, 3, 1), self.index).reshape(image.shape[0], *self.size)
        return logits.argmax(1).to(torch.int32)


def step(x: Tensor) -> Tensor:
    """1 where ``x`` is positive, else 0, by the clamp that all runtimes delegate; in half precision as well, where a
    larger factor would be infinite, and infinity times 0 no number."""
    x = torch.clamp(F.relu(x), -1, 1)
    for _ in range(3):
        x = torch.clamp(x * _STEP, -1, 1)
    return x


def largest(values: Tensor, index: Tensor) -> Tensor:
    """``values.argmax(3, keepdim=True)`` as float32, by halving: each half's winners meet until one is left.

    Args:
        values: (1, H, W, C).
        index: (C,), the numbers 0 to C - 1.
    """
    while (count := values.shape[3]) > 1:
        half = (count + 1) // 2
        a, b = values[..., : count - half], values[..., half:]
        ia, ib = index[..., : count - half], index[..., half:]
        winners, index_of = torch.maximum(a, b), ia + step(b - a) * (ib - ia)  # the lower half wins a tie, as in argmax
        if half > count - half:
            odd = values[..., count - half : half]
            winners = torch.cat([winners, odd], 3)
            index_of = torch.cat([index_of, index[..., count - half : half] + 0.0 * odd], 3)
        values, index = winners, index_of
    return index


class Unfused(nn.Module):
    """MMSegmentation's model as it was trained, under the name that :class:`Program` calls."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.decoder = model.eval().backbone, Decoder(model)

    def logits(self, x: Tensor) -> Tensor:
        """(1, 3, H, W) normalised -> (1, classes, h, w)."""
        return self.decoder(self.backbone(x))
