"""What goes into a file and comes out of it, as its runtime names and stores it: for an app in any language."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .presets import PRESETS


@dataclass(frozen=True)
class Port:
    """An input or output of a file.

    Attributes:
        name: in the file; None where the format has none, and the first is meant.
        dtype: of its numbers.
        shape: with the batch, which is 1; files for torch mostly take more.
        layout: what its axes are: N batch, H height, W width, C colors or classes; ``'image'`` where the runtime takes
            an image of its own kind.
        range: the smallest and the largest value; None where nothing bounds them.
        meaning: in words.
    """

    name: str | None
    dtype: str
    shape: tuple[int, ...]
    layout: str
    range: tuple[int, int] | None
    meaning: str


FLOAT_IMAGE = ('executorch', 'litert')  # their accelerated part takes no integers, in or out
NAMELESS = ('executorch', 'torch')


def interface(spec) -> dict[str, list[dict]]:
    """The inputs and outputs of a file, as plain data."""
    return dict(inputs=[asdict(input_port(spec))], outputs=[asdict(port) for port in output_ports(spec)])


def input_port(spec) -> Port:
    """The input of a file, by its :class:`effseg.deploy.spec.Spec`."""
    preset = PRESETS[spec.preset]
    floats = spec.backend in FLOAT_IMAGE or preset.image == 'NCHW'
    return Port(
        None if spec.backend in NAMELESS else preset.names[0] if preset.names else 'image',
        'float32' if floats else 'uint8',
        _arranged((1, *spec.image_shape), 'NHWC', preset.image),
        'image' if spec.backend == 'coreml' else preset.image,
        (0, 255),
        f'{spec.color_order}, not normalised: mean and std are inside the file',
    )


def output_ports(spec) -> tuple[Port, ...]:
    """The outputs of a file: logits, labels, or labels and their confidence."""
    preset = PRESETS[spec.preset]
    named = spec.backend not in NAMELESS
    if not spec.decided:
        return (
            Port(
                (preset.names[1] if preset.names else 'logits') if named else None,
                'float32',
                _arranged((1, *spec.result_shape), 'NCHW', preset.logits),
                preset.logits,
                None,
                'the larger, the likelier; neither softmax nor sigmoid',
            ),
        )
    shape, last = (1, *spec.result_shape), len(spec.classes) - 1
    whole = 'float32' if spec.backend in FLOAT_IMAGE else 'int32'
    labels = Port(
        'labels' if named else None, whole, shape, 'NHW', (0, last), 'whole numbers, the class of every pixel'
    )
    confidence = Port('confidence' if named else None, 'float32', shape, 'NHW', (0, 1), 'the probability of that class')
    return (labels, confidence) if spec.confident else (labels,)


def axes(spec) -> tuple[str, str]:
    """Of the image and of the logits, as in :class:`~effseg.deploy.presets.Preset`."""
    return PRESETS[spec.preset].image, PRESETS[spec.preset].logits


def given(image: np.ndarray, spec) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> the array that the file takes."""
    port = input_port(spec)
    order = ['NHWC'.index(axis) for axis in port.layout] if port.layout != 'image' else range(4)
    return np.ascontiguousarray(image[None].transpose(order).astype(port.dtype, copy=False))


def taken(results: Sequence[np.ndarray], spec):
    """What the file returned -> logits (channels, h, w) float32, labels (H, W) int32, or these and their confidence
    (H, W) float32."""
    if not spec.decided:
        order = [axes(spec)[1].index(axis) for axis in 'NCHW']
        return results[0].transpose(order)[0].astype(np.float32, copy=False)
    labels = results[0][0].astype(np.int32, copy=False)
    return (labels, results[1][0].astype(np.float32, copy=False)) if spec.confident else labels


def _arranged(shape: tuple[int, ...], axes: str, wanted: str) -> tuple[int, ...]:
    return tuple(shape[axes.index(axis)] for axis in wanted)
