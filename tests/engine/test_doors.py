"""Every door through which a file comes in, and every file that would run code if it could: nothing runs."""
import pickle

import pytest
import torch
from mmengine.runner import CheckpointLoader
from models.test_checkpoint import attacks

from effseg.errors import EffsegError

from .conftest import TINY

ONE = ['--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=9']


def train(tool, path, folder, *options):
    return tool('train', TINY, '--work-dir', folder / 'work', '--no-data-check', *ONE, *options)


def resume(tool, path, folder):
    work = folder / 'work'
    work.mkdir()
    (work / 'iter_1.pth').write_bytes(path.read_bytes())
    return tool('train', TINY, '--work-dir', work, '--no-data-check', '--resume', *ONE)


def mmengine(tool, path, folder):
    try:
        CheckpointLoader.load_checkpoint(str(path))
    except EffsegError:
        pass


DOORS = {
    'init_cfg': lambda tool, path, folder: train(tool, path, folder, 'model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={path}'),
    'load_from': lambda tool, path, folder: train(tool, path, folder, f'load_from={path}'),
    'resume': resume,
    'resume from': lambda tool, path, folder: train(tool, path, folder, f'load_from={path}', 'resume=True'),
    'test': lambda tool, path, folder: tool('test', TINY, path, '--work-dir', folder / 'work'),
    'predict': lambda tool, path, folder: tool('predict', TINY, path, folder / 'a.png', '--out-dir', folder / 'out'),
    'export': lambda tool, path, folder: tool('export', TINY, path, '--to', 'safetensors', '--out', folder / 'a.safetensors'),
    'report': lambda tool, path, folder: tool('report', TINY, path, '--out', folder / 'report'),
    'mmengine': mmengine,
}


def hostile(name, state_dict, path, mark):
    """A checkpoint that runs something when it is read carelessly; config texts are evaluated by MMEngine after reading."""
    content = {'state_dict': dict(state_dict), 'meta': {'iter': 0, 'epoch': 0}, 'optimizer': {}, 'message_hub': {
        'runtime_info': {}, 'log_scalars': {}, 'resumed_keys': {}}}
    text = f'open({str(mark)!r}, "w")'
    if name == 'config text':
        content['meta']['config'] = text
    elif name == 'runtime config text':
        content['message_hub']['runtime_info']['cfg'] = content['meta']['cfg'] = text
    else:
        content['optimizer'] = attacks(str(mark))[name]
    if name in ('open', 'exec'):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)


def walk_in(names, door, tool, segmentor, tmp_path):
    from PIL import Image
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        Image.new('RGB', (40, 30)).save(folder / 'a.png')
        hostile(name, segmentor.state_dict(), folder / 'given.pth', folder / 'mark')
        outcome = DOORS[door](tool, folder / 'given.pth', folder)
        assert not (folder / 'mark').exists(), name
        if outcome is not None:
            assert outcome.status in (0, 2) and 'Traceback' not in outcome.err, (name, outcome)
            # what is wrong with the file is said; what is only text in it is no reason to refuse it
            assert outcome.status == 2 or 'text' in name or name.startswith('getattr of'), (name, outcome)


@pytest.mark.medium
@pytest.mark.parametrize('door', [door for door in DOORS if door != 'report'])
def test_two_attacks_at_every_door(tool, scenes, segmentor, tmp_path, door):
    walk_in(['os.system', 'config text'], door, tool, segmentor, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('door', DOORS)
def test_every_attack_at_every_door(tool, scenes, segmentor, tmp_path, door):
    walk_in([*attacks(''), 'config text', 'runtime config text'], door, tool, segmentor, tmp_path)
