"""One image and its label map, looked at as training will: what is wrong with them, and which values they hold."""

import hashlib
import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from .orientation import orientation_of, turn_of_label_map

ERROR, WARNING = 'error', 'warning'
LOSSY = ('JPEG', 'MPO', 'JPEG2000')
COLOUR = {'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'LA', 'PA', 'La', 'RGBa', 'RGBX'}
THINNEST = 2  # pixels: the augmentation of a thinner picture can leave nothing of it


@dataclass(frozen=True)
class Finding:
    """One thing wrong.

    Attributes:
        kind: a short name, the same for all of its kind.
        severity: ``'error'`` when training would go wrong, ``'warning'`` when it is worth a look.
        path: the file or folder.
        message: what is wrong with it.
        remedy: what to do.
    """

    kind: str
    severity: str
    path: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Rules:
    """What a split's config makes of raw label values.

    Attributes:
        classes: their names, by number.
        ignored: values (after the mapping) that stand for no class.
        reduce_zero_label: whether 0 is ignored and the others count from 1.
        label_map: raw to new values, for a subset of classes; None for all.
        palette: (r, g, b) by class number; may be empty.
        crop: (height, width) of RandomCrop, None without.
        scale: the largest (long, short) edge that RandomResize or Resize gives; None without.
    """

    classes: tuple[str, ...]
    ignored: tuple[int, ...] = (255,)
    reduce_zero_label: bool = False
    label_map: dict[int, int] | None = None
    palette: tuple[tuple[int, int, int], ...] = ()
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None

    def mapped(self, raw: int) -> int:
        """What a raw value, 0 to 255, becomes; as LoadAnnotations does it."""
        if self.reduce_zero_label:
            raw = 255 if raw in (0, 255) else raw - 1
        return (self.label_map or {}).get(raw, raw)

    def meaning(self, raw: int) -> str | None:
        """The class that a raw value becomes, ``'ignored'``, or None when it is out of range."""
        value = self.mapped(raw)
        if value in self.ignored:
            return 'ignored'
        return self.classes[value] if value < len(self.classes) else None


@dataclass(frozen=True)
class PairResult:
    """What was found in one pair.

    Attributes:
        findings: what is wrong.
        histogram: pixels by raw value, 256 numbers; None when the label map cannot be used.
        digest: of the image file; None when it cannot be read.
    """

    image: str
    findings: list[Finding] = field(default_factory=list)
    histogram: np.ndarray | None = None
    digest: str | None = None


def check_pair(image_path: str, label_path: str, rules: Rules) -> PairResult:
    """Reads both files whole and says what is wrong with them."""
    findings: list[Finding] = []
    image, digest = _open(image_path, 'image', findings)
    label_map, _ = _open(label_path, 'label map', findings)
    if image is not None:
        findings += _check_image(image, image_path, rules)
    histogram = None
    if label_map is not None:
        labels = _labels(label_map, label_path, findings)
        if labels is not None:
            histogram = np.bincount(labels.ravel(), minlength=256)
            findings += _check_values(label_map, label_path, histogram, rules)
            if image is not None:
                findings += _check_overlay(image, image_path, label_map, label_path)
    return PairResult(image_path, findings, histogram, digest)


def _open(path: str, what: str, findings: list[Finding]) -> tuple[Image.Image | None, str | None]:
    """A file decoded to its end."""

    def bad(kind, message, remedy='replace the file, or delete the pair'):
        findings.append(Finding(f'{what}: {kind}', ERROR, path, message, remedy))
        return None, None

    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return bad('missing', f'there is no such {what}', 'add it, or delete its partner')
    except OSError as error:
        return bad('unreadable', f'cannot be read: {error.strerror}', 'mend its permissions or link')
    if not content:
        return bad('empty', 'the file has 0 bytes')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image = Image.open(io.BytesIO(content))
            image.load()
    except Image.UnidentifiedImageError:
        return bad('not an image', 'is not an image')
    except Image.DecompressionBombError as error:
        return bad('huge', str(error), 'scale it down')
    except Exception as error:  # decoders raise what they like
        return bad('damaged', f'cannot be decoded to its end: {error}')
    return image, hashlib.sha256(content).hexdigest()


def _check_image(image: Image.Image, path: str, rules: Rules) -> list[Finding]:
    findings = []
    width, height = image.size
    if min(width, height) < THINNEST:
        findings.append(
            Finding(
                'image: too thin',
                ERROR,
                path,
                f'is {width} x {height}; training takes at least {THINNEST} pixels',
                'delete the pair',
            )
        )
    elif rules.crop and _stays_below(rules.crop, image, rules.scale):
        findings.append(
            Finding(
                'image: smaller than the crop',
                WARNING,
                path,
                f'is {width} x {height}, and smaller than the crop of '
                f'{rules.crop[1]} x {rules.crop[0]} at every scale: the rest is padding',
                'lower crop_size, or raise the scale of RandomResize',
            )
        )
    if image.mode.startswith(('I', 'F')):
        findings.append(
            Finding(
                'image: more than 8 bits',
                ERROR,
                path,
                f'has {image.mode} pixels; only their upper 8 bits would be seen',
                'convert it to 8 bits, with a scale that suits it',
            )
        )
    if getattr(image, 'n_frames', 1) > 1 and image.format != 'MPO':
        findings.append(
            Finding(
                'image: several frames',
                WARNING,
                path,
                f'has {sum(1 for _ in ImageSequence.Iterator(image))} frames; one is used',
                'save the frame that was labelled',
            )
        )
    return findings


def _stays_below(crop: tuple[int, int], image: Image.Image, scale: tuple[float, float] | None) -> bool:
    width, height = image.size
    if scale:
        factor = min(max(scale) / max(width, height), min(scale) / min(width, height))
        width, height = round(width * factor), round(height * factor)
    return height < crop[0] or width < crop[1]


def _labels(label_map: Image.Image, path: str, findings: list[Finding]) -> np.ndarray | None:
    """The raw values as LoadAnnotations sees them, or None when they are no class numbers."""
    if label_map.mode in COLOUR:
        findings.append(
            Finding(
                'label map: colours',
                ERROR,
                path,
                f'is a {label_map.mode} image; training wants one channel of class numbers',
                'translate its colours to class numbers and save them as an 8-bit greyscale PNG',
            )
        )
        return None
    if label_map.mode.startswith(('I', 'F')):
        pixels = np.asarray(label_map)
        findings.append(
            Finding(
                'label map: more than 8 bits',
                ERROR,
                path,
                f'has {label_map.mode} pixels up to {pixels.max()}; they would be taken modulo 256',
                'save it as an 8-bit greyscale PNG of class numbers',
            )
        )
        return None
    if label_map.format in LOSSY:
        findings.append(
            Finding(
                'label map: lossy',
                ERROR,
                path,
                f'is a {label_map.format} file: compression has changed the class numbers at every border',
                'export it again from the labelling tool as PNG',
            )
        )
    return np.asarray(label_map).astype(np.uint8)


def _check_values(label_map: Image.Image, path: str, histogram: np.ndarray, rules: Rules) -> list[Finding]:
    findings = []
    seen = np.flatnonzero(histogram).tolist()
    outside = [value for value in seen if rules.meaning(value) is None]
    if outside:
        share = histogram[outside].sum() / histogram.sum()
        findings.append(
            Finding(
                'label map: out of range',
                ERROR,
                path,
                f'has the value{"s" * (len(outside) > 1)} {_few(outside)} in {share:.1%} of its pixels; '
                f'{_range(rules)}',
                _remedy_outside(outside, rules),
            )
        )
    elif all(rules.meaning(value) == 'ignored' for value in seen):
        findings.append(
            Finding(
                'label map: nothing labelled',
                WARNING,
                path,
                f'holds only ignored values ({_few(seen)})',
                'label it, or delete the pair',
            )
        )
    if label_map.mode == 'P' and rules.palette:
        findings += _check_palette(label_map, path, seen, rules)
    return findings


def _check_palette(label_map: Image.Image, path: str, seen: list[int], rules: Rules) -> list[Finding]:
    """Indexed colours are class numbers only if the file's palette has the order of the classes."""
    own = np.array(label_map.getpalette('RGB') or [], dtype=int).reshape(-1, 3).tolist()
    wanted = [list(map(int, colour)) for colour in rules.palette]
    for value in seen:
        number = rules.mapped(value)
        if (
            value < len(own)
            and number < len(wanted)
            and own[value] != wanted[number]
            and own[value] in wanted
            and wanted.count(own[value]) == 1
        ):
            other = wanted.index(own[value])
            return [
                Finding(
                    'label map: palette in another order',
                    ERROR,
                    path,
                    f'shows the value {value} in the colour of {rules.classes[other]!r}, and training '
                    f'would take it for {rules.classes[number]!r}',
                    'save class numbers, not the order in which the colours came',
                )
            ]
    return []


def _check_overlay(image: Image.Image, image_path: str, label_map: Image.Image, label_path: str) -> list[Finding]:
    stored, size = image.size, label_map.size
    orientation = orientation_of(image)
    upright = stored[::-1] if orientation >= 5 else stored
    if size not in (stored, upright):
        hint = ' (height and width exchanged)' if size == stored[::-1] else ''
        return [
            Finding(
                'pair: sizes differ',
                ERROR,
                label_path,
                f'is {size[0]} x {size[1]}{hint}, its image {image_path} {upright[0]} x {upright[1]}',
                'export both at one size; never scale a label map with interpolation',
            )
        ]
    if orientation == 1:
        return []
    remedy = (
        'turn the pixels for good (jpegtran, or PIL.ImageOps.exif_transpose) and look at image and label map over '
        'each other'
    )
    if upright == stored or stored[0] == stored[1]:
        return [
            Finding(
                'pair: turned by EXIF',
                ERROR,
                image_path,
                f'is turned when it is shown (EXIF orientation {orientation}), and nothing says whether its label '
                'map is to be turned along',
                remedy,
            )
        ]
    along = 'along with it' if turn_of_label_map(image_path, size) is not None else 'no more, being upright already'
    return [
        Finding(
            'pair: turned by EXIF',
            WARNING,
            image_path,
            f'is turned when it is shown (EXIF orientation {orientation}); by its size, its label map is turned '
            f'{along}',
            remedy,
        )
    ]


def _range(rules: Rules) -> str:
    first = 1 if rules.reduce_zero_label else 0
    last = len(rules.classes) - 1 + first
    return f'the {len(rules.classes)} classes are {first} to {last}, and {_few(sorted(rules.ignored))} is ignored'


def _remedy_outside(outside: list[int], rules: Rules) -> str:
    if outside == [len(rules.classes)] and not rules.reduce_zero_label:
        return (
            "if the values count from 1 and 0 means unlabelled, set reduce_zero_label=True in the data set's config; "
            f'if it means unlabelled itself, set ignore_index={outside[0]} in data set, decode head and evaluator; '
            'else add the class'
        )
    return 'list all classes in metainfo, set ignore_index where the value means unlabelled, or correct the label map'


def _few(values: list[int], count: int = 5) -> str:
    return ', '.join(map(str, values[:count])) + (f' and {len(values) - count} more' if len(values) > count else '')
