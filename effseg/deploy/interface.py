"""What goes into a file and comes out of it, as its runtime names and stores it: for an app in any language."""

from dataclasses import asdict, dataclass


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
    """The ports of a file.

    Args:
        spec: of the file, an :class:`effseg.deploy.spec.Spec`.

    Returns:
        Plain data: ``inputs`` and ``outputs``, a list of one each.
    """
    floats, named = spec.backend in FLOAT_IMAGE, spec.backend not in NAMELESS
    image = Port(
        'image' if named else None,
        'float32' if floats else 'uint8',
        (1, *spec.image_shape),
        'image' if spec.backend == 'coreml' else 'NHWC',
        (0, 255),
        f'{spec.color_order}, not normalised: mean and std are inside the file',
    )
    labels = spec.output == 'labels'
    result = Port(
        spec.output if named else None,
        ('float32' if floats else 'int32') if labels else 'float32',
        (1, *spec.result_shape),
        'NHW' if labels else 'NCHW',
        (0, len(spec.classes) - 1) if labels else None,
        'whole numbers, the class of every pixel'
        if labels
        else 'the larger, the likelier; neither softmax nor sigmoid',
    )
    return dict(inputs=[asdict(image)], outputs=[asdict(result)])
