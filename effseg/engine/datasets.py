"""The data set of a training: every sample has a seed of its own, and an error names the sample's files."""

import contextlib
import multiprocessing
from typing import Any

import torch
from mmseg.registry import DATASETS

from ..errors import DataError
from .progress import say
from .samplers import Draw, seeded

_MARK = 'effseg.errors.DataError: '
MOST_SKIPPED = 2**20  # places for the numbers of bad samples, whatever limit is asked for


@DATASETS.register_module()
class GuardedDataset:
    """A data set in which a sample depends on its draw alone, and an error names the files.

    Args:
        dataset_type: any of MMSegmentation's data sets, by its name in the registry.
        num_classes: labels of this number and above are errors; as many as the data set has when left out.
        ignored: label values that stand for no class; the data set's ``ignore_index`` when left out.
        skip_bad: how many different bad samples may be left out, each with a warning; another one takes its place.
        options: the other arguments of that data set.
    """

    def __init__(
        self,
        dataset_type: str | type,
        num_classes: int | None = None,
        ignored: tuple[int, ...] | None = None,
        skip_bad: int = 0,
        **options,
    ):
        self.dataset = DATASETS.build(dict(type=dataset_type, **options))
        self.num_classes = num_classes or len(self.dataset.metainfo.get('classes') or range(256))
        self.ignored = tuple(ignored or (getattr(self.dataset, 'ignore_index', 255),))
        # shared with the workers: the limit is one for all of them
        self.skipped: Any = multiprocessing.Array('q', [-1] * min(skip_bad, MOST_SKIPPED))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str):
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, draw: int) -> dict:
        """A sample of the pipeline.

        Raises:
            DataError: names the sample's files.
        """
        with seeded(draw.seed) if isinstance(draw, Draw) else contextlib.nullcontext():
            index = int(draw)
            for _ in range(len(self.skipped) + 1):
                try:
                    return self._checked(index)
                except DataError as error:
                    self._may_skip(index, error)
                    index = (index + 1) % len(self)
            return self._checked(index)

    def _checked(self, index: int) -> dict:
        try:
            sample = self.dataset[index]
            labels = getattr(sample.get('data_samples'), 'gt_sem_seg', None)
            if labels is not None:
                self._check_labels(labels.data)
            return sample
        except Exception as error:  # whatever the pipeline raises, the user needs to know where
            raise DataError(f'{self._files(index)}: {str(error) or type(error).__name__}') from error

    def _check_labels(self, labels: torch.Tensor) -> None:
        wrong = [
            value for value in torch.unique(labels).tolist() if value >= self.num_classes and value not in self.ignored
        ]
        if wrong:
            raise DataError(
                f'label value{"s" * (len(wrong) > 1)} {", ".join(map(str, wrong[:5]))} out of range: there are '
                f'{self.num_classes} classes, 0 to {self.num_classes - 1}, and {", ".join(map(str, self.ignored))} is '
                'ignored'
            )

    def _files(self, index: int) -> str:
        try:
            info = self.dataset.get_data_info(index)
            return f'sample {index} ({info["img_path"]}, {info.get("seg_map_path")})'
        except Exception:
            return f'sample {index}'

    def _may_skip(self, index: int, error: DataError) -> None:
        with self.skipped.get_lock():
            if index in self.skipped:
                return
            if -1 not in list(self.skipped):
                if len(self.skipped):
                    raise DataError(
                        f'{error} (after {len(self.skipped)} bad samples were skipped, as many as --skip-bad-samples '
                        'allows)'
                    ) from error
                raise error
            self.skipped[list(self.skipped).index(-1)] = index
        say(f'skipped: {error}')


def out_of_worker(error: DataError) -> DataError:
    """The error itself, without the account of the worker process that torch puts before it."""
    return DataError(str(error).rpartition(_MARK)[2].strip())
