"""Label maps as MMSegmentation loads them, minus what it gets wrong in silence."""
from pathlib import Path

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from ..errors import DataError

# EXIF's Orientation, and how the stored pixels are turned into the picture
_ORIENTATION = 0x0112
_TURN = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
ONE_CHANNEL = ('L', 'P', '1')


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """MMSegmentation's LoadAnnotations; a label map that does not belong over its image is an error with both names.

    A picture that its EXIF tag turns is loaded upright. Its label map is turned along, unless its size shows that it is
    upright already.

    Raises:
        DataError: for a label map of several channels, of more than 8 bits, or of another size than the image.
    """

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        with Image.open(path) as label_map:
            if label_map.mode not in ONE_CHANNEL:
                raise DataError(f'{path} is a {label_map.mode} image; a label map has one 8-bit channel of class numbers')
            size = label_map.size
        super()._load_seg_map(results)
        turn = turn_of_label_map(results['img_path'], size) if 'img_path' in results else None
        if turn:
            upright = Image.fromarray(results['gt_seg_map']).transpose(turn)
            results['gt_seg_map'] = np.asarray(upright).copy()
        shown = tuple(results.get('ori_shape', results['gt_seg_map'].shape)[:2])
        if results['gt_seg_map'].shape != shown:
            height, width = results['gt_seg_map'].shape
            raise DataError(f"{path} is {width} x {height}, its image {results.get('img_path')} {shown[1]} x {shown[0]}; they must be of one size")


def turn_of_label_map(image_path: str | Path, size: tuple[int, int]) -> Image.Transpose | None:
    """How a label map of ``size`` (width, height) must be turned to lie over its image as the image is shown."""
    with Image.open(image_path) as image:
        stored, orientation = image.size, orientation_of(image)
    if orientation not in _TURN or (size != stored and size == stored[::-1] and orientation >= 5):
        return None
    return _TURN[orientation]


def orientation_of(image: Image.Image) -> int:
    """EXIF's Orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError):
        return 1
    return orientation if orientation in _TURN else 1
