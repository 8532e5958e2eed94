"""The built-in data set: drawn scenes in the folder layout MMSegmentation reads.

    python -m effseg.demo data/demo

writes images/{train,val}/*.jpg and annotations/{train,val}/*.png (8-bit label maps, 255 is ignored) within seconds.
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from .. import files
from ..apis import cli
from ..errors import ConfigError, DataError
from .scenes import draw_scene

#: holds the arguments a folder was written with, so that a second call completes the same set or refuses
PLAN = 'demo.json'
SPLITS = ('train', 'val')
LARGEST_SIDE, MOST = 8192, 10**6  # pixels, and scenes of a split: more is a mistake in typing


def write_demo_data(
    root: str | Path, train: int = 160, val: int = 40, size: tuple[int, int] = (192, 288), seed: int = 0
) -> int:
    """Writes the data set, or what is missing of it; returns the number of scenes written now.

    Every scene depends on the seed, its split and its number alone: the splits share none, and a larger set begins with
    the smaller one.

    Args:
        root: folder to write into; made when absent.
        train: number of training scenes.
        val: number of held-out scenes.
        size: height and width of the images in pixels, each at least 32 and at most :data:`LARGEST_SIDE`.
        seed: non-negative; another seed draws other scenes.

    Raises:
        ConfigError: for a size, number or seed out of range.
        DataError: when root holds other data, or a set drawn with other arguments; nothing of it is touched.
    """
    sides, counts = range(32, LARGEST_SIDE + 1), range(1, MOST + 1)
    if not all(side in sides for side in size) or not (train in counts and val in counts) or seed < 0:
        raise ConfigError(
            f'cannot draw train={train}, val={val}, size={tuple(size)}, seed={seed}: expected 1 to {MOST} scenes '
            f'per split, a height and width of 32 to {LARGEST_SIDE}, and a seed of at least 0'
        )
    root = Path(root)
    _claim(root, dict(train=train, val=val, size=list(size), seed=seed))
    written = 0
    for split, count in zip(SPLITS, (train, val)):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            written += _write_scene(root, split, number, size, seed)
    return written


def _claim(root, plan):
    file = root / PLAN
    try:
        present = json.loads(file.read_text())
    except FileNotFoundError:
        taken = [folder for folder in ('images', 'annotations') if (root / folder).exists()]
        if taken:
            raise DataError(
                f'{root} already holds {" and ".join(taken)} that the demo did not draw: give another folder'
            ) from None
        root.mkdir(parents=True, exist_ok=True)
        files.write(file, json.dumps(plan).encode())
        return
    except (ValueError, RecursionError):
        present = 'unreadable'
    if present != plan:
        raise DataError(
            f'{root} holds a demo set drawn as {present}, asked for was {plan}: delete the folder or give another'
        )


def _write_scene(root, split, number, size, seed):
    image_file = root / 'images' / split / f'{number:04d}.jpg'
    label_file = root / 'annotations' / split / f'{number:04d}.png'
    if image_file.exists() and label_file.exists():
        return 0
    image, labels = draw_scene(size, np.random.default_rng([seed, SPLITS.index(split), number]))
    # whole or not at all: an interrupted run must leave no half file that the next one takes for a whole one
    files.write(image_file, _encoded(image, 'JPEG', quality=95))
    files.write(label_file, _encoded(labels, 'PNG'))
    return 1


def _encoded(pixels, file_format, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, file_format, **options)
    return stream.getvalue()


def main(arguments: list[str]) -> None:
    """The command line, for :func:`effseg.apis.cli.run`."""
    parser = cli.Parser(prog='python -m effseg.demo', description='Writes the built-in data set.')
    parser.add_argument('root', type=Path)
    parser.add_argument('--train', type=int, default=160, help='number of training scenes (default: %(default)s)')
    parser.add_argument('--val', type=int, default=40, help='number of held-out scenes (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(192, 288), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    written = write_demo_data(options.root, options.train, options.val, tuple(options.size), options.seed)
    print(f'{str(options.root)!r}: {options.train} training and {options.val} held-out scenes, {written} written now')
