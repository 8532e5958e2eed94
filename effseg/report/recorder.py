"""What a report needs of every test image, taken down beside MMSegmentation's own metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from PIL import Image

from ..errors import DataError
from ..segmentors.confidence import UNKNOWN, confidence_of


@dataclass(frozen=True)
class Scene:
    """One test image.

    Attributes:
        image: the file.
        labels: PNG of the predicted labels, 255 where unknown.
        truth: PNG of the true labels, 255 where ignored.
        iou: mean IoU over the classes that are in the truth or the prediction, 0 to 1.
        accuracy: share of the pixels that are right, 0 to 1.
    """

    image: Path
    labels: Path
    truth: Path
    iou: float
    accuracy: float


@METRICS.register_module()
class SceneRecorder(BaseMetric):
    """Adds up the confusion matrix and keeps every label map. For one process.

    Args:
        folder: for the label maps.
        ignore_index: the value of the truth that counts for nothing.
        unknown_below: labels whose probability is smaller are kept as unknown in the label maps; they count as labels
            in all other numbers.

    Attributes:
        confusion: (classes, classes) int64; pixels by true label (row) and predicted label (column).
        scenes: one per image, in the data set's order.
        known: labelled pixels, those of them that are not unknown, and those that are right as well.
    """

    default_prefix = 'report'

    def __init__(self, folder: str, ignore_index: int = 255, unknown_below: float | None = None):
        super().__init__()
        self.folder, self.ignore_index, self.unknown_below = Path(folder), ignore_index, unknown_below
        self.known = np.zeros(3, dtype=np.int64)
        self.confusion: np.ndarray | None = None
        self.scenes: list[Scene] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Adds a batch to the confusion matrix and keeps its label maps.

        Raises:
            DataError: for a true or predicted label that no class has.
        """
        classes = len(self.dataset_meta['classes'])
        if self.confusion is None:
            self.confusion = np.zeros((classes, classes), dtype=np.int64)
        for sample in data_samples:
            # a head of one channel gives its labels, 0 and 1, as floating-point numbers
            predicted = sample['pred_sem_seg']['data'].squeeze(0).cpu().numpy().astype(np.int64)
            truth = sample['gt_sem_seg']['data'].squeeze(0).cpu().numpy()
            counted = truth != self.ignore_index
            if counted.any() and not 0 <= truth[counted].min() <= truth[counted].max() < classes:
                strange = sorted(set(truth[counted].tolist()) - set(range(classes)))
                raise DataError(
                    f'{sample["seg_map_path"]} holds the labels {", ".join(map(str, strange[:5]))}; the config knows '
                    f'0 to {classes - 1} and {self.ignore_index} (ignored)'
                )
            if predicted.max() >= classes:
                raise DataError(
                    f'the model labels pixels of {sample["img_path"]} as class {predicted.max()}; the data set knows 0 '
                    f'to {classes - 1} (model.decode_head.num_classes is not the number of its classes)'
                )
            matrix = np.bincount(
                truth[counted].astype(np.int64) * classes + predicted[counted], minlength=classes**2
            ).reshape(classes, classes)
            self.confusion += matrix
            if self.unknown_below is not None:
                known = confidence_of(sample)[0].cpu().numpy() >= self.unknown_below
                right = known & counted & (predicted == truth)
                self.known += counted.sum(), (known & counted).sum(), right.sum()
                predicted = np.where(known, predicted, UNKNOWN)
            self.scenes.append(self._keep(sample['img_path'], predicted, np.where(counted, truth, 255), matrix))
            self.results.append(None)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """No metrics: the scores are IoUMetric's."""
        return {}

    def _keep(self, image: str, predicted: np.ndarray, truth: np.ndarray, matrix: np.ndarray) -> Scene:
        number = len(self.scenes)
        ours, theirs = (self.folder / f'{number:05d}_{kind}.png' for kind in ('labels', 'truth'))
        for path, labels in ((ours, predicted), (theirs, truth)):
            Image.fromarray(labels.astype(np.uint8)).save(path, compress_level=1)
        return Scene(
            Path(image),
            ours,
            theirs,
            float(np.nanmean(iou(matrix))) if matrix.any() else 1.0,
            matrix.trace() / max(matrix.sum(), 1),
        )


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, nan for a class that is in neither truth nor prediction.

    Args:
        confusion: (classes, classes), true label by predicted label.
    """
    right = confusion.diagonal().astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - right
    return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
