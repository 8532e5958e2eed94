"""A folder of images and label maps: of class numbers, of a palette, or of colors."""

import contextlib
import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import DataError
from ..images import IMAGE_SUFFIXES, files_in, opened
from .source import SPLITS, Sample, Source, read_json, read_text

_FOLDERS_OF_LABELS = re.compile(
    r'(^|[^a-z])(label(map|id)?s?|masks?|annotations?|seg(mentation(class)?)?|gt(fine)?|targets?|ground.?truth)'
    r'([^a-z]|$)',
    re.IGNORECASE,
)
_FOLDERS_OF_IMAGES = re.compile(r'(images?|imgs?|jpegimages|leftimg8bit|photos?|rgb|inputs?|data)', re.IGNORECASE)
_OF_OBJECTS = re.compile(r'(segmentationobject|instances?|vis|visuali[sz]ations?)', re.IGNORECASE)  # not of classes
_ENDING_OF_LABELS = re.compile(
    r'[_\-. ](masks?|labels?|labelids|labeltrainids|seg|segmentation|gt|gtfine_labelids|annotations?|L)$', re.IGNORECASE
)
_ENDING_OF_IMAGES = re.compile(r'[_\-. ](images?|img|leftimg8bit|rgb|sat)$', re.IGNORECASE)
_FILES_OF_NAMES = re.compile(r'label|class|color|palette|names', re.IGNORECASE)
MOST_VALUES = 1024  # of all label maps; more are no classes


def read(root: Path) -> Source | None:
    """Reads a folder of images and label maps; None when it has none."""
    images, masks = _sort_out(root)
    if not masks:
        return None
    source = Source('label maps', [])
    lists = _lists(root)
    places = {key: _split(key, path, root, lists) for key, path in {**masks, **images}.items()}
    for key, mask in masks.items():
        source.samples.append(Sample(images.get(key), str(mask.relative_to(root)), mask=mask, split=places[key]))
    source.unlabelled = [image for key, image in images.items() if key not in masks]
    source.form = 'Pascal VOC' if (root / 'SegmentationClass').is_dir() else source.form
    _find_values(source, [sample.mask for sample in source.samples if sample.image and sample.mask], root)
    return source


def _sort_out(root: Path) -> tuple[dict[tuple, Path], dict[tuple, Path]]:
    """Images and label maps, by what both have in common of their paths."""
    files = list(files_in(root, IMAGE_SUFFIXES))
    images: dict[tuple, Path] = {}
    masks: dict[tuple, Path] = {}
    in_folders = any(_is_of_labels(file.relative_to(root)) for file in files)
    stems = Counter(file.stem for file in files)
    for file in files:
        place = file.relative_to(root)
        if any(_OF_OBJECTS.fullmatch(part) for part in place.parts[:-1]):
            continue
        bare = _ENDING_OF_LABELS.sub('', file.stem)
        beside = bare != file.stem and (bare in stems or any(f'{bare}_{word}' in stems for word in ('image', 'img')))
        is_mask = _is_of_labels(place) if in_folders else beside
        stem = bare if is_mask else _ENDING_OF_IMAGES.sub('', file.stem)
        folders = [part for part in place.parts[:-1] if not _FOLDERS_OF_IMAGES.fullmatch(part)]
        folders = [part for part in folders if not (in_folders and _FOLDERS_OF_LABELS.search(part))]
        key = (*folders, stem)
        taken = masks if is_mask else images
        if key in taken:
            raise DataError(
                f'{file} and {taken[key]} are both {"label map" if is_mask else "image"} of {"/".join(key)}: give each '
                'a name of its own'
            )
        taken[key] = file
    return images, masks


def _is_of_labels(place: Path) -> bool:
    return any(_FOLDERS_OF_LABELS.search(part) for part in place.parts[:-1])


def _lists(root: Path) -> dict[str, str]:
    """Split by name, of lists such as those of Pascal VOC's ImageSets."""
    found = {}
    for path in files_in(root, ('.txt',)):
        if path.stem in ('train', 'val', 'test') and 'Main' not in path.relative_to(root).parts:
            for line in filter(str.strip, read_text(path).splitlines()):
                # a name, which may have spaces and dots, or the paths of an image and its label map
                for name in (Path(line.strip()), Path(line.split()[0])):
                    found.update({name.name: path.stem, name.stem: path.stem})
    return found


def _split(key: tuple, path: Path, root: Path, lists: dict[str, str]) -> str | None:
    words = [part.lower() for part in path.relative_to(root).parts[:-1]]
    return lists.get(key[-1]) or lists.get(path.stem) or next((SPLITS[word] for word in words if word in SPLITS), None)


def pixels(path: Path, colored: bool) -> np.ndarray:
    """The values of a label map, (H, W) int64: numbers, or colors as 65536 R + 256 G + B.

    Args:
        path: of the file.
        colored: whether its values are colors; those of a palette are.

    Raises:
        DataError: when it is no label map.
    """
    with _opened(path) as image:
        if colored:
            return np.asarray(image.convert('RGB')).astype(np.int64) @ [65536, 256, 1]
        values = np.asarray(image).astype(np.int64)
        return values if values.ndim == 2 else values[..., 0]  # grey, of three channels that are alike


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with opened(path, 'a label map') as image:
        if image.mode not in ('L', 'P', '1', 'RGB', 'RGBA', 'LA') and not image.mode.startswith('I'):
            raise ValueError(f'it is of the kind {image.mode}, which holds neither numbers nor colors')
        image.load()
        yield image


def _is_colored(path: Path, named_by_color: bool) -> bool:
    with _opened(path) as image:
        if image.mode == 'P':  # an index of a color, which a file may give a name
            return named_by_color
        if image.mode not in ('RGB', 'RGBA'):
            return False
        red, green, blue = image.convert('RGB').split()
        return red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes()


def _find_values(source: Source, masks: list[Path], root: Path) -> None:
    """Which values the label maps hold, and which classes they are."""
    rows, path_of_names = _rows_of(root)
    by_color = {isinstance(value, tuple) for _, value in rows} == {True}
    source.colored = any(_is_colored(mask, by_color) for mask in masks)
    counts: Counter[int] = Counter()
    for mask in masks:
        values, found = np.unique(pixels(mask, source.colored), return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist())))
        if len(counts) > MOST_VALUES:
            raise DataError(
                f'{mask} is the label map at which there are more than {MOST_VALUES} different values: label maps of '
                'classes have few. One that was saved as JPEG or scaled has colors in between: export it again as PNG'
            )
    names = _names(rows, path_of_names, source)
    if path_of_names:
        source.notes.append(f'names of the classes are those of {path_of_names.relative_to(root)}')
    elif not source.colored and (root / 'SegmentationClass').is_dir():
        from mmseg.utils import get_classes

        names = {value: name for value, name in enumerate(get_classes('voc')) if value in counts}
        source.notes.append("names of the classes are Pascal VOC's, since there is no labelmap.txt")
    if {*counts} == {0, 255} and [*names] == [0, 1]:
        names = {0: names[0], 255: names[1]}
    source.classes = [*dict.fromkeys(names.values())]
    for value in sorted(counts):
        if value in names or (value == 255 and not source.colored and {*counts} != {0, 255}):
            continue
        shown = f'#{value:06x}' if source.colored else str(value)
        if source.colored and value == 0:
            source.notes.append('black pixels are taken for unlabelled, since no file gives black a name')
        elif names:
            kind = f'{"colors" if source.colored else "values"} that no class has'
            source.mistake(kind, f'{shown} ({counts[value]} pixels)')
        else:
            source.classes.append(shown)
            source.values[value] = shown
            if source.colored:
                source.colors[shown] = (value >> 16, value >> 8 & 255, value & 255)
    source.values.update(names)


def _names(rows: list, path: Path | None, source: Source) -> dict[int, str]:
    """Class names by value.

    Raises:
        DataError: when one value has two names.
    """
    found: dict[int, str] = {}
    for number, (name, value) in enumerate(rows):
        if isinstance(value, tuple):
            source.colors[name] = value
            value = value[0] * 65536 + value[1] * 256 + value[2] if source.colored else number
        elif source.colored:
            raise DataError(f'{path} gives {name!r} no color, and the label maps are of colors')
        if found.setdefault(value, name) != name:
            shown = f'color, #{value:06x}' if source.colored else f'number, {value}'
            raise DataError(f'{path} gives {found[value]!r} and {name!r} one {shown}: each class takes its own')
    return found


def _rows_of(root: Path) -> tuple[list, Path | None]:
    """Names and values of the first file that holds any, and the file."""
    for path in files_in(root, ('.txt', '.csv', '.json')):
        rows = _rows(path) if _FILES_OF_NAMES.search(path.stem) else []
        if rows:
            return rows, path
    return [], None


def _rows(path: Path) -> list[tuple[str, int | tuple[int, int, int]]]:
    """Name and number or color of each class in a file; none when it is a file of something else."""
    if path.suffix == '.json':
        return _rows_of_json(read_json(path))
    rows: list[tuple[str, int | tuple[int, int, int]]] = []
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    for number, line in enumerate(lines):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line.replace(':', ',').replace('\t', ',')]))]
        except csv.Error:  # of a cell as long as a label map's run lengths
            return []
        digits = [cell for cell in cells if re.fullmatch(r'\d{1,3}', cell)]
        words = [cell for cell in cells if cell and not re.fullmatch(r'\d{1,3}', cell)]
        if not words or (number == 0 and not digits and words[0].lower() in ('name', 'class', 'label', 'pixel value')):
            continue
        if len(digits) >= 3:
            red, green, blue = (min(int(digit), 255) for digit in digits[-3:])
            rows.append((words[0], (red, green, blue)))
        elif len(digits) == 1 and len(cells) == 2:
            rows.append((words[0], int(digits[0])))
        elif not digits or len(cells) == 1:
            rows.append((line, len(rows)))
    return rows if len({type(value) for _, value in rows}) == 1 else []


def _rows_of_json(content) -> list[tuple[str, int | tuple[int, int, int]]]:
    """Names and values of the classes: in ``{name: color or number}``, ``{number: name}``, a list of names, or a list
    of ``{name, color}``."""
    rows: list = []
    if isinstance(content, list):
        for number, entry in enumerate(content):
            if isinstance(entry, dict):
                rows.append((entry.get('name') or entry.get('label'), entry.get('color', entry.get('id', number))))
            else:
                rows.append((entry, number))
    elif isinstance(content, dict):
        rows = [(value, int(key)) if str(key).isdecimal() else (key, value) for key, value in content.items()]
    found: list[tuple[str, int | tuple[int, int, int]]] = []
    for name, value in rows:
        if isinstance(value, str) and re.fullmatch(r'#?[0-9a-fA-F]{6}', value):
            value = list(bytes.fromhex(value.removeprefix('#')))
        if isinstance(value, list) and len(value) >= 3 and all(type(part) is int and 0 <= part < 256 for part in value):
            value = (value[0], value[1], value[2])
        if not isinstance(name, str) or not (type(value) is int or isinstance(value, tuple)):
            return []
        found.append((name, value))
    return found if len({type(value) for _, value in found}) == 1 else []
