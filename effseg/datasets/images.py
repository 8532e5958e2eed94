"""Image files as a person sees them, opened so that a hostile one costs an error and nothing else."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError

MAX_PIXELS = 2**27  # 11585 x 11585; decoding takes up to 12 bytes for each
_WHITE = (255, 255, 255, 255)
Image.init()
# what people photograph and label in, as far as this Pillow has it; PostScript, say, would start a program
FORMATS = tuple({'JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'AVIF', 'JPEG2000', 'PPM'} & Image.OPEN.keys())


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Opens an image as ``PIL.Image.open`` does, which reads its header alone, if Pillow decodes its format by itself
    and its pixels fit into memory.

    Raises:
        OSError: when there is no such file, or it is no image of these formats.
        Image.DecompressionBombError: when it has more than :data:`MAX_PIXELS`.
    """
    if isinstance(source, (str, Path)) and Path(source).exists() and not Path(source).is_file():
        raise OSError('it is a folder, a pipe or a device')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # ours is the limit
        image = Image.open(source, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f'{image.width} x {image.height} are more than {MAX_PIXELS} pixels')
    return image


def read_image(path: str | Path) -> np.ndarray:
    """An image as a person sees it: turned as its EXIF says, on white where it is transparent, its first frame if it
    moves.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: when the file is not an image, a truncated one, or too large.
    """
    try:
        with open_image(path) as image:
            image.load()
            return np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert('RGB'))
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as an image: {error or type(error).__name__}') from error


def is_transparent(path: str | Path) -> bool:
    """Whether what is seen of an image depends on what lies behind it.

    Raises:
        DataError: when the file is not an image, or too large.
    """
    try:
        with open_image(path) as image:
            return 'A' in image.mode or 'transparency' in image.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as an image: {error}') from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):
        # 16 bits, whatever Pillow calls them
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers, and nothing says which is white')
    if 'A' in image.mode or 'transparency' in image.info:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, _WHITE), image)
    return image
