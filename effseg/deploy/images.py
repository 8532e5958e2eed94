"""Images of any size as images of an artifact's size."""

import numpy as np

CONTENTS = (1.0, None, 0.5)  # the image as it is, shrunk or grown to fit, and half of that


def fit(image: np.ndarray, size: tuple[int, int], number: int, fill: tuple[int, ...]) -> np.ndarray:
    """An image in the corner of an image of one size, cut or padded: (H, W, 3) uint8.

    Args:
        image: (h, w, 3) uint8.
        size: (H, W) of the image.
        number: picks one of :data:`CONTENTS` in turn, so that a set of images shows content of three sizes.
        fill: the color of the padding.
    """
    return _fit(image, image.shape[:2], size, number, fill, bilinear=True)


def fit_mask(mask: np.ndarray, image: tuple[int, int], size: tuple[int, int], number: int) -> np.ndarray:
    """The mask of what :func:`fit` makes of an image, as (H, W) uint8, 255 where the image is padding.

    Args:
        mask: (h, w) uint8.
        image: (h, w) of the image, which a pipeline may have resized without the mask.
        size, number: as in :func:`fit`.
    """
    return _fit(mask, image, size, number, 255, bilinear=False)


def _fit(
    pixels: np.ndarray, shown: tuple[int, int], size: tuple[int, int], number: int, fill, bilinear: bool
) -> np.ndarray:
    from PIL import Image

    content = CONTENTS[number % len(CONTENTS)]
    whole = min(size[0] / shown[0], size[1] / shown[1])
    scale = 1.0 if content == 1.0 else whole * (content or 1.0)
    target = max(round(shown[0] * scale), 1), max(round(shown[1] * scale), 1)
    if target != pixels.shape[:2]:
        how = Image.Resampling.BILINEAR if bilinear else Image.Resampling.NEAREST
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(target[::-1], how))
    image = np.empty((*size, *pixels.shape[2:]), dtype=np.uint8)
    image[:] = fill
    pixels = pixels[: size[0], : size[1]]
    image[: pixels.shape[0], : pixels.shape[1]] = pixels
    return image
