"""Files that drop into apps: what the library that an app is built on expects of a file, as one table.

A row says which of the export's options that library leaves no choice of, how the file's numbers are laid out, and what
lies beside the file. The normalisation is inside every file, and each library is told so in its own way.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..files import write
from ..outputs import OutputFolder

# numbers of logits at the image's size, of which the libraries hold several copies: 21 classes at 1248 x 1248
LARGEST = 1 << 25


@dataclass(frozen=True)
class Preset:
    """What a library expects.

    Attributes:
        runtime: of the file; None where any will do.
        outputs: of the file, the default first.
        fits: by which it resizes photos, the default first; None where any will do.
        image: the axes of the image; float32 and 0 to 255 where the colors come first.
        logits: the axes of the logits.
        whole: logits have the image's size, since the library takes no others, or resizes them in a way of its own.
        names: of the image and the result in the file; None for those of raw files.
        beside: makes the text files that lie beside the artifact, by name, of its spec and its name.
        place: where the artifact lies in the folder that ``--out`` names then; None where it names the artifact.
    """

    runtime: str | None = None
    outputs: tuple[str, ...] = ('labels', 'logits', 'labels+confidence')
    fits: tuple[str, ...] | None = None
    image: str = 'NHWC'
    logits: str = 'NCHW'
    whole: bool = False
    names: tuple[str, str] | None = None
    beside: Callable[..., dict[str, str]] = lambda spec, name: {}
    place: str | None = None


def labels_file(spec) -> str:
    """The names of the classes, one per line, by label."""
    return ''.join(f'{name}\n' for name in spec.classes)


def color_codes(spec) -> list[str]:
    """The colors of the classes as ``#rrggbb``, by label."""
    return ['#{:02x}{:02x}{:02x}'.format(*color) for color in spec.palette]


def _of_transformers(spec, name: str) -> dict[str, str]:
    """A model of the type ``segformer`` is one that resizes a photo, makes logits and resizes them; nothing else of
    SegFormer is meant."""
    config = {
        'model_type': 'segformer',
        'architectures': ['SegformerForSemanticSegmentation'],
        'id2label': {str(label): one for label, one in enumerate(spec.classes)},
        'label2id': {one: label for label, one in enumerate(spec.classes)},
        'transformers.js_config': {'dtype': spec.precision},
    }
    preprocessor = {
        'image_processor_type': 'SegformerImageProcessor',
        'do_resize': True,
        'size': {'height': spec.height, 'width': spec.width},
        'resample': 1,  # Lanczos: what it calls bilinear skips pixels where it shrinks
        'do_rescale': False,
        'do_normalize': False,
        'do_reduce_labels': False,
    }
    files = {'config.json': config, 'preprocessor_config.json': preprocessor}
    return {file: json.dumps(values, indent=1) + '\n' for file, values in files.items()}


PRESETS = {
    'raw': Preset(),
    # useSemanticSegmenter of react-native-executorch 0.10: validateSpec compares the shapes
    'react-native-executorch': Preset('executorch', ('logits',), ('stretch',), image='NCHW', whole=True),
    'transformers.js': Preset(
        'onnx',
        ('logits',),
        ('stretch',),
        image='NCHW',
        names=('pixel_values', 'logits'),
        beside=_of_transformers,
        place='onnx/model{}.onnx',
    ),
    # its segmenter resizes logits corner on corner, which no model here was trained for; litert_mediapipe.py has what
    # goes into the file besides
    'mediapipe': Preset('litert', ('logits',), ('stretch',), logits='NHWC', whole=True),
    # an image in, by VNCoreMLRequest with imageCropAndScaleOption = .scaleFill
    'vision': Preset('coreml', fits=('stretch',)),
    'litert': Preset('litert', beside=lambda spec, name: {f'{name}.labels.txt': labels_file(spec)}),
}


def settle(preset: str, to: str | None, output: str | None, fit: str | None) -> tuple[str, str, str]:
    """The runtime, output and fit of an export: what was asked for, or what the preset has.

    Args:
        preset: of :data:`PRESETS`.
        to, output, fit: None where nothing was asked for.

    Raises:
        ConfigError: for what contradicts the preset, or without a runtime.
    """
    if preset not in PRESETS:
        raise ConfigError(f'--for {preset} is unknown; use one of {", ".join(PRESETS)}')
    row = PRESETS[preset]
    to = to or row.runtime
    if to is None:
        raise ConfigError('--to RUNTIME is missing: --for raw says nothing of it')
    for name, came, may in (
        ('--to', to, row.runtime and (row.runtime,)),
        ('--output', output, row.outputs),
        ('--fit', fit, row.fits),
    ):
        if came and may and came not in may:
            raise ConfigError(f'{name} {came} contradicts --for {preset}, which takes {name} {" or ".join(may)}')
    return to, output or row.outputs[0], fit or (row.fits or ('letterbox',))[0]


def check(spec) -> None:
    """Raises ConfigError for a spec whose file the library of its preset could not use."""
    settle(spec.preset, spec.backend, spec.output, None)  # a file may be scored under any fit
    row = PRESETS[spec.preset]
    if row.runtime == 'onnx' and spec.align_corners:
        raise ConfigError(
            f'{spec.preset} resizes logits without align_corners, which this head was trained with; use --for raw'
        )
    numbers = spec.channels * spec.height * spec.width
    if row.whole and numbers > LARGEST:
        raise ConfigError(
            f'--for {spec.preset} takes logits of every pixel: {spec.channels} classes at {spec.height}x{spec.width} '
            f'are {4 * numbers / 1e6:.0f} MB, several times over; give a --size of at most '
            f'{LARGEST // spec.channels:,} pixels, or use --for raw, which returns labels'
        )


def artifact_path(spec, out: Path) -> Path:
    """Where the artifact lies in what ``--out`` names: that itself, or a part of the folder that a library expects."""
    place = PRESETS[spec.preset].place
    return out / place.format('' if spec.precision == 'fp32' else f'_{spec.precision}') if place else out


def check_place(spec, out: Path, again: bool) -> None:
    """Refuses a place that the file, or what lies beside it, cannot be written to.

    Args:
        spec: of the file.
        out: what ``--out`` names.
        again: an earlier export for the same library lies there, and the text files beside it are its own.

    Raises:
        ConfigError: for a file where a folder is expected, and when a text file that the library expects is there, and
            somebody else's.
    """
    row = PRESETS[spec.preset]
    if row.place:
        if out.is_file() or out.suffix == Path(row.place).suffix:
            raise ConfigError(f'{out} is the name of a file, and --for {spec.preset} writes a folder: give its name')
        OutputFolder(out).check(row.beside(spec, out.stem))
        return
    taken = [name for name in row.beside(spec, out.stem) if (out.parent / name).exists()]
    if taken and not again:
        raise ConfigError(
            f'{out.parent / taken[0]} is there, and tools/export.py did not write it: --for {spec.preset} writes a '
            'file of this name. Give another --out'
        )


def write_beside(spec, out: Path) -> None:
    """Writes the text files that a library wants beside the artifact; errors as in :func:`check_place`."""
    row = PRESETS[spec.preset]
    files = row.beside(spec, out.stem)
    if row.place:
        OutputFolder(out).claim(files)
    for name, text in files.items():
        write((out if row.place else out.parent) / name, text)
