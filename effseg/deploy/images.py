"""Pictures of any size as images of an artifact's size."""
import numpy as np

CONTENTS = (1., None, .5)  # the picture as it is, shrunk or grown to fit, and half of that


def fit(picture: np.ndarray, size: tuple[int, int], number: int, fill: tuple[float, ...]) -> np.ndarray:
    """A picture in the corner of an image of one size, cut or padded.

    Args:
        picture: (h, w, 3) uint8.
        size: (H, W) of the image.
        number: picks one of :data:`CONTENTS` in turn, so that a set of pictures shows content of three sizes.
        fill: the colour of the padding.

    Returns:
        (H, W, 3) uint8.
    """
    from PIL import Image
    content = CONTENTS[number % len(CONTENTS)]
    whole = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    scale = 1. if content == 1. else whole * (content or 1.)
    if scale != 1.:
        target = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
        picture = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(target, Image.Resampling.BILINEAR))
    image = np.empty((*size, 3), dtype=np.uint8)
    image[:] = np.round(fill)
    picture = picture[:size[0], :size[1]]
    image[:picture.shape[0], :picture.shape[1]] = picture
    return image
