"""The quick look before a training."""

import pytest

from effseg.datasets.check.quick import check_datasets
from effseg.engine.config import load_config
from effseg.errors import DataError

from .planted import CONFIG, labels_of, save


def test_an_error_stops_the_training(root):
    save(root, labels_of(root).T.copy())
    with pytest.raises(DataError, match='(?s)0001.png.*exchanged.*--no-data-check'):
        check_datasets(load_config(CONFIG, {'data_root': str(root)}), ('train_dataloader',), sample=32)
