"""The data sets of a config that are inside others."""

from collections.abc import Iterator

from mmengine.config import ConfigDict


def leaves(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset; a data set without one is itself."""
    if 'datasets' in dataset:
        for inner in dataset.datasets:
            yield from leaves(inner)
    elif 'dataset' in dataset:
        yield from leaves(dataset.dataset)
    else:
        yield dataset
