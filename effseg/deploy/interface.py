"""What goes into a file and comes out of it, as its runtime names and stores it: for an app in any language."""

from dataclasses import asdict, dataclass

import numpy as np

from .presets import PRESETS


@dataclass(frozen=True)
class Port:
    """The one input or output of a file.

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
    """The ports of a file, as plain data: ``inputs`` and ``outputs``, a list of one each."""
    return dict(inputs=[asdict(input_port(spec))], outputs=[asdict(output_port(spec))])


def input_port(spec) -> Port:
    """
    Args:
        spec: of the file, an :class:`effseg.deploy.spec.Spec`.
    """
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


def output_port(spec) -> Port:
    """As :func:`input_port`."""
    preset, labels = PRESETS[spec.preset], spec.output == 'labels'
    layout = 'NHW' if labels else preset.logits
    return Port(
        None if spec.backend in NAMELESS else preset.names[1] if preset.names else spec.output,
        'int32' if labels and spec.backend not in FLOAT_IMAGE else 'float32',
        _arranged((1, *spec.result_shape), 'NHW' if labels else 'NCHW', layout),
        layout,
        (0, len(spec.classes) - 1) if labels else None,
        'whole numbers, the class of every pixel'
        if labels
        else 'the larger, the likelier; neither softmax nor sigmoid',
    )


def axes(spec) -> tuple[str, str]:
    """Of the image and of the logits, as in :class:`~effseg.deploy.presets.Preset`."""
    return PRESETS[spec.preset].image, PRESETS[spec.preset].logits


def given(image: np.ndarray, spec) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> the array that the file takes."""
    port = input_port(spec)
    order = ['NHWC'.index(axis) for axis in port.layout] if port.layout != 'image' else range(4)
    return np.ascontiguousarray(image[None].transpose(order).astype(port.dtype, copy=False))


def taken(result: np.ndarray, spec) -> np.ndarray:
    """What the file returned -> logits (channels, h, w) float32, or labels (H, W) int32."""
    if spec.output == 'labels':
        return result[0].astype(np.int32, copy=False)
    order = [axes(spec)[1].index(axis) for axis in 'NCHW']
    return result.transpose(order)[0].astype(np.float32, copy=False)


def _arranged(shape: tuple[int, ...], axes: str, wanted: str) -> tuple[int, ...]:
    return tuple(shape[axes.index(axis)] for axis in wanted)
