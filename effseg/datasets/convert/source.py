"""What every format is read into: images, and for each its label map or the shapes that are drawn into one."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..images import IMAGE_SUFFIXES, files_in, opened, read_file
from ..orientation import stored_layout

IGNORED = 255
#: names that labelling tools give to pixels of no class
VOID = ('void', 'unlabelled', 'unlabeled', 'ignore', 'ignored', '__ignore__', '_ignore_')
SPLITS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}
_MAX_BYTES = 2**31  # of one file of labels


@dataclass(frozen=True)
class Shape:
    """An area of one class.

    Attributes:
        name: of the class.
        polygons: (n, 2) each, x and y in pixels from the upper left corner of the image.
        mask: gives (h, w) bool, for an area that is no polygon.
        at: left and top of the mask in the image.
    """

    name: str
    polygons: tuple[np.ndarray, ...] = ()
    mask: Callable[[], np.ndarray] | None = None
    at: tuple[int, int] = (0, 0)


def polygon(name: str, values: Any, where: str) -> Shape:
    """A shape of one polygon; arguments and errors as in :func:`points`."""
    return Shape(name, (points(values, where),))


@dataclass(frozen=True)
class Sample:
    """An image and what is labelled in it.

    Attributes:
        image: its file; None when there is none.
        label: the file of labels, and the name of the image in it where it holds several; for messages.
        shapes: to be drawn, the later ones over the earlier ones.
        mask: the file of a label map, in place of shapes.
        split: 'train', 'val' or 'test', where the folder says so.
        size: width and height of the image as the labels have it, where they do.
    """

    image: Path | None
    label: str
    shapes: tuple[Shape, ...] = ()
    mask: Path | None = None
    split: str | None = None
    size: tuple[int, int] | None = None


@dataclass
class Source:
    """A folder of labels.

    Attributes:
        form: the name of the format.
        samples: with labels.
        classes: names in the order of the format; of shapes and of label maps.
        colors: RGB by name, where the format has them.
        values: class name by pixel value, for label maps; a color counts as 65536 R + 256 G + B.
        colored: whether the label maps are of colors.
        unlabelled: images without labels.
        odd: per kind of mistake, what is affected by it.
        notes: decisions to be said.
    """

    form: str
    samples: list[Sample]
    classes: list[str] = field(default_factory=list)
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)
    colored: bool = False
    unlabelled: list[Path] = field(default_factory=list)
    odd: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def mistake(self, kind: str, where: str) -> None:
        """Notes what cannot be used, by its kind."""
        self.odd.setdefault(kind, []).append(where)


class Images:
    """The image files below a folder, found by the names that files of labels have for them.

    Only files of the folder are found, whatever path a file of labels holds.
    """

    def __init__(self, root: Path):
        self.root, self.used = root, set[Path]()
        self.files = list(files_in(root, IMAGE_SUFFIXES))
        self._by_name: dict[str, list[Path]] = {}
        for file in self.files:
            for name in {file.name, file.stem}:
                self._by_name.setdefault(name, []).append(file)

    def find(self, name: str, near: Path) -> Path | None:
        """The image that is called ``name``, with folders or without, whatever its suffix or that of the name.

        Of several, the one whose path has the most in common with the name and with ``near``, the file of labels; None
        when there is none, or two that are as good.
        """
        parts = [part for part in re.split(r'[/\\]', name) if part not in ('', '.', '..')]
        if not parts:
            return None
        found = self._by_name.get(parts[-1]) or self._by_name.get(Path(parts[-1]).stem) or []
        wanted = {*parts[:-1]}, {*near.relative_to(self.root).with_suffix('').parts}
        scores = [tuple(len(words & {*self._place(file)}) for words in wanted) for file in found]
        best = [file for file, score in zip(found, scores) if score == max(scores)]
        if len(best) != 1:
            return None
        self.used.add(best[0])
        return best[0]

    def rest(self) -> list[Path]:
        """The images that no file of labels has named so far."""
        return [file for file in self.files if file not in self.used]

    def _place(self, file: Path) -> tuple[str, ...]:
        return file.relative_to(self.root).with_suffix('').parts


def split_of(folder: Path, root: Path) -> str | None:
    """The split that the words of a folder's path below ``root`` say."""
    for part in folder.relative_to(root).parts:
        for word in re.split(r'[^a-z]+', part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return None


def read_text(path: Path) -> str:
    """The text of a file of labels.

    Raises:
        DataError: when it is no text, or too large.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f'it has more than {_MAX_BYTES} bytes')
        return read_file(path).decode('utf-8-sig')
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read: {error}') from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: when it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f'{path} is no JSON: {error}') from error


def layout(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of an image's pixels as they are stored, and how EXIF turns them.

    Raises:
        DataError: when it is no image.
    """
    with opened(path) as image:
        return stored_layout(image)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is shown.

    Raises:
        DataError: when it is no image.
    """
    size, orientation = layout(path)
    return size[::-1] if orientation >= 5 else size


def points(values: Any, where: str) -> np.ndarray:
    """The points of a polygon, (n, 2) float.

    Args:
        values: pairs, or x and y in turn.
        where: for the message.

    Raises:
        DataError: when they are no finite numbers, or fewer than three points.
    """
    try:
        found = np.asarray(values, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f'{where} holds a polygon whose points are no pairs of numbers') from error
    if len(found) < 3 or not np.isfinite(found).all():
        raise DataError(f'{where} holds a polygon of {len(found)} points; three or more, all finite, were expected')
    return found


def box(edges: Sequence[float], turn: float = 0.0, around: Sequence[float] | None = None) -> np.ndarray:
    """A rectangle as a polygon.

    Args:
        edges: left, top, right, bottom.
        turn: in degrees, clockwise.
        around: the point, x and y, that it is turned around; its center when left out.
    """
    left, top, right, bottom = edges
    return _turned([[left, top], [right, top], [right, bottom], [left, bottom]], turn, around)


def ellipse(shape: Sequence[float], turn: float = 0.0) -> np.ndarray:
    """An ellipse as a polygon.

    Args:
        shape: x and y of its center, and its half axes.
        turn: in degrees, clockwise.
    """
    x, y, width, height = shape
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return _turned(np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], 1), turn)


def in_runs(runs: np.ndarray, width: int, height: int, where: str) -> np.ndarray:
    """Whether each of ``width * height`` pixels is inside, from the lengths of runs in turn outside and inside.

    Raises:
        DataError: when they do not make up so many pixels.
    """
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width or height < 1 or height * width > 2**27:
        raise DataError(f'{where} has run lengths that do not make up {width} x {height} pixels')
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def _turned(corners, turn: float, around: Sequence[float] | None = None) -> np.ndarray:
    corners, angle = np.asarray(corners, dtype=np.float64), np.deg2rad(turn)
    center = corners.mean(0) if around is None else np.asarray(around)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (corners - center) @ rotation.T + center
