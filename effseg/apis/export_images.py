"""Real images that a file is proven on and that the ranges of int8 are chosen on."""

import dataclasses
import functools
from typing import Any

import numpy as np

from ..datasets.images import read_image
from ..deploy.fit import fill_of
from ..deploy.images import CONTENTS, fit_mask
from ..deploy.images import fit as fit_image
from ..deploy.spec import Spec
from ..engine.config import dataset_of, of_config
from ..errors import DataError
from .predict import find_images


@dataclasses.dataclass(frozen=True)
class ExportImages:
    """What an export is proven and calibrated on, read when it is first asked for.

    Attributes:
        cfg: of the segmenter.
        spec: of the file, whose size the images get.
        sources: files and folders, instead of the config's data sets.
        proof_count: how many to compare on; more where a class that occurs in the data would not be seen.
        calibration_count: how many to choose the ranges of int8 on.
    """

    cfg: Any
    spec: Spec
    sources: list[str] | None
    proof_count: int
    calibration_count: int

    @functools.cached_property
    def proof(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images to compare on, and their masks."""
        return self._read('val_dataloader', self.proof_count, cover=True)

    @functools.cached_property
    def calibration(self) -> list[np.ndarray]:
        """Images to choose the ranges of int8 on; none where the config's are missing, which is printed."""
        try:
            return self._read('train_dataloader', self.calibration_count, cover=False)[0]
        except DataError as error:
            print(f'nothing to calibrate int8 on, so no image chooses its ranges: {error}', flush=True)
            return []

    def _read(self, loader: str, count: int, cover: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Images of the artifact's size at three sizes of content, and their masks: from files, which have none, or
        spread over a data set of the config, through its test pipeline; with ``cover`` as many more as it takes for
        every class of the data set to be seen."""
        size, fill = (self.spec.height, self.spec.width), fill_of(self.spec)
        if self.sources:
            files = find_images(self.sources)[:count]
            return [fit_image(read_image(file), size, number, fill) for number, file in enumerate(files)], []
        from mmseg.registry import DATASETS

        pipeline = self.cfg.get('test_pipeline') or self.cfg.test_dataloader.dataset.pipeline
        with of_config(f'{loader}.dataset or test pipeline'):
            dataset = DATASETS.build(dict(dataset_of(self.cfg, loader), pipeline=pipeline, lazy_init=True))
        try:
            dataset.full_init()
            chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
            shown = [_show(*_sample(dataset, index), size, number, fill) for number, index in enumerate(chosen)]
            if cover and shown and all(mask is not None for _, mask in shown):
                shown += _unseen(dataset, shown, size, fill)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"the config's {loader} gives no images ({error}); put the data where the config says or name a folder "
                'of images with --images'
            ) from error
        masks = [mask for _, mask in shown if mask is not None]
        return [image for image, _ in shown], masks if len(masks) == len(shown) else []


def _sample(dataset, index: int) -> tuple[np.ndarray, Any]:
    """The image (h, w, 3) RGB of a data set behind its pipeline, and the mask, which may have another size."""
    sample = dataset[index]
    image, samples = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1], sample['data_samples']
    return image, samples.gt_sem_seg.data[0].numpy().astype(np.uint8) if 'gt_sem_seg' in samples else None


def _show(image, mask, size: tuple[int, int], number: int, fill) -> tuple[np.ndarray, Any]:
    return fit_image(image, size, number, fill), None if mask is None else fit_mask(mask, image.shape[:2], size, number)


def _unseen(dataset, shown, size: tuple[int, int], fill) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class that occurs in the masks of a data set and not in ``shown``: the image with most of it, as it
    shows most of it, and where no size of content shows any, cut where it begins."""
    from mmseg.datasets.transforms import LoadAnnotations

    (load,) = (step for step in dataset.pipeline.transforms if isinstance(step, LoadAnnotations))
    masks = (load(dataset.get_data_info(index))['gt_seg_map'] for index in range(len(dataset)))
    classes = len(dataset.metainfo['classes'])
    added: list[tuple[np.ndarray, Any]] = []
    counts = np.array([np.bincount(mask[mask < classes], minlength=classes) for mask in masks])
    for label in np.flatnonzero(counts.any(0)):
        if any((mask == label).any() for _, mask in (*shown, *added)):
            continue
        image, mask = _sample(dataset, int(counts[:, label].argmax()))
        views = [_show(image, mask, size, number, fill) for number in range(len(CONTENTS))]
        if not any((view == label).any() for _, view in views):
            row, column = np.argwhere(mask == label)[0] / mask.shape
            top, left = int(row * image.shape[0]), int(column * image.shape[1])
            mask = mask[int(row * mask.shape[0]) :, int(column * mask.shape[1]) :]
            views.append(_show(image[top:, left:], mask, size, 0, fill))
        added.append(max(views, key=lambda view: (view[1] == label).sum()))
    return added
