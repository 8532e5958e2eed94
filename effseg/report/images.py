"""The gallery: photo, truth, prediction and errors as layers that the page fades between."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..apis.predict import read_image
from ..segmentors.confidence import UNKNOWN
from .recorder import Scene

SIDE = 640  # pixels of the longer side in the page
IGNORED, WRONG = (128, 128, 128, 190), (225, 29, 72, 235)


@dataclass(frozen=True)
class Layers:
    """A scene for the page; layers are data URLs of one size.

    Attributes:
        name: of the file.
        iou, accuracy: in percent.
        width, height: of the layers, in pixels.
        photo, truth, prediction: the image, and the colors of its labels.
        errors: transparent where the label is right.
        missed: the largest confusions as (share of the pixels in percent, true class, predicted class).
        classes: (name, color) of the classes that are in truth or prediction, the most frequent first.
    """

    name: str
    iou: float
    accuracy: float
    width: int
    height: int
    photo: str
    truth: str
    prediction: str
    errors: str
    missed: list[tuple[float, str, str]]
    classes: list[tuple[str, str]]


def choose(scenes: list[Scene], count: int) -> tuple[list[Scene], list[Scene]]:
    """The ``count`` scenes of lowest IoU, worst first, and the ``count`` of highest, best first; none is in both."""
    ordered = sorted(scenes, key=lambda scene: scene.iou)
    worst = ordered[: min(count, -(-len(ordered) // 2))]
    return worst, ordered[len(worst) :][::-1][:count]


def layers(scene: Scene, classes: list[str], palette: np.ndarray) -> Layers:
    """Makes the layers of a scene.

    Args:
        scene: from a recorder.
        classes: names.
        palette: (classes, 3) uint8.

    Raises:
        DataError: when the photo cannot be read any more.
    """
    truth, labels = (np.asarray(Image.open(path, formats=['PNG'])) for path in (scene.truth, scene.labels))
    photo = Image.fromarray(read_image(scene.image)).resize(truth.shape[::-1], Image.Resampling.BILINEAR)
    scale = min(1.0, SIDE / max(photo.size))
    size = (max(round(photo.width * scale), 1), max(round(photo.height * scale), 1))
    ignored = truth == 255
    unknown = labels == UNKNOWN
    wrong = (labels != truth) & ~ignored & ~unknown
    errors = np.where(ignored | unknown, 1, np.where(wrong, 2, 0)).astype(np.uint8)
    counts = np.bincount(np.concatenate([truth[~ignored], labels[~ignored & ~unknown]]), minlength=len(classes))
    colors: dict[int, tuple[int, ...]] = {**dict(enumerate(map(tuple, palette.tolist()))), UNKNOWN: IGNORED}
    present = [int(index) for index in np.argsort(-counts) if counts[index]]
    return Layers(
        name=scene.image.name,
        iou=100 * scene.iou,
        accuracy=100 * scene.accuracy,
        width=size[0],
        height=size[1],
        photo=_url(photo.resize(size, Image.Resampling.LANCZOS), 'JPEG', quality=82),
        truth=_layer(truth, size, colors),
        prediction=_layer(labels, size, colors),
        errors=_layer(errors, size, {0: (0, 0, 0, 0), 1: IGNORED, 2: WRONG}),
        missed=_missed(truth, labels, wrong, classes),
        classes=[(classes[index], '#{:02x}{:02x}{:02x}'.format(*palette[index])) for index in present],
    )


def _missed(
    truth: np.ndarray, labels: np.ndarray, wrong: np.ndarray, classes: list[str]
) -> list[tuple[float, str, str]]:
    pairs, counts = np.unique(truth[wrong].astype(np.int64) * len(classes) + labels[wrong], return_counts=True)
    order = np.argsort(-counts)[:3]
    return [
        (100 * counts[i] / truth.size, classes[pairs[i] // len(classes)], classes[pairs[i] % len(classes)])
        for i in order
    ]


def _layer(labels: np.ndarray, size: tuple[int, int], colors: dict[int, tuple[int, ...]]) -> str:
    """An indexed PNG: a tenth of the bytes of one in true color."""
    image = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    image = Image.frombytes('P', image.size, image.tobytes())
    table = np.zeros((256, 4), dtype=np.uint8)
    for index, color in colors.items():
        table[index] = color if len(color) == 4 else (*color, 255)
    image.putpalette(table[:, :3].tobytes())
    return _url(image, 'PNG', optimize=True, transparency=table[:, 3].tobytes())


def _url(image: Image.Image, file_format: str, **options) -> str:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return f'data:image/{file_format.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}'
