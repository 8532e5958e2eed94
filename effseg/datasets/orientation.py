"""EXIF's Orientation: how stored pixels are turned into the picture that a person sees."""

from pathlib import Path

from PIL import Image

TAG = 0x0112
TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """1 to 8; 1 where there is none that can be read."""
    try:
        orientation = image.getexif().get(TAG, 1)
    except (OSError, SyntaxError, ValueError):
        return 1
    return orientation if orientation in TURN else 1


def turn_of_label_map(image_path: str | Path, size: tuple[int, int]) -> Image.Transpose | None:
    """How a label map of ``size`` (width, height) must be turned to lie over its image as the image is shown.

    It lies over the stored pixels, unless its size shows that it is upright already.
    """
    with Image.open(image_path) as image:
        stored, orientation = image.size, orientation_of(image)
    if orientation not in TURN or (size != stored and size == stored[::-1] and orientation >= 5):
        return None
    return TURN[orientation]
