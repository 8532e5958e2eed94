"""What an artifact expects and returns, as JSON: inside the file where the format has a place for it, and beside it.

The copy beside the file (``NAME.spec.json``) also holds the file's own hash and the numbers of its proof.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, ConfigError
from ..files import digest, files_of
from . import presets
from .interface import interface

# 1 knew neither align_corners nor threshold, and had no seal; logits of 1 and 2 are a quarter of the image; 1 to 3 have
# no fit, and were scored in windows; 1 to 4 are raw
FORMAT = 5
OUTPUTS = ('logits', 'labels', 'labels+confidence')
PRECISIONS = ('fp32', 'bf16', 'fp16', 'int8')
FITS = ('letterbox', 'stretch', 'windows')
SEAL = 'content_sha256'  # of the file, inside its own spec
MULTIPLE = 32  # the sizes at which every level of the pyramid is exactly half the one below


@dataclass(frozen=True)
class Spec:
    """The contract between an artifact and an app.

    Attributes:
        backend: which runtime reads the file.
        height, width: of the input image, in pixels.
        output: ``'logits'`` (one map per class, of the size ``grid``), ``'labels'`` (the class of every pixel), or
            ``'labels+confidence'`` (that, and its probability).
        precision: one of :data:`PRECISIONS`.
        mean, std: of the normalisation inside the file, R, G, B, in units of 0-255. An app must not apply them again.
        classes: their names, by label.
        palette: their colors (R, G, B), by label.
        checkpoint_sha256: of the file the weights came from.
        effseg: the version that wrote the artifact.
        color_order: of the input image; always RGB. In JSON it is ``colour_order``, as format 1 spelled it.
        align_corners: of the resize from logits to labels.
        threshold: of a segmenter with one logit for two classes: label 1 where its sigmoid exceeds this; None for one
            logit per class.
        grid: (h, w) of the logits; a quarter of the image when left out.
        delegate: ``'coreml'`` where that computes a file of ExecuTorch; None where XNNPACK does, and of other
            runtimes.
        fit: how a photo of another size becomes the image and how labels go back, see :mod:`effseg.deploy.fit`.
        preset: of the library that the file is for, see :mod:`effseg.deploy.presets`.
    """

    backend: str
    height: int
    width: int
    output: str
    precision: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    checkpoint_sha256: str
    effseg: str
    color_order: str = 'RGB'
    align_corners: bool = False
    threshold: float | None = None
    grid: tuple[int, int] | None = None
    fit: str = 'letterbox'
    preset: str = 'raw'
    delegate: str | None = None

    def __post_init__(self):
        for name in ('mean', 'std', 'classes'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, 'palette', tuple(tuple(color) for color in self.palette))
        object.__setattr__(self, 'grid', None if self.grid is None else tuple(self.grid))
        self._check_types()
        if self.grid is None:
            object.__setattr__(self, 'grid', (self.height // 4, self.width // 4))
        known = dict(preset=tuple(presets.PRESETS), output=OUTPUTS, precision=PRECISIONS, fit=FITS)
        for name, options in known.items():
            if getattr(self, name) not in options:
                raise ConfigError(f'{name}={getattr(self, name)!r} is unknown; use one of {options}')
        if presets.PRESETS[self.preset].whole:
            object.__setattr__(self, 'grid', (self.height, self.width))
        if self.delegate is not None and (self.backend, self.delegate) != ('executorch', 'coreml'):
            raise ConfigError(
                f'--backend {self.delegate} is for --to executorch; {self.backend} has no choice of backends'
            )
        if min(self.height, self.width) < MULTIPLE or self.height % MULTIPLE or self.width % MULTIPLE:
            raise ConfigError(
                f'size {self.height}x{self.width} (height x width) cannot be exported: both sides must be '
                f'multiples of {MULTIPLE}'
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f'mean {self.mean} and std {self.std} must be three numbers each, std above 0')
        if self.threshold is not None and (len(self.classes) != 2 or not 0 < self.threshold < 1):
            raise ConfigError(
                f'threshold={self.threshold} with {len(self.classes)} classes: one logit decides between two classes, '
                'by a threshold between 0 and 1'
            )
        if len(self.palette) != len(self.classes):
            raise ConfigError(f'{len(self.palette)} colors for {len(self.classes)} classes')
        presets.check(self)

    def _check_types(self) -> None:
        """A spec comes out of a file: every field has the type it is used as."""
        numbers = (*self.mean, *self.std, *([] if self.threshold is None else [self.threshold]))
        if not all(_is_number(value) for value in numbers):
            raise ConfigError(f'mean, std and threshold must be finite numbers; {numbers} came')
        sides = (self.height, self.width)
        if not all(_is_whole(value) for value in sides):
            raise ConfigError(f'height and width must be whole numbers; {sides} came')
        if self.grid is not None and not (
            len(self.grid) == 2
            and all(_is_whole(value) and value in range(1, side + 1) for value, side in zip(self.grid, sides))
        ):
            raise ConfigError(f'grid={self.grid} must be two whole numbers, of 1 to the sides of the image')
        texts = (self.backend, self.checkpoint_sha256, self.effseg, self.color_order, self.preset, *self.classes)
        if not all(isinstance(value, str) for value in texts):
            raise ConfigError(
                'backend, checkpoint_sha256, effseg, color_order, preset and the names of classes must be text'
            )
        if not isinstance(self.align_corners, bool):
            raise ConfigError(f'align_corners={self.align_corners!r} must be true or false')
        if not all(len(color) == 3 and all(value in range(256) for value in color) for color in self.palette):
            raise ConfigError('a palette must hold three whole numbers of 0 to 255 for each class')

    @classmethod
    def unnamed(
        cls,
        backend: str,
        size: tuple[int, int],
        classes: int = 1,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> 'Spec':
        """Of a file of float32 logits that is timed and thrown away: nobody reads the names of its classes.

        Args:
            backend: see :class:`Spec`, as ``mean`` and ``std``.
            size: (H, W) of the image.
            classes: how many.
        """
        return cls(
            backend=backend,
            height=size[0],
            width=size[1],
            output='logits',
            precision='fp32',
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            classes=tuple(str(index) for index in range(classes)),
            palette=((0, 0, 0),) * classes,
            checkpoint_sha256='',
            effseg='',
        )

    @property
    def channels(self) -> int:
        """How many maps the logits of the file have: one per class, or in raw files one alone for two classes that a
        threshold divides. Libraries take the largest class, so there the threshold's logit is the map before it."""
        return len(self.classes) if self.threshold is None or self.preset != 'raw' else 1

    @property
    def decided(self) -> bool:
        """Whether the file returns labels."""
        return self.output != 'logits'

    @property
    def confident(self) -> bool:
        """Whether the file returns labels and their probabilities."""
        return self.output == 'labels+confidence'

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of the image an artifact takes."""
        return self.height, self.width, 3

    @property
    def result_shape(self) -> tuple[int, ...]:
        """(channels, h, w) of the logits, or (H, W) of the labels."""
        if self.decided:
            return self.height, self.width
        assert self.grid is not None  # left out, it was filled in
        return self.channels, *self.grid

    def as_dict(self) -> dict:
        """The spec as plain data, with the format's number and what follows from it: :mod:`effseg.deploy.interface`."""
        values = dataclasses.asdict(self)
        values['colour_order'] = values.pop('color_order')
        return {'effseg_spec': FORMAT, **values, **interface(self)}

    def to_json(self) -> str:
        """The spec as it is kept inside artifacts, with a place for the seal: see :func:`seal`."""
        return json.dumps({**self.as_dict(), SEAL: '0' * 64}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, origin: str) -> 'Spec':
        """Reads what :meth:`to_json` wrote; keys of the copy beside the file are left out.

        Args:
            text: JSON.
            origin: where it came from, for the error.

        Raises:
            ArtifactError: when it is not the spec of an artifact.
        """
        try:
            values = json.loads(text)
            number = values.pop('effseg_spec')
            if not _is_whole(number) or number not in range(1, FORMAT + 1):
                raise ValueError('written by another version of effseg')
            if number < 4:
                values['fit'] = 'windows'
            values.setdefault('color_order', values.get('colour_order', 'RGB'))
            fields = {field.name for field in dataclasses.fields(cls)}
            return cls(**{name: value for name, value in values.items() if name in fields})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise ArtifactError(
                f'{origin} is not the spec of an effseg artifact ({error}); export the model again'
            ) from error


def normalisation(preprocessor: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and std of a config's data preprocessor: zeros and ones of one without a mean, which does not normalise."""
    if preprocessor.get('mean') is None:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # MMSegmentation takes one number for all colors
    mean, std = (
        value * 3 if isinstance(value, (list, tuple)) and len(value) == 1 else value
        for value in (preprocessor['mean'], preprocessor.get('std'))
    )
    return mean, std


def lost_seal(text: str) -> bool:
    """Whether the spec inside a file is of a format that has a seal, for a file where none was found."""
    return json.loads(text)['effseg_spec'] > 1


def beside(artifact: Path) -> Path:
    """Where the spec of an artifact lies: ``model.pte`` has ``model.pte.spec.json``."""
    return artifact.with_name(artifact.name + '.spec.json')


def write_beside(path: Path, spec: Spec, artifact: Path, proof: dict) -> None:
    """Writes the spec to ``path``, with the hash of ``artifact`` and the numbers of its proof."""
    values = {**spec.as_dict(), 'artifact_sha256': digest(artifact), 'proof': proof}
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + '\n')


def read_beside(artifact: Path) -> Spec | None:
    """The spec beside an artifact, None where there is none.

    Raises:
        ArtifactError: when it is unreadable, or the artifact is not the file it was written for.
    """
    path = beside(artifact)
    if not path.is_file():
        return None
    try:
        text = path.read_text()
        expected = json.loads(text).get('artifact_sha256')
    except (ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError(f'{path} is not JSON ({error}); export the model again') from error
    spec = Spec.from_json(text, str(path))
    if (actual := digest(artifact)) != expected:
        raise ArtifactError(
            f'{artifact} is not the file that {path.name} was written for: its SHA-256 is {actual[:12]}..., the spec '
            f'says {str(expected)[:12]}... It was cut, changed or exchanged; copy both files again'
        )
    return spec


def seal(path: Path) -> None:
    """Writes the SHA-256 of an artifact into its spec, so that it travels with the file.

    The digest is of the file, or the folder, as it is with zeros in the place of the digest.
    """
    place = _find_seal(path)
    assert place is not None, 'the backend writes the spec into the file'
    file, start = place
    with file.open('r+b') as stream:
        stream.seek(start)
        stream.write(_digest_but(path, file, start).encode())


def check_seal(path: Path) -> bool:
    """Compares an artifact with the digest inside it.

    Returns:
        Whether there is one: files of format 1, and foreign ones, have none.

    Raises:
        ArtifactError: for a file that was changed after it was written.
    """
    if (place := _find_seal(path)) is None:
        return False
    file, start = place
    with file.open('rb') as stream:
        stream.seek(start)
        expected = stream.read(64).decode('latin1')
    if (actual := _digest_but(path, file, start)) != expected:
        raise ArtifactError(
            f'{path} was changed after it was written: its SHA-256 is {actual[:12]}..., the one inside it '
            f'{expected[:12]!r}...; it is cut or corrupted, copy it again'
        )
    return True


def _find_seal(path: Path) -> tuple[Path, int] | None:
    """The file of an artifact that holds the digest, and where in it the digest starts."""
    for file in files_of(path):
        if found := re.search(rb'"%s": "(?=.{64}")' % SEAL.encode(), file.read_bytes(), re.DOTALL):
            return file, found.end()
    return None


def _digest_but(path: Path, sealed: Path, start: int) -> str:
    """SHA-256 of an artifact with zeros for the 64 characters at ``start`` of its file ``sealed``."""
    sha = hashlib.sha256()
    for file in files_of(path):
        content = file.read_bytes()
        if path.is_dir():
            sha.update(file.relative_to(path).as_posix().encode())
        sha.update(content[:start] + b'0' * 64 + content[start + 64 :] if file == sealed else content)
    return sha.hexdigest()


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
