"""Picture files as a person sees them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError

Image.init()
#: what people photograph and label in, as far as this Pillow has it; PostScript, say, would start a program
FORMATS = tuple({'JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'AVIF', 'JPEG2000', 'PPM'} & Image.OPEN.keys())
_WHITE = (255, 255, 255, 255)


def read_image(path: str | Path) -> np.ndarray:
    """A picture as a person sees it: turned as its EXIF says, on white where it is transparent, its first frame if it
    moves.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: when the file is not an image, or a truncated one.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert('RGB'))
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as an image: {error or type(error).__name__}') from error


def is_transparent(path: str | Path) -> bool:
    """Whether what is seen of a picture depends on what lies behind it; False for what is no picture."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return 'A' in image.mode or 'transparency' in image.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):
        # 16 bits, whatever Pillow calls them
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers, and nothing says which is white')
    if 'A' in image.mode or 'transparency' in image.info:
        picture = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', picture.size, _WHITE), picture)
    return image
