"""What a checkpoint holds: tensors, numbers, strings, lists and dicts, and no class of anybody's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log

_HISTORY = ('log_history', 'count_history', 'max_length')
_CONTAINERS = (Mapping, list, tuple, set, frozenset)
_ATOMS: tuple[Any, ...] = (bool, int, float, str, bytes)
_DATA = (*_CONTAINERS, *_ATOMS, HistoryBuffer, np.ndarray, np.generic, torch.Tensor, torch.dtype, type(None))


def plain(value, name: str = ''):
    """The same data in plain types: arrays and logged histories become tensors, numbers of other classes plain ones.

    What is no data is left out and named in the log.
    """
    if isinstance(value, Mapping):
        kept = {key: plain(item, f'{name}.{key}') for key, item in value.items() if _is_data(item, f'{name}.{key}')}
        return {key if isinstance(key, (*_ATOMS, tuple)) else str(key): item for key, item in kept.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item, name) for item in value if _is_data(item, name)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item, name) for item in value)
    if isinstance(value, HistoryBuffer):
        log, count = (torch.from_numpy(part.astype(np.float64)) for part in value.data)
        return dict(zip(_HISTORY, (log, count, value.max_length)))
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value)) if value.dtype.kind in 'biuf' else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()  # or a file of a GPU opens where there is one alone
    # a class of somebody's below a number or a text
    return next((kind(value) for kind in _ATOMS if isinstance(value, kind)), value)


def _is_data(value, name: str) -> bool:
    if not isinstance(value, _DATA):
        print_log(f'{name} is left out of the checkpoint: a {type(value).__name__} is no plain data', logger='current')
    return isinstance(value, _DATA)


def history(value) -> HistoryBuffer | None:
    """The logged history that :func:`plain` made a dict of; None where it is none."""
    if isinstance(value, HistoryBuffer):
        return value
    if not isinstance(value, dict) or set(value) != set(_HISTORY):
        return None
    return HistoryBuffer(value['log_history'].tolist(), value['count_history'].tolist(), value['max_length'])
