"""From labels as a tool wrote them to the folders of images and label maps that a config names."""

import colorsys
import io
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.convert import coco, cvat, label_studio, labelme, masks, yolo
from ..datasets.convert.drawing import BACKGROUND, Classes, Drawn, classes_of, draw, renumber, shares
from ..datasets.convert.source import Source, read_json, upright_size
from ..datasets.convert.split import Division, divide
from ..errors import ConfigError, DataError
from ..files import write
from ..outputs import OutputFolder

#: readers in the order in which they are tried
FORMATS = {
    'coco': coco.read,
    'cvat': cvat.read,
    'label-studio': label_studio.read,
    'labelme': labelme.read,
    'yolo': yolo.read,
    'masks': masks.read,
}
FACTS = 'dataset.json'
_NAMED = 8  # of what is wrong, in a message


@dataclass(frozen=True)
class Dataset:
    """What :func:`convert` wrote: a folder of images and label maps for a config.

    Attributes:
        root: holds images/SPLIT, annotations/SPLIT and dataset.json.
        form: the format it was read from.
        classes: names, by number.
        palette: RGB of each class.
        shares: of each class in the labelled pixels, 0 to 1.
        images: how many, by split.
        suffix: what the images end in.
        sizes: (images, 2) width and height.
        said: what was decided, a line each.
    """

    root: Path
    form: str
    classes: list[str]
    palette: list[list[int]]
    shares: list[float]
    images: dict[str, int]
    suffix: str
    sizes: np.ndarray
    said: list[str]


def convert(
    source: str,
    out: str,
    form: str | None = None,
    mapping: dict[str, str] | None = None,
    background: bool = False,
    leave_out: bool = False,
    seed: int = 0,
) -> Dataset:
    """Writes images and label maps of class numbers, divided into ``train`` and ``val``; the source is only read.

    Pixels that nobody labelled are 255, which training ignores.

    Args:
        source: a folder of images and labels, of any of :data:`FORMATS`.
        out: the folder to write into; an earlier conversion's files there are replaced, files of others are not.
        form: a key of :data:`FORMATS`; found out when None.
        mapping: new class name by name; an empty name drops a class, whose pixels are ignored.
        background: pixels that nobody labelled are a class of their own.
        leave_out: what cannot be used is left out and said; otherwise it is an error.
        seed: for the split, where the folder has none.

    Raises:
        ConfigError: for an output folder inside the source, and a mapping that names what is not there.
        DataError: for labels that cannot be used.
    """
    if not Path(source).is_dir():
        raise DataError(f'{source} is no folder; give the one that holds images and labels')
    root = Path(source).resolve()
    folder = OutputFolder(out)
    if folder.path == root or root in folder.path.parents or folder.path in root.parents:
        raise ConfigError(f'--out {out} and {source} lie in each other; nothing is written among what is read')
    read = _read(root, form)
    classes = classes_of(read, mapping or {}, background)
    drawn = draw(read, classes)
    classes = _without_empty(read, classes, drawn)
    if read.odd and not leave_out:
        raise DataError(
            f'{source}, read as {read.form}: {_listed(read.odd)}. Correct them, or leave them out with --leave-out'
        )
    if not drawn:
        raise DataError(
            f'{source}, read as {read.form}, has no image with a label' + f': {_listed(read.odd)}' * bool(read.odd)
        )
    if len(classes.names) < 2:
        raise DataError(
            f'every labelled pixel is {classes.names[0]!r}, and the others are ignored: there is nothing to '
            'tell apart. With --background the pixels that nobody labelled are the other class'
        )
    division = divide(drawn, root, classes.names, seed)
    return _write(folder, root, read, classes, division)


def _read(root: Path, form: str | None) -> Source:
    if form is not None and form not in FORMATS:
        raise ConfigError(f'--from {form} is unknown; one of {", ".join(FORMATS)} was expected')
    for name in [form] if form else FORMATS:
        found = FORMATS[name](root)
        if found is not None:
            return found
    raise DataError(
        f'{root} holds no labels of {form or "any known format"}: images with label maps beside them (folders images '
        'and masks, or names such as 1.jpg and 1_mask.png), COCO, CVAT or Label Studio exports, labelme files, or '
        'YOLO labels with a data.yaml were expected'
    )


def _without_empty(source: Source, classes: Classes, drawn: list[Drawn]) -> Classes:
    """The classes that have pixels, which the label maps are numbered by."""
    if not drawn:
        return classes
    empty = [name for name, share in shares(drawn, classes).items() if not share]
    for name in empty:
        if name != BACKGROUND:
            source.mistake('classes without a pixel', f'{name!r} (--classes {name}= drops it)')
    return renumber(drawn, classes, [name for name in classes.names if name not in empty])


def _listed(odd: dict[str, list[str]]) -> str:
    return '; '.join(
        f'{len(where)} {kind}: {", ".join(where[:_NAMED])}' + f' and {len(where) - _NAMED} more' * (len(where) > _NAMED)
        for kind, where in odd.items()
    )


def _write(folder: OutputFolder, root: Path, source: Source, classes: Classes, division: Division) -> Dataset:
    drawn = [one for part in division.parts.values() for one in part]
    palette = _palette(source, classes)
    # all images end in it, as MMSegmentation asks for: readers go by the content of a file
    suffix = Counter(one.image.suffix.lower() for one in drawn).most_common(1)[0][0]
    names = _names(drawn, root)
    files: dict[str, Path | bytes] = {}
    for split, part in division.parts.items():
        for one in part:
            files[f'images/{split}/{names[one.image]}{suffix}'] = one.image
            files[f'annotations/{split}/{names[one.image]}.png'] = one.label_map
    before = {name for name in folder.written if name.startswith(('images/', 'annotations/'))}
    folder.claim([*files, FACTS])
    (folder.path / FACTS).unlink(missing_ok=True)  # or, after an interruption, it would tell of label maps of before
    for name in before - {*files}:
        (folder.path / name).unlink(missing_ok=True)
    for name, content in files.items():
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            _write_label_map(folder.path / name, content, palette)
        else:
            shutil.copyfile(content, folder.path / name)
    said = [f'divided {division.by}', *source.notes, *division.notes]
    said += [f'left out: {_listed({kind: where})}' for kind, where in source.odd.items()]
    dataset = Dataset(
        folder.path,
        source.form,
        classes.names,
        palette,
        list(shares(drawn, classes).values()),
        {split: len(part) for split, part in division.parts.items()},
        suffix,
        np.array([upright_size(one.image) for one in drawn]),
        said,
    )
    facts = dict(
        format=source.form,
        classes=classes.names,
        palette=palette,
        shares=dict(zip(classes.names, dataset.shares)),
        becomes={name: classes.names[number] if number < 255 else None for name, number in classes.number.items()},
        unlabelled='ignored' if classes.unlabelled == 255 else classes.names[classes.unlabelled],
        split=dict(by=division.by, seed=division.seed, images=dataset.images),
        suffix=suffix,
        sizes=dataset.sizes.tolist(),
        files={name: str(path) for name, path in files.items() if isinstance(path, Path)},
        said=said,
    )
    write(folder.path / FACTS, json.dumps(facts, indent=1, ensure_ascii=False) + '\n')
    return dataset


def read_dataset(root: Path) -> Dataset:
    """What :func:`convert` wrote.

    Raises:
        DataError: when the folder's dataset.json is not what it wrote.
    """
    facts = read_json(root / FACTS)
    try:
        return Dataset(
            root.resolve(),
            str(facts['format']),
            [str(name) for name in facts['classes']],
            [[int(value) for value in color] for color in facts['palette']],
            [float(share) for share in facts['shares'].values()],
            {str(split): int(count) for split, count in facts['split']['images'].items()},
            str(facts['suffix']),
            np.array(facts['sizes'], dtype=int).reshape(-1, 2),
            [str(line) for line in facts['said']],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f'{root / FACTS} is not as tools/convert.py writes it: {error!r}') from error


def _write_label_map(path: Path, content: bytes, palette: list[list[int]]) -> None:
    label_map = Image.open(io.BytesIO(content), formats=['PNG'])  # which was drawn here
    # all 256 colors: for a palette of a few, Pillow writes so few bits that 255 is lost
    label_map.putpalette(np.resize([*np.ravel(palette), *[0] * 768], 768).astype(np.uint8).tobytes())
    label_map.save(path)


def _names(drawn: list[Drawn], root: Path) -> dict[Path, str]:
    """The images' names without suffix; with their folders, and suffix or number, where two are called the same."""
    stems = Counter(one.image.stem for one in drawn)
    names, taken = dict[Path, str](), set[str]()
    for image in (one.image for one in drawn):
        whole = '_'.join(image.relative_to(root).with_suffix('').parts)
        wanted = [image.stem] * (stems[image.stem] == 1) + [whole, f'{whole}_{image.suffix[1:]}']
        others = (f'{whole}_{number}' for number in count(2))
        names[image] = next(name for name in chain(wanted, others) if name not in taken)
        taken.add(names[image])
    return names


def _palette(source: Source, classes: Classes) -> list[list[int]]:
    """A color for each class: that of the source, or another where there is none or it is taken."""
    palette: list[list[int]] = []
    spare = (colorsys.hsv_to_rgb(number * 0.262 % 1, 0.8 - number % 2 / 3, 1 - number % 2 / 6) for number in count(0))
    for number, name in enumerate(classes.names):
        own = [name, *(old for old, new in classes.number.items() if new == number)]
        color = next((list(source.colors[old]) for old in own if old in source.colors), None)
        if color is None and name == BACKGROUND:
            color = [0, 0, 0]
        while color is None or color in palette:
            color = [round(255 * part) for part in next(spare)]
        palette.append(color)
    return palette


def table(dataset: Dataset) -> str:
    """What was converted, to read."""
    images = ', '.join(f'{number} {split}' for split, number in dataset.images.items())
    lines = [f'{dataset.root}: {dataset.form}, {images}', f'{"class":24} {"pixels":>8}']
    lines += [f'{name[:24]:24} {share:>8.2%}' for name, share in zip(dataset.classes, dataset.shares)]
    return '\n'.join([*lines, *dataset.said])
