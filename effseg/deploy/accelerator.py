"""What a file returns where arithmetic is done in half precision, as on the GPUs and neural engines of phones, against
the labels that the trained model's own ``predict`` gives.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from ..errors import ParityError
from .half import HalfProgram, Overflow
from .parity import Parity, check_rounding, compare, inaccuracy
from .program import Program
from .reference import Reference
from .spec import Spec

# Every number of every operation is rounded, which takes some ten times as long as the network: three images, which
# show content of three sizes, while they are no larger than this together, and always one.
IMAGES = 3
PIXELS = IMAGES * 512 * 512
# the share that must stay; seen: 99.9 % and more of networks that half precision holds, 5 % of one it does not
LABELS = 0.99


@dataclass(frozen=True)
class Accelerated:
    """The figures of a file on an fp16 accelerator.

    Attributes:
        parity: with inputs, weights and results of every operation rounded; None where what came out is no number.
        sums: of one image, with running sums rounded as well, as the oldest units do; None likewise.
        overflow: the first result that half precision cannot hold; None where it holds all.
    """

    parity: Parity | None
    sums: Parity | None
    overflow: Overflow | None

    @property
    def shortfall(self) -> str | None:
        """What such a device gets wrong, in words; None where it gets nothing wrong."""
        if self.overflow:
            return f'half precision does not hold this network: {self.overflow}'
        if self.parity is None:
            return 'half precision makes no numbers of this network'
        if self.parity.agreement < LABELS:
            return f'{100 * self.parity.agreement:.2f} % of the labels stay, of which {100 * LABELS:g} % are needed'
        return inaccuracy(self.parity, 'fp16')

    def __str__(self):
        if self.parity is None:
            return 'on an fp16 accelerator: no labels'
        sums = 'none' if self.sums is None else f'{100 * self.sums.agreement:.2f} %'
        return (
            f'on an fp16 accelerator: {100 * self.parity.agreement:.2f} % of the labels of {self.parity.images} '
            f'image(s), worst class {self.parity.worst}; {sums} of the first where it sums in half precision as well'
        )

    def as_dict(self) -> dict:
        return dict(dataclasses.asdict(self), shortfall=self.shortfall)

    def judge(self, keep_inaccurate: bool = False) -> None:
        """Refuses a file that an fp16 accelerator gets wrong.

        Args:
            keep_inaccurate: accept wrong labels, where at least all numbers are held.

        Raises:
            ParityError: for a file of half precision that such a device gets wrong.
        """
        broken = self.overflow is not None or self.parity is None
        if self.shortfall and (broken or not keep_inaccurate):
            keep = '' if broken else '; --keep-inaccurate writes it all the same'
            raise ParityError(
                f'the file does not survive half precision: {self.shortfall}; {self}. No file was written. Export it '
                f'with --precision fp32, for CPUs{keep}'
            )


def shown(reference: Reference, spec: Spec) -> Reference:
    """The images of a reference that another precision is computed on: a few, since that is slow."""
    return reference.showing_most(max(1, min(IMAGES, PIXELS // (spec.height * spec.width))))


def in_precision(network: nn.Module, spec: Spec) -> Callable[[np.ndarray], np.ndarray]:
    """The network in the precision of a file of fp16 or bf16, evaluated in torch whatever the file holds: takes
    (H, W, 3) uint8, gives what the file should, without the batch."""
    if spec.precision == 'bf16':
        from .backends.torch import in_bf16

        return in_bf16(network, spec)
    return HalfProgram(Program(network, spec))


def check_file(run: Callable[[np.ndarray], np.ndarray], network: nn.Module, reference: Reference, spec: Spec) -> None:
    """Compares a file of fp16 or bf16 with the network in that precision, on a few images of a reference.

    Args:
        run: runs the file on an image.
        network: what the file was exported from.
        reference, spec: as in :func:`accelerated`.

    Raises:
        ParityError: see :func:`effseg.deploy.parity.check_rounding`.
    """
    few, program = shown(reference, spec), in_precision(network, spec)
    results = [program(image) for image in few.images]
    if not getattr(program, 'overflow', None):  # such a file is refused by its own figures
        check_rounding(run, results, few, spec)


def accelerated(program: nn.Module, reference: Reference, spec: Spec) -> Accelerated:
    """Runs a file in half precision on a few images of a reference.

    Args:
        program: evaluates the file, see :class:`~effseg.deploy.half.HalfProgram`.
        reference: what is expected.
        spec: of the file.
    """
    few, half = shown(reference, spec), HalfProgram(program)
    sums = _compared(HalfProgram(program, sums=True), few.only([0]), spec)
    return Accelerated(_compared(half, few, spec), sums, half.overflow)


def _compared(program: HalfProgram, reference: Reference, spec: Spec) -> Parity | None:
    try:
        return compare(program, reference, spec)
    except ParityError:  # of values that are no numbers or no labels; the shape is the program's own
        return None
