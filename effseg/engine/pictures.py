"""Picture files as a person sees them, and networks on pictures too large for one piece."""
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor, nn

from ..errors import DataError

LARGEST = 2048 * 1024  # pixels that go through the network in one piece
WINDOW, MARGIN = 1024, 128  # pixels; multiples of 32, the network's stride
_WHITE = (255, 255, 255, 255)


def read_image(path: str | Path) -> np.ndarray:
    """A picture as a person sees it: turned as its EXIF says, on white where it is transparent, its first frame if it moves.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: when the file is not an image, or a truncated one.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert('RGB'))
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as an image: {error or type(error).__name__}') from error


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


class Windows(nn.Module):
    """A network that takes pictures of any size in memory that does not grow with them, beyond its output.

    Small ones go through whole. Larger ones go through in windows that overlap, of each of which the middle is kept.

    Args:
        network: has ``logits(x)``: (1, 3, H, W) -> (1, classes, H / 4, W / 4).
        largest: pixels of the largest picture that goes through whole.
    """

    def __init__(self, network: nn.Module, largest: int = LARGEST):
        super().__init__()
        self.network, self.largest = network, largest

    def logits(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes, ceil(H / 4), ceil(W / 4))."""
        height, width = x.shape[2:]
        if height * width <= self.largest:
            return self.network.logits(x)
        out = None
        for top, bottom, keep_top, keep_bottom in _pieces(height):
            for left, right, keep_left, keep_right in _pieces(width):
                piece = self.network.logits(x[:, :, top:bottom, left:right])
                if out is None:
                    out = piece.new_empty(*piece.shape[:2], -(-height // 4), -(-width // 4))
                # counted from the end of the piece where it is the last one: odd sizes round up there alone
                kept = piece[:, :, (keep_top - top) // 4:-(-(keep_bottom - top) // 4), (keep_left - left) // 4:-(-(keep_right - left) // 4)]
                out[:, :, keep_top // 4:-(-keep_bottom // 4), keep_left // 4:-(-keep_right // 4)] = kept
        return out


def _pieces(length: int) -> list[tuple[int, int, int, int]]:
    """Windows over a length: where each begins and ends, and the part of it that is kept."""
    if length <= WINDOW:
        return [(0, length, 0, length)]
    starts = list(range(0, length - WINDOW, WINDOW - 2 * MARGIN))
    pieces = []
    for number, start in enumerate(starts + [starts[-1] + WINDOW - 2 * MARGIN]):
        end = min(start + WINDOW, length)
        last = end == length
        pieces.append((start, end, start + MARGIN if number else 0, length if last else end - MARGIN))
        if last:
            break
    return pieces


def in_windows(model: nn.Module) -> nn.Module:
    """Lets a :class:`effseg.evaluation.fused.LabelSegmentor` take large pictures in windows; other models stay as they are."""
    if isinstance(getattr(model, 'network', None), nn.Module) and hasattr(model.network, 'logits') and not isinstance(model.network, Windows):
        model.network = Windows(model.network)
    return model
