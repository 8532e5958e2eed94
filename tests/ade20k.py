"""Images in ADE20K's folders and numbers, drawn on the spot: the data set itself cannot be had here."""

from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ('training', 'validation')


def write_ade20k(
    root: Path, train: int = 2, val: int = 2, size: tuple[int, int] = (96, 128), regions: int = 12
) -> Path:
    """Writes ``images/{training,validation}/*.jpg`` and ``annotations/...png``: 0 is unlabelled, class c is c + 1.

    Every image is a handful of regions in the colors of their classes; of the 150 classes the first ones are the
    most frequent, as in ADE20K.
    """
    from mmseg.datasets import ADE20KDataset

    palette = np.array(ADE20KDataset.METAINFO['palette'], dtype=np.float32)
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, len(palette) + 1) ** 0.8
    rows, columns = np.mgrid[: size[0], : size[1]]
    for split, count in zip(SPLITS, (train, val)):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            centres = rng.random((regions, 2)) * size
            classes = rng.choice(len(palette), regions, p=frequency / frequency.sum())
            classes[0] = len(palette) - 1  # so that the numbers are seen to reach their end
            distances = np.stack([np.hypot(rows - y, columns - x) for y, x in centres])
            nearest, second = np.sort(distances, axis=0)[:2]
            labels = classes[distances.argmin(0)] + 1
            image = palette[labels - 1] + rng.normal(0, 12, (*size, 3))
            labels[second - nearest < 1] = 0
            name = f'ADE_{split[:-3]}_{number:08d}'
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
                root / 'images' / split / f'{name}.jpg', quality=95
            )
            Image.fromarray(labels.astype(np.uint8)).save(root / 'annotations' / split / f'{name}.png')
    return root
