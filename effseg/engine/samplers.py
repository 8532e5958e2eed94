"""Which sample is drawn when, and the random numbers that its augmentation is drawn from."""

import contextlib
import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


class Draw(int):
    """The index of a sample, and the seed that its augmentation is drawn from."""

    seed: int

    def __new__(cls, index: int, seed: int):
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.seed)


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """A sampler that gives every draw a seed by its number, so that the n-th one is the same in a run that was
    interrupted.

    It can go to where that run was without loading what comes before.

    Args:
        dataset: for the sampler below.
        sampler_type: the sampler that says which sample is drawn, by its name in the registry, such as
            ``'InfiniteSampler'`` or ``'DefaultSampler'``.
        seed: for that sampler.
        options: the other arguments of that sampler.
    """

    def __init__(self, dataset, sampler_type: str | type = 'DefaultSampler', seed: int | None = None, **options):
        self.sampler = DATA_SAMPLERS.build(
            dict(type=sampler_type, **options), default_args=dict(dataset=dataset, seed=seed)
        )
        self.endless = isinstance(self.sampler, InfiniteSampler)
        self.epoch, self.first = 0, 0

    @property
    def seed(self) -> int | None:
        """Of the sampler below; may be set before an iterator is made."""
        return getattr(self.sampler, 'seed', None)

    @seed.setter
    def seed(self, seed: int) -> None:
        self.sampler.seed = seed

    def __iter__(self) -> Iterator[Draw]:
        base = (abs(self.seed or 0), get_rank(), self.epoch)
        first, self.first = self.first, 0
        if self.endless:  # from its beginning: workers of an earlier iterator may have been given some already
            self.sampler.indices = self.sampler._indices_of_rank()
        for number, index in enumerate(itertools.islice(self.sampler, first, None), first):
            yield Draw(index, mixed(*base, number))

    def skip(self, num_samples: int) -> None:
        """The next iterator begins with the draw of this number."""
        self.first = num_samples

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)


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
