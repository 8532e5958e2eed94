"""Trained weights for others, as a file that cannot hold code and knows when it was changed."""
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError, WeightsError

SHA256 = 'effseg_sha256'


def write_safetensors(path: str | Path, state_dict: Mapping[str, Tensor], dataset_meta: Mapping) -> None:
    """Writes weights, with classes and palette, and the SHA-256 of all of it.

    Args:
        path: ends in ``.safetensors``; put in place whole.
        state_dict: tensors by name.
        dataset_meta: ``classes`` and ``palette``.

    Raises:
        ConfigError: for another suffix.
    """
    from safetensors.torch import save
    path = Path(path)
    if path.suffix != '.safetensors':
        raise ConfigError(f'{path} must end in .safetensors')
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    about = {key: [*map(list, value)] if key == 'palette' else list(value) for key, value in dataset_meta.items() if key in ('classes', 'palette')}
    metadata = {'format': 'pt', 'dataset_meta': json.dumps(about)}
    content = save(tensors, {**metadata, SHA256: _digest(tensors, metadata)})
    partial = path.with_name(path.name + '.partial')
    partial.write_bytes(content)
    os.replace(partial, path)


def read_safetensors(path: Path) -> dict:
    """``{'state_dict': ..., 'meta': ...}`` of a file of anybody's.

    Raises:
        WeightsError: when a file of ours is not as it was written.
    """
    from safetensors import safe_open
    with safe_open(path, framework='pt', device='cpu') as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = dict(file.metadata() or {})
    expected = metadata.pop(SHA256, None)
    if expected is not None and _digest(tensors, metadata) != expected:
        raise WeightsError(f'{path} is damaged: its SHA-256 is not the one it was written with. Get the file again.')
    about = json.loads(metadata['dataset_meta']) if expected is not None and 'dataset_meta' in metadata else None
    return {'state_dict': tensors, 'meta': {**metadata, 'dataset_meta': about} if about else metadata}


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        sha.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
