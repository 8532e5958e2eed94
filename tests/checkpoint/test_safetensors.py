import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from effseg.checkpoint.read import read_checkpoint
from effseg.checkpoint.safetensors import read_safetensors, write_safetensors
from effseg.errors import WeightsError

SHARED = torch.randn(64, 3)
TENSORS = {
    'a.weight': SHARED,
    'a.view': SHARED[::2],
    'b.bias': torch.ones(200),
    'b.count': torch.tensor(3),
    'c.half': torch.ones(5).half(),
}
META = {'classes': ('road', 'sky'), 'palette': [[1, 2, 3], [4, 5, 6]]}


@pytest.fixture
def path(tmp_path):
    write_safetensors(tmp_path / 'x.safetensors', TENSORS, META)
    return tmp_path / 'x.safetensors'


def test_round_trip(path):
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.state_dict) == set(TENSORS)
    for key, value in checkpoint.state_dict.items():
        assert value.dtype == TENSORS[key].dtype and torch.equal(value, TENSORS[key])
    assert checkpoint.dataset_meta == {'classes': ['road', 'sky'], 'palette': META['palette']}
    assert [file.name for file in path.parent.iterdir()] == ['x.safetensors']


def test_others_read_it(path):
    with safe_open(path, framework='pt') as file:
        assert set(file.keys()) == set(TENSORS) and file.metadata()['format'] == 'pt'


def test_every_flipped_bit_is_found(path):
    content, numbers = path.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(content[:8], 'little')
    positions = [*numbers.sample(range(header), 40), *numbers.sample(range(header, len(content)), 40)]
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match='damaged'):
            read_checkpoint(path)


def test_a_checksum_that_was_taken_out_is_missed(path, tmp_path):
    with safe_open(path, framework='pt') as file:
        metadata = {key: value for key, value in file.metadata().items() if key != 'sha256'}
    save_file({key: value.contiguous().clone() for key, value in TENSORS.items()}, tmp_path / 'y.safetensors', metadata)
    with pytest.raises(WeightsError, match='checksum'):
        read_safetensors(tmp_path / 'y.safetensors')


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr('os.replace', lambda *args: (_ for _ in ()).throw(OSError('No space left on device')))
    with pytest.raises(OSError):
        write_safetensors(path, TENSORS, META)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_classes_are_data(tmp_path):
    write_safetensors(tmp_path / 'x.safetensors', TENSORS)
    assert read_checkpoint(tmp_path / 'x.safetensors').dataset_meta == {}
