"""Image files as a person sees them, opened so that a hostile one costs an error and nothing else."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError
from .orientation import stored_layout

#: what image files in a folder end in, in lower case
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.avif')
MAX_PIXELS = 2**27  # 11585 x 11585; decoding takes up to 12 bytes for each
_WHITE = (255, 255, 255, 255)
Image.init()
# what people photograph and label in, as far as this Pillow has it; PostScript, say, would start a program
FORMATS = tuple({'JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'AVIF', 'JPEG2000', 'PPM'} & Image.OPEN.keys())


def files_in(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files below a folder that end in one of ``suffixes``, whatever their case, without hidden ones."""
    for path in sorted(root.rglob('*')):
        hidden = any(part.startswith(('.', '__MACOSX')) for part in path.relative_to(root).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def read_file(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: when there is no such file, or it cannot be read.
    """
    _check_kind(path)
    return Path(path).read_bytes()


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Opens an image as ``PIL.Image.open`` does, which reads its header alone, if Pillow decodes its format by itself
    and its pixels fit into memory.

    Raises:
        OSError: when there is no such file, or it is no image of these formats.
        Image.DecompressionBombError: when it has more than :data:`MAX_PIXELS`.
    """
    if isinstance(source, (str, Path)):
        _check_kind(source)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # ours is the limit
        image = Image.open(source, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f'{image.width} x {image.height} are more than {MAX_PIXELS} pixels')
    return image


@contextlib.contextmanager
def opened(path: str | Path, what: str = 'an image') -> Iterator[Image.Image]:
    """A file as :func:`open_image` opens it, closed at the end.

    Args:
        path: of the file.
        what: it is to be, for the message.

    Raises:
        DataError: for whatever is wrong with it, also where that shows inside, as the pixels are read.
    """
    try:
        # of the bytes: from a path, Pillow maps some TIFF files into memory, and turns those by EXIF wrongly
        with open_image(io.BytesIO(read_file(path))) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as {what}: {str(error) or type(error).__name__}') from error


def read_image(path: str | Path) -> np.ndarray:
    """An image as a person sees it: turned as its EXIF says, on white where it is transparent, its first frame if it
    moves.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: when the file is not an image, a truncated one, or too large.
    """
    with opened(path) as image:
        image.load()
        return np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert('RGB'))


def read_for_opencv(path: str | Path) -> bytes:
    """The bytes of an image file that OpenCV, which drops transparency, turns some formats by EXIF and not others, and
    may lack others yet, decodes to what :func:`read_image` reads: the file's own, or those of a BMP file.

    Raises:
        DataError: when the file is not an image, a truncated one, or too large.
    """
    try:
        content = read_file(path)
        with open_image(io.BytesIO(content)) as image:
            _, orientation = stored_layout(image)
            opaque = 'A' not in image.mode and 'transparency' not in image.info
            plain = opaque and orientation == 1 and image.format not in ('AVIF', 'GIF')
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as an image: {error}') from error
    if plain:
        return content
    bitmap = io.BytesIO()
    Image.fromarray(read_image(path)).save(bitmap, 'BMP')
    return bitmap.getvalue()


def _check_kind(path: str | Path) -> None:
    if Path(path).exists() and not Path(path).is_file():  # reading a pipe or a device may never end
        raise OSError('it is a folder, a pipe or a device')


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
