"""What a .pt2 file must be for torch to read it without running what it says.

torch's reader unpickles what a file declares to be pickled, writes its names and conditions into Python that it
executes, evaluates its expressions, imports what its containers name, loads its libraries, and calls any function of
torch, ``torch.os.system`` as well. A network of ours is numbers and operators of aten: everything else is refused
before torch looks at the file.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from ...errors import ArtifactError

MEMBERS = re.compile(
    r'models/model\.json|extra/effseg\.json|data/sample_inputs/model\.pt|data/weights/weight_\d+'
    r'|data/constants/tensor_\d+|data/(weights|constants)/model_(weights|constants)_config\.json'
    r'|archive_format|archive_version|byteorder|\.data/(version|serialization_id)'
)
# operators of aten, but for the one that opens files; the sums of sizes
TARGET = re.compile(
    r'torch\.ops\.aten\.(?!from_file)[a-z_]\w*\.[A-Za-z]\w*|_operator\.(add|sub|mul|floordiv|mod|getitem)'
)
NAME = re.compile(r'[\w.:+-]*', re.ASCII)  # what is safe inside of Python: names, types, versions
# sizes as sympy writes them, of symbols and whole numbers
SYMBOL = re.compile(r"Symbol\('s\d+'(, (positive|integer|nonnegative)=True)*\)")
EXPRESSION = re.compile(r'((Integer|Mul|Add|FloorDiv|Mod|Max|Min)(?=\()|[-(), 0-9])*')
CONTAINERS = {'builtins.tuple', 'builtins.list', 'builtins.dict', None}


def check(content: bytes) -> None:
    """Refuses a .pt2 file that could run code.

    Args:
        content: of the file; read by torch's own reader of archives, so that what is seen here is what it will see.

    Raises:
        ArtifactError: naming what was found.
        Exception: torch's, for what is no such archive.
    """
    import torch

    archive = torch._C.PyTorchFileReader(io.BytesIO(content))
    names = archive.get_all_records()
    foreign = sorted({name for name in names if not MEMBERS.fullmatch(name)})
    if foreign or len(set(names)) != len(names):
        raise ArtifactError(f'it holds {", ".join(foreign) or "two parts of one name"}, which no file of effseg does')
    if archive.get_record('data/sample_inputs/model.pt'):
        raise ArtifactError('it holds pickled images, which could run code')
    for kind in ('weights', 'constants'):
        config = json.loads(archive.get_record(f'data/{kind}/model_{kind}_config.json'))
        for name, tensor in config['config'].items():
            if tensor['use_pickle'] is not False or not re.fullmatch(r'(weight|tensor)_\d+', tensor['path_name']):
                raise ArtifactError(f'its tensor {name!r:.80} is pickled, which could run code')
    for key, value in _strings(json.loads(archive.get_record('models/model.json'))):
        if not _is_safe(key, value):
            raise ArtifactError(f'its {key:.40} {value!r:.80} could run code')


def _strings(part: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Every text of a JSON document under its key, and every key as a ``key``."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield 'key', name
            yield from _strings(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from _strings(value, key)
    elif isinstance(part, str):
        yield key, part


def _is_safe(key: str, value: str) -> bool:
    if key == 'target':
        return TARGET.fullmatch(value) is not None
    if key == 'expr_str':
        return EXPRESSION.fullmatch(SYMBOL.sub('', value)) is not None
    if key in ('in_spec', 'out_spec'):
        return not value or all(
            text in CONTAINERS if name == 'type' else NAME.fullmatch(text) or text in ('null', '[]')
            for name, text in _strings(json.loads(value))
        )
    if key == 'as_string':  # an argument of an operator, which torch quotes
        return True
    return key != 'guards_code' and NAME.fullmatch(value) is not None
