"""Trained weights for others, as a file that cannot hold code and knows when it was changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .. import files
from ..errors import MissingRuntimeError, WeightsError

_WRITER = {'format': 'pt', 'writer': 'effseg'}
_BLANK = '0' * 64  # stands where the SHA-256 will, while it is computed over the whole file


def write_safetensors(path: str | Path, state_dict: Mapping[str, Tensor], dataset_meta: Mapping | None = None) -> None:
    """Writes weights, with classes and palette, and the SHA-256 of the whole file; puts the file in place whole.

    Args:
        path: of the file.
        state_dict: tensors by name.
        dataset_meta: ``classes`` and ``palette``.
    """
    from safetensors.torch import save

    path = Path(path)
    # copies: safetensors refuses tensors that share memory
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state_dict.items()}
    about = {
        key: _plain(value) for key, value in (dataset_meta or {}).items() if key in ('classes', 'palette') and value
    }
    content = save(tensors, {**_WRITER, 'sha256': _BLANK, **({'dataset_meta': json.dumps(about)} if about else {})})
    content = content.replace(_BLANK.encode(), hashlib.sha256(content).hexdigest().encode(), 1)
    files.write(path, content)


def read_safetensors(path: str | Path) -> dict:
    """``{'state_dict': ..., 'meta': ...}`` of a file of anybody's.

    Raises:
        WeightsError: when a file of ours is not as it was written.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise MissingRuntimeError(
            f'{path} takes safetensors, which is not installed: pip install safetensors'
        ) from error

    with safe_open(path, framework='pt', device='cpu') as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        meta = dict(file.metadata() or {})
    expected = meta.get('sha256')
    if meta.get('writer') != _WRITER['writer'] and not expected:
        return {'state_dict': tensors, 'meta': meta}
    if not expected:
        raise WeightsError(f'{path} is damaged: its checksum is missing. Get the file again.')
    content = Path(path).read_bytes().replace(expected.encode(), _BLANK.encode(), 1)
    if hashlib.sha256(content).hexdigest() != expected:
        raise WeightsError(f'{path} is damaged: its SHA-256 is not the one it was written with. Get the file again.')
    about = {'dataset_meta': json.loads(meta['dataset_meta'])} if 'dataset_meta' in meta else {}
    return {'state_dict': tensors, 'meta': {**meta, **about}}


def _plain(value) -> list:
    return [list(item) if isinstance(item, (list, tuple)) else item for item in value]
