"""What an artifact expects and returns, as JSON: inside the file where the format has a place for it, and beside it.

The copy beside the file (``NAME.spec.json``) also holds the file's own hash and the numbers of its proof.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import ArtifactError, ConfigError
from ..files import digest

FORMAT = 1
OUTPUTS = ('logits', 'labels')
PRECISIONS = ('fp32', 'fp16', 'int8')
STRIDE = 4  # of the logits: Semantic FPN decides at a quarter of the image
MULTIPLE = 32  # the sizes at which every level of the pyramid is exactly half the one below


@dataclass(frozen=True)
class Spec:
    """The contract between an artifact and an app.

    Attributes:
        backend: which runtime reads the file.
        height, width: of the input image, in pixels.
        output: ``'logits'`` (one map per class at a quarter of the size) or ``'labels'`` (the class of every pixel).
        precision: ``'fp32'``, ``'fp16'`` or ``'int8'``.
        mean, std: of the normalisation inside the file, R, G, B, in units of 0-255. An app must not apply them again.
        classes: their names, by label.
        palette: their colours (R, G, B), by label.
        checkpoint_sha256: of the file the weights came from.
        effseg: the version that wrote the artifact.
        colour_order: of the input image; always RGB.
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
    colour_order: str = 'RGB'

    def __post_init__(self):
        for name in ('mean', 'std', 'classes'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, 'palette', tuple(tuple(colour) for colour in self.palette))
        if self.output not in OUTPUTS:
            raise ConfigError(f'output={self.output!r} is unknown; use one of {OUTPUTS}')
        if self.precision not in PRECISIONS:
            raise ConfigError(f'precision={self.precision!r} is unknown; use one of {PRECISIONS}')
        if min(self.height, self.width) < MULTIPLE or self.height % MULTIPLE or self.width % MULTIPLE:
            raise ConfigError(
                f'size {self.height}x{self.width} (height x width) cannot be exported: both sides must be '
                f'multiples of {MULTIPLE}'
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f'mean {self.mean} and std {self.std} must be three numbers each, std above 0')
        if len(self.palette) != len(self.classes):
            raise ConfigError(f'{len(self.palette)} colours for {len(self.classes)} classes')

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of the image an artifact takes."""
        return self.height, self.width, 3

    @property
    def result_shape(self) -> tuple[int, ...]:
        """(classes, H / 4, W / 4) of the logits, or (H, W) of the labels."""
        if self.output == 'labels':
            return self.height, self.width
        return len(self.classes), self.height // STRIDE, self.width // STRIDE

    def to_json(self) -> str:
        """The spec as it is kept inside artifacts."""
        return json.dumps({'effseg_spec': FORMAT, **dataclasses.asdict(self)}, sort_keys=True)

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
            if values.pop('effseg_spec') != FORMAT:
                raise ValueError('written by another version of effseg')
            fields = {field.name for field in dataclasses.fields(cls)}
            return cls(**{name: value for name, value in values.items() if name in fields})
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ArtifactError(
                f'{origin} is not the spec of an effseg artifact ({error}); export the model again'
            ) from error


def beside(artifact: Path) -> Path:
    """Where the spec of an artifact lies: ``model.pte`` has ``model.pte.spec.json``."""
    return artifact.with_name(artifact.name + '.spec.json')


def write_beside(path: Path, spec: Spec, artifact: Path, proof: dict) -> None:
    """Writes the spec to ``path``, with the hash of ``artifact`` and the numbers of its proof."""
    values = {**json.loads(spec.to_json()), 'artifact_sha256': digest(artifact), 'proof': proof}
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
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f'{path} is not JSON ({error}); export the model again') from error
    spec = Spec.from_json(text, str(path))
    if (actual := digest(artifact)) != expected:
        raise ArtifactError(
            f'{artifact} is not the file that {path.name} was written for: its SHA-256 is {actual[:12]}..., the spec '
            f'says {str(expected)[:12]}... It was cut, changed or exchanged; copy both files again'
        )
    return spec
