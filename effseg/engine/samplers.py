"""What stands between a data set and the network: every sample has its own seed, and a bad one has a name."""

import contextlib
import copy
import itertools
import multiprocessing
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from mmengine.utils import is_list_of
from mmseg.registry import DATASETS
from torch.utils.data import Sampler

from ..datasets.transforms import LoadLabelMap, LoadPicture
from ..errors import DataError

_LOADERS = {'LoadAnnotations': LoadLabelMap.__name__, 'LoadImageFromFile': LoadPicture.__name__}
_MARK = 'effseg.errors.DataError: '


class Draw(int):
    """The index of a sample, and the seed that its augmentation is drawn from."""

    seed: int

    def __new__(cls, index: int, seed: int):
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.seed)


class GuardedDataset:
    """A data set whose every sample depends on its draw alone, and whose errors name the files.

    Args:
        dataset: any of MMSegmentation's data sets, as a config.
        num_classes: labels of this number and above are errors.
        ignored: label values that stand for no class.
        skip_bad: how many different bad samples may be left out, each with a warning; another one takes its place.
    """

    def __init__(self, dataset: dict, num_classes: int, ignored: tuple[int, ...] = (255,), skip_bad: int = 0):
        self.dataset = DATASETS.build(dataset)
        self.num_classes, self.ignored = num_classes, ignored
        # shared with the workers: the limit is one for all of them
        self.skipped = multiprocessing.Array('q', [-1] * skip_bad)

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
        print(f'skipped: {error}', flush=True)


class NumberedSampler(Sampler):
    """A sampler that gives every draw a seed by its number, so that the n-th one is the same in a run that was
    interrupted.

    It can go to where that run was without loading what comes before.

    Args:
        sampler: MMEngine's, as a config or built.
        dataset, seed: for it.
    """

    def __init__(self, dataset, sampler: dict | Sampler, seed: int | None = None):
        self.sampler = (
            DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
            if isinstance(sampler, dict)
            else sampler
        )
        self.epoch, self.first = 0, 0

    def __iter__(self) -> Iterator[Draw]:
        base = (abs(getattr(self.sampler, 'seed', None) or 0), get_rank(), self.epoch)
        first, self.first = self.first, 0
        for number, index in enumerate(self._indices(first), first):
            yield Draw(index, mixed(*base, number))

    def _indices(self, first: int) -> Iterator[int]:
        return itertools.islice(self.sampler, first, None)

    def begin_at(self, num_samples: int) -> None:
        """The next draw is the one of this number."""
        self.first = num_samples

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)


class EndlessSampler(NumberedSampler):
    """The same for a sampler without end, whose iterator is its state."""

    def _indices(self, first: int) -> Iterator[int]:
        return iter(self.sampler)

    def skip(self, num_samples: int) -> None:
        """The next draw is the one of this number."""
        if hasattr(self.sampler, 'skip'):
            self.sampler.skip(num_samples)
        else:
            # anew: workers may have been given the first ones already
            self.sampler.indices = itertools.islice(self.sampler._indices_of_rank(), num_samples, None)
        self.first = num_samples


DATASETS.register_module(module=GuardedDataset)
DATA_SAMPLERS.register_module(module=NumberedSampler)
DATA_SAMPLERS.register_module(module=EndlessSampler)


def guarded(dataloader: dict, model: dict, skip_bad: int = 0) -> dict:
    """A dataloader's config with our data set, sampler and label loader around those of the user."""
    cfg = copy.deepcopy(dataloader)
    head = model.get('decode_head', {})
    head = head[0] if isinstance(head, (list, tuple)) else head
    ignored = {head.get('ignore_index', 255), _innermost(cfg['dataset']).get('ignore_index', 255)}
    cfg['dataset'] = dict(
        type='GuardedDataset',
        dataset=_with_our_loaders(cfg['dataset']),
        num_classes=head.get('num_classes', 256),
        ignored=tuple(sorted(ignored)),
        skip_bad=skip_bad,
    )
    if isinstance(cfg.get('sampler'), dict):
        kind = (
            DATA_SAMPLERS.get(cfg['sampler']['type'])
            if isinstance(cfg['sampler']['type'], str)
            else cfg['sampler']['type']
        )
        wrapper = 'EndlessSampler' if issubclass(kind, InfiniteSampler) else 'NumberedSampler'
        cfg['sampler'] = dict(type=wrapper, sampler=cfg['sampler'])
    return cfg


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, Python's, NumPy's and torch's random numbers come from ``seed``; outside, they go on as if nothing had
    been."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_all(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_all(seed: int) -> None:
    """Seeds Python's, NumPy's and the CPU's random numbers; ``seed`` has 64 bits."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def mixed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers; near numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def out_of_worker(error: DataError) -> DataError:
    """The error itself, without the account of the worker process that torch puts before it."""
    return DataError(str(error).rpartition(_MARK)[2].strip())


def _innermost(dataset: dict) -> dict:
    while isinstance(dataset, dict) and 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset if isinstance(dataset, dict) else {}


def _with_our_loaders(value):
    """The same config with LoadLabelMap for every LoadAnnotations, and LoadPicture for every LoadImageFromFile."""
    if isinstance(value, dict):
        return type(value)(
            {key: _LOADERS.get(item, item) if key == 'type' else _with_our_loaders(item) for key, item in value.items()}
        )
    if isinstance(value, (list, tuple)) and not is_list_of(value, (int, float, str)):
        return type(value)(_with_our_loaders(item) for item in value)
    return value
