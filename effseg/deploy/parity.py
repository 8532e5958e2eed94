"""The proof of an artifact: the file that was written, run by its runtime on real images, against the unfused torch
model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ParityError
from .program import Program
from .spec import Spec


@dataclass(frozen=True)
class Threshold:
    """What an artifact of a precision must reach.

    Attributes:
        difference: largest allowed difference of a logit, relative to the largest logit of the images; None: not
            bounded.
        agreement: smallest allowed share of pixels with the same label.
    """

    difference: float | None
    agreement: float


THRESHOLDS = {
    # fp32 sums of a few thousand products in another order, through twenty layers: seen 1e-5; ExecuTorch's own bound is
    # 1e-3
    'fp32': Threshold(1e-3, 0.999),
    # eleven bits of mantissa; Core ML's own bound for fp16 is a hundred times that for fp32
    'fp16': Threshold(1e-1, 0.99),
    # judged by the task's metric (tools/test.py); below this the file is broken, not imprecise
    'int8': Threshold(None, 0.90),
}


@dataclass(frozen=True)
class Parity:
    """The numbers of a proof.

    Attributes:
        images: how many were compared.
        largest, mean: absolute difference of the logits; None for artifacts that return labels.
        scale: the largest absolute logit of the reference.
        agreement: share of the pixels with the same label.
        pixels: how many were compared.
        miou, source_miou: of the artifact and of its source, in percent, on those images that have masks; None without
            any.
    """

    images: int
    largest: float | None
    mean: float | None
    scale: float
    agreement: float
    pixels: int
    miou: float | None = None
    source_miou: float | None = None

    def __str__(self):
        logits = (
            ''
            if self.largest is None
            else (
                f'largest logit difference {self.largest:.2e}, mean {self.mean:.2e} (largest logit {self.scale:.1f}); '
            )
        )
        score = (
            '' if self.miou is None else f'; mIoU on them {self.miou:.2f}, of the trained model {self.source_miou:.2f}'
        )
        return (
            f'{logits}same label at {100 * self.agreement:.4f} % of {self.pixels} pixels of {self.images} images{score}'
        )

    def as_dict(self) -> dict:
        return asdict(self)


def compare(
    run: Callable[[np.ndarray], np.ndarray],
    network: torch.nn.Module,
    spec: Spec,
    images: Iterable[np.ndarray],
    masks: Sequence[np.ndarray] = (),
) -> Parity:
    """Runs both on every image.

    Args:
        run: the artifact; (H, W, 3) uint8 -> logits (classes, H / 4, W / 4) or labels (H, W).
        network: the reference, see :class:`~effseg.deploy.program.Program`.
        spec: of the artifact.
        images: (H, W, 3) uint8 RGB.
        masks: (H, W) labels of the first images; what is no class is ignored.

    Raises:
        ParityError: when the artifact returns another shape, or a value that is not a number.
    """
    reference = Program(network, spec).eval()
    reference.labels = False
    largest = total = scale = 0.0
    same = count = pixels = values = 0
    confusion, own_confusion = np.zeros((2, len(spec.classes), len(spec.classes)), dtype=np.int64)
    for count, image in enumerate(images, 1):
        result = run(image)
        if result.shape != spec.result_shape or not np.isfinite(result).all():
            raise ParityError(
                f'the artifact returned {result.shape} where {spec.result_shape} was expected'
                if result.shape != spec.result_shape
                else 'the artifact returned values that are not numbers'
            )
        with torch.no_grad():
            logits = reference(torch.from_numpy(image[None]))
        scale = max(scale, logits.abs().max().item())
        if spec.output == 'logits':
            came = torch.from_numpy(np.array(result))[None]
            difference = (came.double() - logits.double()).abs()
            largest, total, values = (
                max(largest, difference.max().item()),
                total + difference.sum().item(),
                values + difference.numel(),
            )
            labels = _labels(came, spec)
        else:
            labels = torch.from_numpy(np.array(result))[None]
        expected = _labels(logits, spec)
        if count <= len(masks):
            confusion += _confusion(labels, masks[count - 1], len(spec.classes))
            own_confusion += _confusion(expected, masks[count - 1], len(spec.classes))
        agree = labels == expected
        same, pixels = same + int(agree.sum()), pixels + agree.numel()
    measured = spec.output == 'logits' and count > 0
    return Parity(
        count,
        largest if measured else None,
        total / values if measured else None,
        scale,
        same / max(pixels, 1),
        pixels,
        *((_miou(confusion), _miou(own_confusion)) if confusion.any() else ()),
    )


def judge(parity: Parity, precision: str) -> None:
    """
    Raises:
        ParityError: when the numbers do not reach the threshold of the precision, or nothing was compared.
    """
    threshold = THRESHOLDS[precision]
    if not parity.images:
        raise ParityError('there was no image to compare the artifact on')
    too_far = (
        parity.largest is not None
        and threshold.difference is not None
        and parity.largest > threshold.difference * max(parity.scale, 1)
    )
    if too_far or parity.agreement < threshold.agreement:
        bound = '' if threshold.difference is None else f'logits within {threshold.difference:g} of the largest, '
        raise ParityError(
            f'the artifact does not compute what the trained model computes: {parity}. {precision} needs {bound}'
            f'the same label at {100 * threshold.agreement:g} % of the pixels. No file was written'
        )


def _labels(logits: torch.Tensor, spec: Spec) -> torch.Tensor:
    return F.interpolate(logits, size=(spec.height, spec.width), mode='bilinear', align_corners=False).argmax(1)


def _confusion(labels: torch.Tensor, mask: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class and label."""
    known = mask < classes
    pairs = mask[known].astype(np.int64) * classes + labels[0].numpy().astype(np.int64)[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _miou(confusion: np.ndarray) -> float:
    """Percent, over the classes that occur in mask or labels."""
    both = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float(100 * np.mean(confusion.diagonal()[both > 0] / both[both > 0]))
