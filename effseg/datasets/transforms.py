"""Images and label maps as MMSegmentation loads them, minus what it gets wrong in silence."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import LocalBackend, register_backend
from mmseg.datasets.transforms import LoadAnnotations, RandomCrop
from mmseg.registry import TRANSFORMS

from ..errors import ConfigError, DataError
from .images import open_image, opened, read_for_opencv
from .labels import class_numbers
from .orientation import TURN, stored_layout, turn_of_label_map

ONE_CHANNEL = ('L', 'P', '1')


class OnWhiteBackend(LocalBackend):
    """Reads image files upright, and on white where they are transparent, whatever their format; for the
    ``backend_args`` of LoadImageFromFile."""

    def get(self, filepath: str) -> bytes:
        """See :func:`effseg.datasets.images.read_for_opencv`."""
        return read_for_opencv(filepath)


register_backend('on_white', OnWhiteBackend, force=True)


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """MMSegmentation's LoadAnnotations; a label map that does not belong over its image is an error with both names.

    An image that its EXIF tag turns is loaded upright. Its label map is turned along, unless its size shows that it is
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
        with opened(path, 'a label map') as label_map:
            if label_map.mode not in ONE_CHANNEL:
                raise DataError(
                    f'{path} is a {label_map.mode} image; a label map has one 8-bit channel of class numbers'
                )
            # as it is loaded, Pillow turns a TIFF file by its own tag
            turned = label_map.format == 'TIFF' and stored_layout(label_map)[1] in TURN
            label_map.load()
        if 'img_path' in results and not turned:
            with open_image(results['img_path']) as image:
                turn = turn_of_label_map(*stored_layout(image), label_map.size)
            label_map = label_map if turn is None else label_map.transpose(turn)
        shown = tuple(results.get('ori_shape', label_map.size[::-1])[:2])
        if label_map.size != shown[::-1]:
            raise DataError(
                f'{path} is {label_map.width} x {label_map.height}, its image {results.get("img_path")} {shown[1]} x '
                f'{shown[0]}; they must be of one size'
            )
        if self.reduce_zero_label not in (None, results['reduce_zero_label']):
            raise DataError(
                f'reduce_zero_label is {results["reduce_zero_label"]} in the data set and {self.reduce_zero_label} in '
                'LoadLabelMap; set it in the data set alone'
            )
        numbers = class_numbers(results['reduce_zero_label'], results.get('label_map'))
        results['gt_seg_map'] = numbers[np.asarray(label_map).astype(np.uint8)]
        results['seg_fields'].append('gt_seg_map')


@TRANSFORMS.register_module()
class Unlabelled(BaseTransform):
    """Gives an image without labels a label map in which every pixel is ignored, in the place of LoadLabelMap: beside a
    teacher such images are learnt from as well.

    Args:
        ignore_index: of the data set.
    """

    def __init__(self, ignore_index: int = 255):
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Adds ``gt_seg_map``, (H, W) uint8."""
        results['gt_seg_map'] = np.full(results['img_shape'][:2], self.ignore_index, np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class TrackPixels(BaseTransform):
    """Notes where in the loaded image each pixel is, for what is known of the whole image to be found again behind
    resizes, crops, flips and rotations, which take these places along as they take label maps.

    ``PackSegInputs`` hands them on where ``pixels`` is among its ``meta_keys``.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``pixels``, (H, W, 2) float32: x and y, each from -1 at one edge of the image to 1 at the other."""
        columns, rows = ((np.arange(size) * 2 + 1) / size - 1 for size in results['img'].shape[1::-1])
        results['pixels'] = np.stack(np.meshgrid(columns, rows), -1).astype(np.float32)
        results.setdefault('seg_fields', []).append('pixels')
        return results


@TRANSFORMS.register_module()
class RareClassCrop(RandomCrop):
    """MMSegmentation's RandomCrop, except that some crops are drawn around a rare class.

    Args:
        classes: the numbers of the rare classes.
        prob: of a crop around a random pixel of one of them, where the image has any.
        options: RandomCrop's.
    """

    def __init__(self, classes: Sequence[int], prob: float = 0.5, **options):
        super().__init__(**options)
        if not 0 <= prob <= 1:
            raise ConfigError(f'RareClassCrop takes a prob of 0 to 1, and {prob} came')
        self.classes, self.prob = tuple(classes), prob

    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of the crop."""
        labels = results['gt_seg_map']
        present = np.intersect1d(labels, self.classes)
        if not len(present) or np.random.rand() >= self.prob:
            return super().crop_bbox(results)
        pixels = np.flatnonzero(labels == np.random.choice(present))
        edges: list[int] = []
        places = np.unravel_index(np.random.choice(pixels), labels.shape)
        for place, size, crop in zip(places, labels.shape, self.crop_size):
            first = np.random.randint(max(place - crop + 1, 0), max(min(place, size - crop), 0) + 1)
            edges += [first, first + crop]
        return edges[0], edges[1], edges[2], edges[3]
