"""The proof of an artifact: the file that was written, run by its runtime on real images, against its reference, and
what it must reach."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ParityError
from .host import label_map
from .presets import PRESETS
from .reference import Reference
from .spec import Spec


@dataclass(frozen=True)
class Threshold:
    """What an artifact of a precision must reach.

    Attributes:
        difference: largest allowed difference of a logit, relative to the largest logit of the images; None: not
            bounded.
        agreement: smallest allowed share of pixels with the same label.
        iou: smallest allowed IoU of a class, the artifact's pixels with the model's.
        share: of all pixels that a class may miss ``iou`` by, since a class of a few pixels is decided by rounding.
        confidence: largest allowed difference of a label's probability, and of its mean over all pixels.
        rounding: how many times as many labels as rounding changes may differ from those of the rounded network; None:
            not bounded.
    """

    difference: float | None
    agreement: float
    iou: float
    share: float
    confidence: tuple[float, float]
    rounding: float | None = None


THRESHOLDS = {
    # fp32 sums of a few thousand products in another order, through twenty layers: seen 1e-5, and 1e-5 of the labels;
    # ExecuTorch's own bound is 1e-3
    'fp32': Threshold(1e-3, 0.9998, 0.99, 2e-6, (1e-3, 1e-4)),
    # eleven bits of mantissa; Core ML's own bound for fp16 is a hundred times that for fp32. Of the demo's trained
    # V2-S0 99.98 % of the labels and a worst class of 99.8 % were seen. Runtimes round elsewhere than torch does, so
    # that a label which rounding decides may be another in both; a mean that is off by one changes six times as many
    'fp16': Threshold(1e-1, 0.995, 0.9, 2e-5, (0.2, 0.01), 2.0),
    # eight bits of mantissa. Of four networks trained on CamVid (V2-S0 and L1) 99.4 to 99.8 % of the labels, logits
    # within 1 to 3e-2 and a worst class of 93 % were seen; of eight sabotages these refuse seven, and leave a mean that
    # is off by one to the proof in fp32. torch alone has it, and rounds as itself
    'bf16': Threshold(1e-1, 0.985, 0.85, 1e-4, (0.6, 0.03), 0.5),
    # judged by LOSS or AGREEMENT; below this the file is broken, not imprecise. Of the same network 99.3 % of
    # the labels and 94 % were seen, calibrated on black images 84 %, on noise 98.7 % and 88 %
    'int8': Threshold(None, 0.90, 0.5, 2e-4, (1, 0.1)),
}
LOSS = 0.5  # mIoU that fp16 and int8 may cost on the images of the proof, where they have masks
AGREEMENT = 0.98  # where they have none: share of the pixels with the model's label
LEAST = 2  # pixels that every class may differ by
FEW = 10  # pixels that all may differ by where rounding changes none


@dataclass(frozen=True)
class ClassParity:
    """One class on the images of a proof.

    Attributes:
        name: of the class.
        expected: how many pixels the trained model gives it.
        found: how many the artifact gives it.
        iou: of these two sets of pixels, 0 to 1.
    """

    name: str
    expected: int
    found: int
    iou: float

    def __str__(self):
        return f'{self.name!r} IoU {100 * self.iou:.2f} ({self.expected} pixels of the model, {self.found} of the file)'

    @property
    def differing(self) -> int:
        """How many pixels only one of the two gives the class."""
        common = round((self.expected + self.found) * self.iou / (1 + self.iou))
        return self.expected + self.found - 2 * common


@dataclass(frozen=True)
class Parity:
    """The numbers of a proof.

    Attributes:
        images: how many were compared.
        largest, mean: absolute difference of the logits; None for artifacts that return labels.
        scale: the largest absolute logit of the reference; None for artifacts that return labels.
        agreement: share of the pixels with the same label.
        pixels: how many were compared.
        miou, source_miou: of the artifact and of its source, in percent, on those images that have masks; None without
            any.
        classes: those that the model or the artifact found.
        unseen: names of the classes that neither found: of them nothing is proved.
        confidence: largest and mean difference of the probability of a pixel's label from the model's; None for
            artifacts that return none.
    """

    images: int
    largest: float | None
    mean: float | None
    scale: float | None
    agreement: float
    pixels: int
    miou: float | None = None
    source_miou: float | None = None
    classes: tuple[ClassParity, ...] = ()
    unseen: tuple[str, ...] = ()
    confidence: tuple[float, float] | None = None

    @property
    def known(self) -> int:
        """How many classes there are."""
        return len(self.classes) + len(self.unseen)

    @property
    def worst(self) -> ClassParity | None:
        """The class with the lowest IoU, of those the larger one."""
        return min(self.classes, key=lambda own: (own.iou, -own.expected - own.found), default=None)

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
        worst = f'; worst class {self.worst}' if self.worst else ''
        unseen = f'; in none of them, so not compared: {", ".join(self.unseen)}' if self.unseen else ''
        if self.confidence:
            unseen += f'; confidence differs by {self.confidence[0]:.1e} at most, {self.confidence[1]:.1e} on average'
        return (
            f'{logits}same label at {100 * self.agreement:.4f} % of {self.pixels} pixels of {self.images} images'
            f'{score}{worst}{unseen}'
        )


def compare(run: Callable[[np.ndarray], np.ndarray], reference: Reference, spec: Spec) -> Parity:
    """Runs an artifact on every image of a reference.

    Args:
        run: (H, W, 3) uint8 -> what the artifact returns.
        reference: what is expected.
        spec: of the artifact.

    Raises:
        ParityError: when the artifact returns another shape, or a value that is no number or no label.
    """
    classes = len(spec.classes)
    largest = total = scale = farthest = average = 0.0
    values = 0
    both, confusion, own_confusion = np.zeros((3, classes, classes), dtype=np.int64)
    for number, (image, expected) in enumerate(zip(reference.images, reference.labels)):
        result, labels, confidence = _checked(run(image), spec)
        if spec.output == 'logits':
            logits = _in_file(reference.logits(number), spec)
            difference = np.abs(result.astype(np.float64) - logits)
            largest, scale = max(largest, float(difference.max())), max(scale, float(np.abs(logits).max()))
            total, values = total + float(difference.sum()), values + difference.size
        if confidence is not None:
            away = np.abs(confidence - reference.confidence[number])
            farthest, average = max(farthest, float(away.max())), average + float(away.mean()) / len(reference.images)
        both += _confusion(labels, expected, classes)
        if number < len(reference.masks):
            confusion += _confusion(labels, reference.masks[number], classes)
            own_confusion += _confusion(expected, reference.masks[number], classes)
    found, wanted, common = both.sum(0), both.sum(1), both.diagonal()
    pixels = int(both.sum())
    measured = values > 0
    return Parity(
        images=len(reference.images),
        largest=largest if measured else None,
        mean=total / values if measured else None,
        scale=scale if measured else None,
        agreement=int(common.sum()) / max(pixels, 1),
        pixels=pixels,
        miou=_miou(confusion) if confusion.any() else None,
        source_miou=_miou(own_confusion) if confusion.any() else None,
        classes=tuple(
            ClassParity(name, int(want), int(get), float(same / (want + get - same)))
            for name, want, get, same in zip(spec.classes, wanted, found, common)
            if want + get
        ),
        unseen=tuple(name for name, want, get in zip(spec.classes, wanted, found) if not want + get),
        confidence=(farthest, average) if spec.confident else None,
    )


def _checked(result: Any, spec: Spec) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What a file returned, its labels (H, W), and their confidence where it returns that.

    Raises:
        ParityError: see :func:`compare`.
    """
    result, confidence = result if spec.confident else (result, None)
    for came in (result,) if confidence is None else (result, confidence):
        if came.shape != spec.result_shape:
            raise ParityError(f'the artifact returned {came.shape} where {spec.result_shape} was expected')
        if not np.isfinite(came).all():
            raise ParityError('the artifact returned values that are not numbers')
    labels = labels_of(result, spec)
    if not (0 <= labels.min() and labels.max() < len(spec.classes)):
        raise ParityError(
            f'the artifact returned labels of {labels.min()} to {labels.max()} for {len(spec.classes)} classes'
        )
    return result, labels, confidence


def _in_file(logits: np.ndarray, spec: Spec) -> np.ndarray:
    """A model's logits (channels, h, w) as those that a file returns: at the image's size, and beside the threshold's,
    where its preset has them so."""
    assert spec.grid is not None  # left out, it was filled in
    if PRESETS[spec.preset].whole:
        resized = F.interpolate(
            torch.from_numpy(logits)[None], spec.grid, mode='bilinear', align_corners=spec.align_corners
        )
        logits = resized[0].numpy()
    if spec.channels > len(logits) and spec.threshold is not None:
        logits = np.concatenate([np.full_like(logits, np.log(spec.threshold / (1 - spec.threshold))), logits])
    return logits


def labels_of(result: np.ndarray, spec: Spec) -> np.ndarray:
    """The labels (H, W) that a file's labels or logits stand for."""
    if spec.output != 'logits':
        return result
    return label_map(result, (spec.height, spec.width), spec.align_corners, spec.threshold)


def check_rounding(
    run: Callable[[np.ndarray], np.ndarray], rounded: Sequence[np.ndarray], reference: Reference, spec: Spec
) -> None:
    """Refuses a file whose labels differ from the rounded network's by more than rounding explains.

    Args:
        run: of the file, see :func:`compare`.
        rounded: what the network gives in that precision for each image of the reference.
        reference: the trained model's labels.
        spec: of the file.

    Raises:
        ParityError: when more labels differ than the :class:`Threshold` of the precision allows.
    """
    factor = THRESHOLDS[spec.precision].rounding
    assert factor is not None
    labels = [labels_of(result[0] if spec.confident else result, spec).astype(np.int64) for result in rounded]
    by_rounding = sum(int((own != expected).sum()) for own, expected in zip(labels, reference.labels))
    parity = compare(run, reference.labelled(labels), spec)
    differing = round((1 - parity.agreement) * parity.pixels)
    if differing > factor * by_rounding + FEW:
        raise ParityError(
            f'the artifact does not compute what the trained model computes in {spec.precision}: {differing} of '
            f'{parity.pixels} labels differ from those of the rounded network, where rounding changes {by_rounding}; '
            f'worst class {parity.worst}. No file was written'
        )


def judge(parity: Parity, precision: str, keep_inaccurate: bool = False) -> None:
    """Refuses an artifact whose proof does not reach the threshold of its precision.

    Args:
        parity: the numbers of the proof.
        precision: of the artifact.
        keep_inaccurate: accept fp16 and int8 that cost more than their aim, see :func:`inaccuracy`.

    Raises:
        ParityError: when the numbers do not reach the threshold of the precision, or nothing was compared.
    """
    threshold = THRESHOLDS[precision]
    if not parity.images:
        raise ParityError('there was no image to compare the artifact on')
    if parity.largest is None and sum(own.expected > 0 for own in parity.classes) < 2 <= parity.known:
        raise ParityError(
            'the trained model finds one class alone in the images, so that a file that returns nothing else would '
            'pass: give other --images, or --output logits. No file was written'
        )
    too_far = (
        parity.largest is not None
        and parity.scale is not None
        and threshold.difference is not None
        and parity.largest > threshold.difference * max(parity.scale, 1)
    )
    if parity.confidence and any(came > most for came, most in zip(parity.confidence, threshold.confidence)):
        raise ParityError(
            f'the confidence of the artifact is not the softmax of the trained model: {parity}. {precision} needs it '
            f'within {threshold.confidence[0]:g}, and {threshold.confidence[1]:g} on average. No file was written'
        )
    if too_far or parity.agreement < threshold.agreement:
        bound = '' if threshold.difference is None else f'logits within {threshold.difference:g} of the largest, '
        raise ParityError(
            f'the artifact does not compute what the trained model computes: {parity}. {precision} needs {bound}'
            f'the same label at {100 * threshold.agreement:g} % of the pixels. No file was written'
        )
    reason = inaccuracy(parity, precision)
    if reason and precision == 'fp32':
        raise ParityError(
            f'the artifact does not compute what the trained model computes: {reason}; {parity}. No file was written'
        )
    if reason and not keep_inaccurate:
        remedy = 'more and other images for --calibration, or fp32' if precision == 'int8' else 'fp32'
        raise ParityError(
            f'the {precision} artifact is too inaccurate: {reason}; {parity}. No file was written. Try {remedy}; '
            '--keep-inaccurate writes it all the same'
        )


def inaccuracy(parity: Parity, precision: str) -> str | None:
    """What of its aim an artifact misses, in words; None where it misses nothing.

    Every class must keep the IoU of its :class:`Threshold`; fp16 and int8 may cost :data:`LOSS` mIoU, or without masks
    change the label of 1 - :data:`AGREEMENT` of the pixels.
    """
    threshold = THRESHOLDS[precision]
    allowed = max(LEAST, threshold.share * parity.pixels)
    broken = [own for own in parity.classes if own.iou < threshold.iou and own.differing > allowed]
    if broken:
        worst = min(broken, key=lambda own: own.iou)
        return f'{len(broken)} class(es) under an IoU of {100 * threshold.iou:g}, the worst {worst}'
    if precision == 'fp32':
        return None
    if parity.miou is not None and parity.source_miou is not None:
        if parity.miou < parity.source_miou - LOSS:
            return f'it costs {parity.source_miou - parity.miou:.2f} mIoU, of which {LOSS:g} are allowed'
    elif parity.agreement < AGREEMENT:
        return (
            f'{100 * parity.agreement:.2f} % of the pixels keep their label, of which {100 * AGREEMENT:g} % are needed'
        )
    return None


def _confusion(labels: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class and label; what is no class in ``truth`` is left out."""
    known = truth < classes
    pairs = truth[known].astype(np.int64) * classes + labels[known].astype(np.int64)  # float of runtimes without int
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _miou(confusion: np.ndarray) -> float:
    """Percent, over the classes that occur in mask or labels."""
    both = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float(100 * np.mean(confusion.diagonal()[both > 0] / both[both > 0]))
