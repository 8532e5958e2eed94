"""Reading checkpoint files, without running anything that is in them.

A ``.pth`` file is a pickle, and a pickle is a program. Only tensors and plain containers are taken from it
(``torch.load(weights_only=True)``); config text found inside is data and is not evaluated. Its fallback, which runs the
program, is taken inside :func:`trusted` alone, which ``--trust-checkpoint`` enters.
"""

import contextlib
import hashlib
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor

from .. import files
from ..errors import MissingRuntimeError, WeightsError, first_line
from .safetensors import read_safetensors

# where training code keeps the weights: the averaged ones first where the format says that they are the result
ENTRIES = ('state_dict_ema', 'state_dict', 'model', 'model_ema')

# Classes found beside the weights in others' checkpoints (MMEngine's message hub, training arguments). They are read as
# objects of our own: the weights need none of them, and nothing of theirs is called.
_BESIDE_THE_WEIGHTS = (
    'mmengine.logging.history_buffer.HistoryBuffer',
    'builtins.getattr',
    'argparse.Namespace',
    'numpy.ndarray',
    'numpy.dtype',
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')),
    *(f'numpy.dtypes.{name}DType' for name in ('Float64', 'Float32', 'Int64', 'Int32', 'UInt32')),
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # those of fewer bits come with scales
_DTYPES = (*_FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_LEGACY_MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_TRUSTED: ContextVar[bool] = ContextVar('trusted', default=False)
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.[a-z]+$')


@contextlib.contextmanager
def trusted(trust: bool = True) -> Iterator[None]:
    """Lets the checkpoints that are read inside run code.

    One that holds objects of others' classes is unpickled then, which runs whatever it says; a warning names each such
    file. Others are read as always. Config text is not evaluated inside either.

    Args:
        trust: False changes nothing.
    """
    token = _TRUSTED.set(trust or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds that can be used.

    Attributes:
        source: the name it was asked for by.
        state_dict: tensors by name, on the CPU, names as they are in the file.
        meta: what the file says of itself; untrusted data.
    """

    source: str
    state_dict: dict[str, Tensor]
    meta: dict = field(default_factory=dict)

    @property
    def dataset_meta(self) -> dict:
        """``classes`` and ``palette`` of the data it was trained on, as far as the file names them."""
        meta = self.meta.get('dataset_meta') or {
            'classes': self.meta.get('CLASSES'),
            'palette': self.meta.get('PALETTE'),
        }
        return {key: meta[key] for key in ('classes', 'palette') if isinstance(meta, Mapping) and meta.get(key)}


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Reads the weights of a checkpoint.

    Args:
        source: a path, a URL, or ``timm/NAME`` for a model of timm's hub. Files are ``.safetensors`` or what
            ``torch.save``
            wrote: a bare state dict, or a dict that holds one as ``state_dict``, ``model`` or the like.

    Raises:
        WeightsError: when there is no such file, it is damaged, holds no tensors, or holds code.
    """
    source = str(source)
    if source.startswith('timm/'):
        return Checkpoint(source, _tensors(_from_hub(source), source))
    content = read_file(local_file(source))
    entry = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
    meta = content.get('meta') if entry else None
    return Checkpoint(
        source, _tensors(content[entry] if entry else content, source), meta if isinstance(meta, dict) else {}
    )


def local_file(source: str) -> Path:
    """Where a path points, or where the file behind a URL was downloaded to.

    Raises:
        WeightsError: when a URL cannot be reached.
    """
    return _downloaded(source) if urlparse(source).scheme in ('http', 'https') else Path(source).expanduser()


def read_file(path: str | Path) -> dict:
    """Reads a file whole: everything in a ``torch.save`` file, or ``{'state_dict': ..., 'meta': ...}`` of a safetensors
    file.

    Beside the weights, numbers of NumPy come as Python's, and what belongs to others' classes is left out.

    Raises:
        WeightsError: when there is no such file, it is damaged, no checkpoint, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f'there is no checkpoint {path}')
    _check_hash_in_name(path)
    with path.open('rb') as file:
        start = file.read(len(_LEGACY_MAGIC))
    try:
        if path.suffix == '.safetensors' or start[8:9] == b'{':
            return read_safetensors(path)
        if start.startswith(b'PK'):
            _check_archive(path)
        elif not start.startswith(_LEGACY_MAGIC) or tarfile.is_tarfile(path):
            raise WeightsError(f'{path} is no checkpoint: neither safetensors nor written by torch.save')
        content = _loaded(path)
        if not isinstance(content, Mapping):
            raise WeightsError(f'{path} holds a {type(content).__name__}; a dict of tensors was expected')
        known = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
        # of what contains itself there is no end
        return (
            {key: value if key == known else _data(value) for key, value in content.items()} if known else dict(content)
        )
    except (WeightsError, MissingRuntimeError):
        raise
    except Exception as error:
        raise WeightsError(_explain(path, error)) from error


def _loaded(path: Path):
    try:
        return _torch_load(path)
    except Exception as error:
        if not (_TRUSTED.get() and _wants_code(error)):
            raise
    # not through a logger, which may be turned down
    print(
        f'warning: {path} holds objects that only its own code can build: it runs now, as --trust-checkpoint allows',
        file=sys.stderr,
        flush=True,
    )
    return torch.load(path, map_location='cpu', weights_only=False)


def _torch_load(path: Path):
    stand_ins = [_stand_in(name) for name in _BESIDE_THE_WEIGHTS]
    # older torch has no allow-list; what needs one is refused there
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    with safe_globals(stand_ins) if safe_globals else contextlib.nullcontext():
        return torch.load(path, map_location='cpu', weights_only=True)


class _StandIn:
    """Stands for an object of a foreign class: it accepts any arguments and state, and ignores them."""

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        pass


def _stand_in(name: str) -> type:
    """A class that goes by another's name."""
    module, _, short = name.rpartition('.')
    return type(short, (_StandIn,), {'__module__': module})


def _data(value):
    """The same without stand-ins; those of NumPy's scalars become numbers."""
    if isinstance(value, Mapping):
        items = {key: _data(item) for key, item in value.items() if not isinstance(key, _StandIn)}
        return {key: item for key, item in items.items() if not isinstance(item, _StandIn)}
    if isinstance(value, (list, tuple)):
        items = [item for item in map(_data, value) if not isinstance(item, _StandIn)]
        return items if isinstance(value, list) else tuple(items)
    if type(value).__name__ == 'scalar' and isinstance(value, _StandIn) and len(value.args) == 2:
        kind, content = value.args
        code = kind.args[0] if isinstance(kind, _StandIn) and kind.args else None
        if isinstance(content, bytes) and isinstance(code, str) and re.fullmatch(r'[biuf][1248]', code):
            if len(content) == int(code[1]):
                return np.frombuffer(content, np.dtype(code)).item()
    return value


def _check_archive(path: Path) -> None:
    """Refuses a damaged archive and TorchScript: torch checks no sums, and some versions run TorchScript whatever
    weights_only says."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith('/constants.pkl') for name in archive.namelist()):
            raise WeightsError(f'{path} is a TorchScript program; a checkpoint of weights was expected')
        unpacked, packed = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if unpacked > 4 * packed:  # torch.save does not compress, and numbers hardly can be
            raise WeightsError(f'{path} would unpack from {packed} bytes to {unpacked}; torch.save writes no such file')
        damaged = archive.testzip()
    if damaged:
        raise WeightsError(f'{path} is damaged: the checksum of {damaged} is wrong. Get the file again.')


def _check_hash_in_name(path: Path) -> None:
    """Published files carry the start of their SHA-256 in the name (``name-1a2b3c4d.pth``); dates look alike."""
    match = _HASH_IN_NAME.search(path.name)
    if not match or match[1].isdigit():
        return
    digest = files.digest(path)
    if not digest.startswith(match[1]):
        raise WeightsError(
            f'{path} is damaged: its SHA-256 starts with {digest[: len(match[1])]}, its name says {match[1]}. '
            'Get the file again, or rename it if that is no checksum.'
        )


def _downloaded(url: str) -> Path:
    # a folder per address: files of one name come from many servers; the name keeps the hash that may be in it
    folder = Path(torch.hub.get_dir(), 'checkpoints', hashlib.sha256(url.encode()).hexdigest()[:16])
    path = folder / (Path(urlparse(url).path).name or 'checkpoint')
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except Exception as error:
        raise WeightsError(
            f'{url} could not be downloaded ({first_line(error)[:200]}). Download it where there is a network '
            f'and put it at {path}'
        ) from error
    return path


def _from_hub(source: str) -> dict:
    try:
        from timm.models import load_state_dict_from_hf
    except ImportError as error:
        raise MissingRuntimeError(f'{source} is fetched by timm, which does not import: pip install timm') from error
    try:
        return load_state_dict_from_hf(source, weights_only=True)
    except Exception as error:
        raise WeightsError(
            f'{source} could not be fetched from the Hugging Face hub ({first_line(error)[:200]}). Where there is a '
            f'network, download model.safetensors of the repository {source}; then give its path in place '
            'of the name: --cfg-options model.backbone.init_cfg.checkpoint=PATH/model.safetensors'
        ) from error


def _tensors(state_dict: Mapping, source: str) -> dict[str, Tensor]:
    odd = [key for key, value in state_dict.items() if not isinstance(key, str) or not _is_plain(value)]
    if odd or not state_dict:
        what = f'entries that are no plain tensors ({odd[0]!r})' if odd else 'no tensors'
        raise WeightsError(f'{source} holds {what}; a state dict was expected, bare or as one of {", ".join(ENTRIES)}')
    return dict(state_dict)


def _is_plain(value) -> bool:
    return (
        isinstance(value, Tensor)
        and not value.is_nested
        and value.layout == torch.strided
        and value.device.type == 'cpu'  # not meta, which has no numbers
        and value.dtype in _DTYPES
        # a view that repeats a few numbers may claim any size
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _wants_code(error: Exception) -> bool:
    return 'weights_only' in str(error) or 'Weights only' in str(error)


def _explain(path: Path, error: Exception) -> str:
    if _wants_code(error):
        name = re.search(r'GLOBAL ([\w.]+)', str(error))
        return (
            f'{path} holds objects that cannot be read without running code{f" ({name[1]})" if name else ""}. Save its '
            "weights alone: torch.save({'state_dict': model.state_dict()}, path); or, if you trust whoever made it "
            'as you would a program, run again with --trust-checkpoint'
        )
    return f'{path} is damaged or no checkpoint ({type(error).__name__}: {first_line(error)[:200]})'
