"""EXIF's Orientation: how stored pixels are turned into the image that a person sees."""

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
_TIFF_SIZE = (256, 257)  # the tags of width and height
_PNG_MARKS = (b'eXIf', b'Raw profile type exif', b'XML:com.adobe.xmp')  # one of which tells how a PNG file is turned


def stored_layout(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Size (width, height) of the pixels as they are stored, and how EXIF turns them: 1 to 8, 1 where nothing says.

    Args:
        image: opened, and not loaded yet: Pillow turns a TIFF file itself as it loads it, and drops the tag.
    """
    size = image.size
    if hasattr(image, 'tag_v2'):
        size = tuple(image.tag_v2.get(tag, edge) for tag, edge in zip(_TIFF_SIZE, size))
    if image.format == 'PNG' and not _has_any(image, _PNG_MARKS):
        return size, 1  # Pillow would decode all of it to see
    try:
        orientation = image.getexif().get(TAG, 1)
    except (OSError, SyntaxError, ValueError):
        orientation = 1
    return size, orientation if orientation in TURN else 1


def _has_any(image: Image.Image, marks: tuple[bytes, ...]) -> bool:
    file = getattr(image, 'fp')  # noqa: B009, of images that come from files alone
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return any(mark in content for mark in marks)


def turn_of_label_map(stored: tuple[int, int], orientation: int, size: tuple[int, int]) -> Image.Transpose | None:
    """How to turn a label map so that it lies over its image as that is shown; None for not at all.

    A label map is taken to lie over the stored pixels, unless its size shows that it is upright already.

    Args:
        stored: (width, height) of the image's pixels as they are stored.
        orientation: of the image, by EXIF.
        size: (width, height) of the label map.
    """
    upright = size != stored and size == stored[::-1] and orientation >= 5
    return None if upright else TURN.get(orientation)
