import shutil

import numpy as np
import torch
from networks import TINY
from PIL import Image

from effseg.checkpoint.read import read_checkpoint

from .test_user_errors import assert_refused


def test_weights_as_safetensors_are_taken_wherever_a_checkpoint_is(tool, scenes, segmentor, checkpoint, tmp_path):
    path = tmp_path / 'out' / 'tiny.safetensors'
    outcome = tool('export', TINY, checkpoint, '--to', 'safetensors', '--out', path)
    assert outcome.status == 0, outcome
    assert outcome.out.strip().splitlines()[-1] == str(path)
    written = read_checkpoint(path)
    assert len(written.dataset_meta['classes']) == 8
    state = segmentor.state_dict()
    assert set(written.state_dict) == set(state) and all(
        torch.equal(value, state[key]) for key, value in written.state_dict.items()
    )
    assert tool('test', TINY, path, '--work-dir', tmp_path / 'work').status == 0
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert_refused(tool('test', TINY, path, '--work-dir', tmp_path / 'work'), path, 'SHA-256')


def test_the_checkpoint_itself_is_not_overwritten(tool, scenes, checkpoint, tmp_path, monkeypatch):
    for path in (checkpoint, tmp_path / 'x.pth'):
        assert_refused(tool('export', TINY, checkpoint, '--to', 'safetensors', '--out', path), path, '.safetensors')
    own = tmp_path / 'own.safetensors'
    assert tool('export', TINY, checkpoint, '--to', 'safetensors', '--out', own).status == 0
    monkeypatch.chdir(tmp_path)
    assert_refused(tool('export', TINY, own.name, '--to', 'safetensors', '--out', own), own, 'another file')
    outcome = tool('export', TINY, checkpoint, '--to', 'safetensors', '--for', 'mediapipe', '--precision', 'int8')
    assert outcome.status == 2 and '--to safetensors does nothing with --for, --precision' in outcome.err


CLASSES = ('a', 'b', 'c', 'd', 'e')
OTHER = [
    '--no-data-check',
    '--cfg-options',
    'model.decode_head.num_classes=5',
    'model.decode_head.ignore_index=255',
    'train_cfg.max_iters=1',
    'train_cfg.val_interval=9',
    'default_hooks.checkpoint.interval=1',
]


def test_a_training_on_other_classes_starts_from_the_rest_and_says_what_is_new(tool, scenes, checkpoint, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(scenes, root)
    for path in root.glob('annotations/*/*.png'):
        Image.fromarray(np.array(Image.open(path)) % 5).save(path)
    config = tmp_path / 'other.py'
    config.write_text(
        f"_base_ = ['{TINY}']\n"
        + ''.join(
            f'{loader}_dataloader = dict(dataset=dict(metainfo=dict('
            f'classes={CLASSES}, palette=[[n, n, n] for n in range(5)])))\n'
            for loader in ('train', 'val', 'test')
        )
    )
    arguments = [
        'train',
        config,
        '--work-dir',
        tmp_path / 'run',
        *OTHER,
        f'data_root={root}',
        f'load_from={checkpoint}',
    ]
    refused = tool(*arguments)
    assert_refused(
        type(refused)(2, '', refused.err.strip().splitlines()[-1]),
        checkpoint,
        '8 classes',
        'the config has 5',
        'new_head=True',
    )
    outcome = tool(*arguments, 'new_head=True')
    assert outcome.status == 0, outcome
    log = ''.join(path.read_text() for path in tmp_path.glob('run/*/*.log'))
    assert 'new: decode_head.conv_seg.weight, decode_head.conv_seg.bias' in log
    resumed = tool(
        *arguments[:3],
        tmp_path / 'run',
        '--resume',
        *OTHER,
        f'data_root={root}',
        'train_cfg.max_iters=2',
        'new_head=True',
    )
    assert resumed.status == 0, resumed
