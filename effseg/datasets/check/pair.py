"""The check of one image and its label map: what training would stumble over, and which values the label map holds."""

import hashlib
import io
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..images import FORMATS, open_image, read_file
from ..labels import class_numbers
from ..orientation import TURN, stored_layout, turn_of_label_map
from .findings import ERROR, WARNING, Finding, few, finding

LOSSY = ('JPEG', 'MPO', 'JPEG2000')
COLORS = {'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'LA', 'PA', 'La', 'RGBa', 'RGBX'}
THINNEST = 2  # pixels: the augmentation of a thinner image can leave nothing of it
FLAT = 2  # levels between the darkest and the brightest pixel of an image that shows nothing
THUMBNAIL = (8, 8)  # of an image that is compared with those of another split


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

    @cached_property
    def numbers(self) -> list[int]:
        """What each raw value, 0 to 255, becomes."""
        return class_numbers(self.reduce_zero_label, self.label_map).tolist()

    def meaning(self, raw: int) -> str | None:
        """The class that a raw value becomes, ``'ignored'``, or None when it is out of range."""
        value = self.numbers[raw]
        if value in self.ignored:
            return 'ignored'
        return self.classes[value] if value < len(self.classes) else None


@dataclass(frozen=True)
class PairResult:
    """What was found in one pair.

    Attributes:
        image, label_map: their paths.
        findings: what is wrong.
        histogram: pixels by raw value, 256 numbers; None when the label map cannot be used.
        digest: of the image's pixels as they are shown; None when there is nothing to see.
        thumbnail: (8, 8, 3) uint8, RGB, of the same; None like the digest.
    """

    image: str
    label_map: str
    findings: list[Finding] = field(default_factory=list)
    histogram: np.ndarray | None = None
    digest: str | None = None
    thumbnail: np.ndarray | None = None


@dataclass(frozen=True)
class _File:
    """A decoded file: its pixels as Pillow has them, their stored size, EXIF's orientation, whether it had 16 bits."""

    path: str
    image: Image.Image
    stored: tuple[int, int]
    orientation: int
    deep: bool


def check_pair(image_path: str, label_path: str, rules: Rules) -> PairResult:
    """Reads both files whole and says what is wrong with them; ``label_path`` is empty where there are no labels."""
    findings: list[Finding] = []
    image = _decoded(image_path, 'image', findings)
    label_map = _decoded(label_path, 'label map', findings) if label_path else None
    digest = thumbnail = histogram = None
    if image:
        _check_image(image, rules, findings)
        digest, thumbnail = _fingerprints(image, findings)
    if label_map:
        labels = _labels(label_map, findings)
        if labels is not None:
            histogram = np.bincount(labels.ravel(), minlength=256)
            _check_values(label_map, histogram, rules, findings)
            if image:
                _check_overlay(image, label_map, findings)
    return PairResult(image_path, label_path, findings, histogram, digest, thumbnail)


def _decoded(path: str, what: str, findings: list[Finding]) -> _File | None:
    """A file decoded to its end, or None and a finding."""

    def bad(kind, message):
        findings.append(finding(f'{what}: {kind}', path, message))

    try:
        content = read_file(path)
    except OSError as error:
        return bad('unreadable', f'cannot be read: {error.strerror or error}')
    if not content:
        return bad('empty', 'the file has 0 bytes')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image = open_image(io.BytesIO(content))
            deep = _has_more_than_8_bits(image)
            stored, orientation = stored_layout(image)
            image.load()
            complaint = _complaint(content) if image.format in ('JPEG', 'MPO') else ''
    except Image.UnidentifiedImageError:
        return bad('not an image', f'is none of {", ".join(sorted(FORMATS))}, whatever its name says')
    except Image.DecompressionBombError as error:
        return bad('huge', str(error))
    except Exception as error:  # decoders raise what they like
        return bad('damaged', f'cannot be decoded to its end: {error}')
    if complaint:
        return bad('damaged', f'is decoded with errors: {complaint}')
    return _File(path, image, stored, orientation, deep)


def _has_more_than_8_bits(image: Image.Image) -> bool:
    """Asked before the image is loaded: of 16-bit colors Pillow keeps the upper 8 bits, and forgets that it did."""
    layouts = [(tile[0], tile[3]) for tile in getattr(image, 'tile', ())]
    return image.mode.startswith(('I', 'F')) or any(
        ';16' in str(layout) or (codec == 'ppm' and isinstance(layout, tuple) and layout[1] > 255)
        for codec, layout in layouts
    )


def _complaint(content: bytes) -> str:
    """The warnings of libjpeg about a file that it decodes all the same: Pillow hides them, OpenCV prints them."""
    import cv2

    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        return ' '.join(line for line in said.read().decode(errors='replace').splitlines() if 'orrupt' in line)


def _check_image(file: _File, rules: Rules, findings: list[Finding]) -> None:
    width, height = file.image.size
    if min(width, height) < THINNEST:
        message = f'is {width} x {height}; training takes at least {THINNEST} pixels'
        findings.append(finding('image: too thin', file.path, message))
    elif rules.crop and _stays_below(rules.crop, (width, height), rules.scale):
        message = (
            f'is {width} x {height}, and smaller than the crop of {rules.crop[1]} x {rules.crop[0]} at every scale: '
            'the rest is padding'
        )
        findings.append(finding('image: smaller than the crop', file.path, message))
    if file.deep:
        message = 'has more than 8 bits per channel; only their upper 8 would be seen'
        findings.append(finding('image: more than 8 bits', file.path, message))
    frames = getattr(file.image, 'n_frames', 1)
    if frames > 1 and file.image.format != 'MPO':
        findings.append(finding('image: several frames', file.path, f'has {frames} frames; one is used'))


def _stays_below(crop: tuple[int, int], size: tuple[int, int], scale: tuple[float, float] | None) -> bool:
    width, height = size
    if scale:
        factor = min(max(scale) / max(size), min(scale) / min(size))
        width, height = round(width * factor), round(height * factor)
    return height < crop[0] or width < crop[1]


def _fingerprints(file: _File, findings: list[Finding]) -> tuple[str | None, np.ndarray | None]:
    """Digest and thumbnail of an image as it is shown."""
    if file.image.mode.startswith(('I', 'F')):
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        shown = ImageOps.exif_transpose(file.image).convert('RGB')
    extrema: Any = shown.getextrema()  # pairs, as there are three channels
    if max(high - low for low, high in extrema) <= FLAT:
        color = ', '.join(str(low) for low, _ in extrema)
        findings.append(finding('image: one color', file.path, f'shows nothing: every pixel is ({color})'))
        return None, None
    digest = hashlib.sha256(f'{shown.size}'.encode() + shown.tobytes()).hexdigest()
    return digest, np.asarray(shown.resize(THUMBNAIL, Image.Resampling.BOX))


def _labels(file: _File, findings: list[Finding]) -> np.ndarray | None:
    """The raw values as LoadAnnotations sees them, or None when they are no class numbers."""
    label_map = file.image
    if label_map.mode in COLORS:
        message = f'is a {label_map.mode} image; training wants one channel of class numbers'
        findings.append(finding('label map: colours', file.path, message))
        return None
    if file.deep:
        message = f'has {label_map.mode} pixels up to {np.asarray(label_map).max()}; they would be taken modulo 256'
        findings.append(finding('label map: more than 8 bits', file.path, message))
        return None
    if label_map.format in LOSSY:
        message = f'is a {label_map.format} file: compression has changed the class numbers at every border'
        findings.append(finding('label map: lossy', file.path, message))
    return np.asarray(label_map).astype(np.uint8)


def _check_values(file: _File, histogram: np.ndarray, rules: Rules, findings: list[Finding]) -> None:
    seen = np.flatnonzero(histogram).tolist()
    outside = [value for value in seen if rules.meaning(value) is None]
    if outside:
        first, count = int(rules.reduce_zero_label), len(rules.classes)
        message = (
            f'has the value{"s" * (len(outside) > 1)} {few(outside)} in '
            f'{histogram[outside].sum() / histogram.sum():.1%} of its pixels; the {count} classes are {first} to '
            f'{count - 1 + first}, and {few(sorted(rules.ignored))} is ignored'
        )
        remedy = None
        if outside == [count] and not first:
            remedy = (
                "if the values count from 1 and 0 means unlabelled, set reduce_zero_label=True in the data set's "
                f'config; if it means unlabelled itself, set ignore_index={count} in data set, decode head and '
                'evaluator; else add the class'
            )
        findings.append(finding('label map: out of range', file.path, message, remedy))
    elif all(rules.meaning(value) == 'ignored' for value in seen):
        findings.append(finding('label map: nothing labelled', file.path, f'holds only ignored values ({few(seen)})'))
    if file.image.mode == 'P' and rules.palette:
        _check_palette(file, seen, rules, findings)


def _check_palette(file: _File, seen: list[int], rules: Rules, findings: list[Finding]) -> None:
    """Indexed colors are class numbers only if the file's palette has the order of the classes."""
    own = np.array(file.image.getpalette('RGB') or [], dtype=int).reshape(-1, 3).tolist()
    wanted = [list(map(int, color)) for color in rules.palette]
    for value in seen:
        number = rules.numbers[value]
        if value >= len(own) or number >= len(wanted) or own[value] == wanted[number]:
            continue
        if wanted.count(own[value]) == 1:
            message = (
                f'shows the value {value} in the color of {rules.classes[wanted.index(own[value])]!r}, and training '
                f'would take it for {rules.classes[number]!r}'
            )
            findings.append(finding('label map: palette in another order', file.path, message))
            return


def _check_overlay(image: _File, label_map: _File, findings: list[Finding]) -> None:
    stored, size, orientation = image.stored, label_map.image.size, image.orientation
    upright = stored[::-1] if orientation >= 5 else stored
    if size not in (stored, upright):
        hint = ' (height and width exchanged)' if size == stored[::-1] else ''
        message = f'is {size[0]} x {size[1]}{hint}, its image {image.path} {upright[0]} x {upright[1]}'
        findings.append(finding('pair: sizes differ', label_map.path, message))
    elif label_map.orientation in TURN:
        if label_map.orientation != orientation:
            message = f'is turned by EXIF (orientation {label_map.orientation}), and its image is not, or otherwise'
            findings.append(finding('pair: turned by EXIF', label_map.path, message))
    elif orientation in TURN:
        turned = f'is turned when it is shown (EXIF orientation {orientation})'
        if upright == stored:
            message = f'{turned}, and nothing says whether its label map is to be turned along'
            findings.append(finding('pair: turned by EXIF', image.path, message, severity=ERROR))
        else:
            along = turn_of_label_map(stored, orientation, size) is not None
            how = 'along with it' if along else 'no more, being upright already'
            message = f'{turned}; by its size, its label map is turned {how}'
            findings.append(finding('pair: turned by EXIF', image.path, message, severity=WARNING))
