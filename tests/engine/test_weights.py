import torch

from effseg.models.checkpoint import read_checkpoint

from .conftest import TINY
from .test_user_errors import assert_refused


def test_weights_as_safetensors_are_taken_wherever_a_checkpoint_is(tool, scenes, segmentor, checkpoint, tmp_path):
    path = tmp_path / 'out' / 'tiny.safetensors'
    outcome = tool('export', TINY, checkpoint, '--to', 'safetensors', '--out', path)
    assert outcome.status == 0, outcome
    assert outcome.out.strip().splitlines()[-1] == str(path)
    written = read_checkpoint(path)
    assert len(written.dataset_meta['classes']) == 8
    state = segmentor.state_dict()
    assert set(written.state_dict) == set(state) and all(torch.equal(value, state[key]) for key, value in written.state_dict.items())
    assert tool('test', TINY, path, '--work-dir', tmp_path / 'work').status == 0
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert_refused(tool('test', TINY, path, '--work-dir', tmp_path / 'work'), path, 'SHA-256')


def test_the_checkpoint_itself_is_not_overwritten(tool, scenes, checkpoint, tmp_path):
    for path in (checkpoint, tmp_path / 'x.pth'):
        assert_refused(tool('export', TINY, checkpoint, '--to', 'safetensors', '--out', path), path, '.safetensors')
