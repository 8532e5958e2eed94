"""Images and label maps as MMSegmentation loads them, minus what it gets wrong in silence."""

import io

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from ..errors import DataError
from .images import is_transparent, open_image, read_image
from .orientation import stored_layout, turn_of_label_map

ONE_CHANNEL = ('L', 'P', '1')


class OnWhiteBackend(LocalBackend):
    """Image files, of which transparent ones come on white, as people see them: LoadImageFromFile drops their
    transparency alone. For its ``backend_args``."""

    def get(self, filepath: str) -> bytes:
        """The bytes of a file; a BMP file in memory for a transparent image.

        Raises:
            DataError: for what is no image, or too large, and for a transparent one that cannot be read to its end.
        """
        if not is_transparent(filepath):
            return super().get(filepath)
        content = io.BytesIO()
        Image.fromarray(read_image(filepath)).save(content, 'BMP')
        return content.getvalue()


register_backend('on_white', OnWhiteBackend, force=True)


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """MMSegmentation's LoadAnnotations; a label map that does not belong over its image is an error with both names.

    A picture that its EXIF tag turns is loaded upright. Its label map is turned along, unless its size shows that it is
    upright already.

    Raises:
        DataError: for a label map that cannot be read, of several channels, of more than 8 bits, or of another size
            than the image.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``gt_seg_map`` to a sample of a data set; an image that comes from none, to be predicted, has no label
        map."""
        return super().transform(results) if 'seg_fields' in results else results

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        try:
            with open_image(path) as label_map:
                mode, size = label_map.mode, label_map.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f'{path} cannot be read as a label map: {error}') from error
        if mode not in ONE_CHANNEL:
            raise DataError(f'{path} is a {mode} image; a label map has one 8-bit channel of class numbers')
        super()._load_seg_map(results)
        results['gt_seg_map'] = results['gt_seg_map'].reshape(size[::-1])  # MMSegmentation drops axes of one pixel
        turn = None
        if 'img_path' in results:
            with open_image(results['img_path']) as image:
                turn = turn_of_label_map(*stored_layout(image), size)
        if turn is not None:
            upright = Image.fromarray(results['gt_seg_map']).transpose(turn)
            results['gt_seg_map'] = np.asarray(upright).copy()
        shown = tuple(results.get('ori_shape', results['gt_seg_map'].shape)[:2])
        if results['gt_seg_map'].shape != shown:
            height, width = results['gt_seg_map'].shape
            raise DataError(
                f'{path} is {width} x {height}, its image {results.get("img_path")} {shown[1]} x {shown[0]}; they '
                'must be of one size'
            )
