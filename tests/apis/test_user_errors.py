"""A user's mistake is one line that says what to do, status 2, and no traceback, whichever tool it is made with."""

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY
from PIL import Image

pytestmark = [pytest.mark.medium, pytest.mark.usefixtures('scenes')]


def assert_refused(outcome, *words):
    lines = outcome.err.strip().splitlines()
    assert outcome.status == 2, outcome
    assert len(lines) == 1 and lines[0].startswith('error: '), outcome.err
    for word in words:
        assert str(word) in lines[0], lines[0]


class Touch:
    """Unpickling it makes a file: the sign that a loader ran code."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_config_that_is_not_there_is_answered_with_those_that_are(tool):
    assert_refused(tool('train', 'no_such.py'), 'no_such.py', 'fpn_effformer_l1_ade20k.py')


def test_a_broken_config_is_named(tool, tmp_path):
    config = tmp_path / 'broken.py'
    config.write_text('model = dict(')
    assert_refused(tool('train', config), 'broken.py', 'SyntaxError')


def test_a_config_without_model_is_named(tool, tmp_path):
    config = tmp_path / 'empty.py'
    config.write_text('a = 1')
    assert_refused(tool('train', config), "no 'model'")


def test_mixed_precision_without_a_gpu_is_refused(tool, monkeypatch):
    monkeypatch.setattr('effseg.apis.train.cpu_has_bfloat16', lambda: False)
    assert_refused(tool('train', 'effseg::fpn_effformer_l1_demo.py', '--amp'), '--amp', 'CPU')


def test_missing_data_says_how_to_get_them(tool, tmp_path):
    outcome = tool('train', 'effseg::fpn_effformer_l1_ade20k.py', '--cfg-options', f'data_root={tmp_path}')
    assert_refused(outcome, tmp_path, 'ADEChallengeData2016', 'ADE20K_ROOT', 'annotations/{training,validation}')


@pytest.mark.parametrize('arguments', [['train'], ['test', 'weights.pth']])
def test_an_image_without_label_map_is_named(tool, scenes, tmp_path, arguments):
    root = tmp_path / 'data'
    shutil.copytree(scenes, root)
    for split in ('train', 'val'):
        (root / 'annotations' / split / '0001.png').unlink()
    name, *rest = arguments
    assert_refused(tool(name, TINY, *rest, '--cfg-options', f'data_root={root}'), '0001.jpg', 'label map', '.png')


def test_a_wrong_suffix_is_named(tool):
    assert_refused(
        tool('train', TINY, '--cfg-options', 'train_dataloader.dataset.img_suffix=.tif'), "'.tif'", 'img_suffix'
    )


def test_classes_of_data_and_head_must_agree(tool):
    assert_refused(tool('train', TINY, '--cfg-options', 'model.decode_head.num_classes=5'), '8 classes', '5')


@pytest.mark.parametrize('name', ['train', 'predict'])
def test_a_data_set_without_classes_is_asked_for_them(tool, scenes, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    nameless = 'dict(dataset=dict(metainfo=dict(_delete_=True)))'
    Path('nameless.py').write_text(f'_base_ = {TINY!r}\nval_dataloader = test_dataloader = {nameless}\n')
    call = dict(train=['--no-data-check'], predict=['weights.pth', scenes / 'images' / 'val', '--out-dir', 'out'])
    assert_refused(tool(name, 'nameless.py', *call[name]), 'classes', 'metainfo=dict(classes=')


def test_an_unknown_arch_is_answered_with_the_known(tool, tmp_path):
    options = ['--cfg-options', 'model.backbone.arch=l9']
    assert_refused(tool('train', 'effseg::fpn_effformer_l1_demo.py', '--work-dir', tmp_path, *options), "'l9'", "'l1'")


def test_an_unknown_option_is_named(tool, tmp_path):
    assert_refused(tool('train', TINY, '--work-dir', tmp_path, '--cfg-options', 'model.backbone.depth=9'), 'depth')


def test_resume_needs_a_checkpoint(tool, tmp_path):
    assert_refused(tool('train', TINY, '--work-dir', tmp_path, '--resume'), '--resume', tmp_path)


def test_resume_refuses_a_folder_of_cut_checkpoints(tool, tmp_path, checkpoint):
    (tmp_path / 'iter_2.pth').write_bytes(checkpoint.read_bytes()[:1000])
    outcome = tool('train', TINY, '--work-dir', tmp_path, '--resume')
    assert (
        outcome.status == 2
        and 'error: no checkpoint to resume from' in outcome.err
        and 'iter_2.pth is damaged' in outcome.err
    )


def test_a_gpu_launcher_needs_gpus(tool, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    options = ['--launcher', 'pytorch', '--cfg-options', 'env_cfg.dist_cfg.backend=nccl']
    assert_refused(tool('train', TINY, '--work-dir', tmp_path, *options), 'GPUs', 'gloo')


def test_a_launcher_needs_torchrun(tool, tmp_path, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    assert_refused(tool('train', TINY, '--work-dir', tmp_path, '--launcher', 'pytorch'), 'torchrun')


def corrupted(name, state_dict, path):
    """A checkpoint file with one thing wrong."""
    state_dict = dict(state_dict)
    if name == 'classes':
        for end in ('weight', 'bias'):
            state_dict[f'decode_head.conv_seg.{end}'] = state_dict[f'decode_head.conv_seg.{end}'][:5]
    if name == 'arch':
        state_dict = {key.replace('stages.1', 'stages.7'): value for key, value in state_dict.items()}
    if name == 'missing':
        del state_dict['decode_head.conv_seg.bias']
    if name == 'nan':
        state_dict['decode_head.conv_seg.bias'] = state_dict['decode_head.conv_seg.bias'] * float('nan')
    if name == 'code':
        state_dict['backbone.extra'] = Touch(path.with_suffix('.ran'))
    torch.save({'state_dict': state_dict}, path)
    if name == 'truncated':
        path.write_bytes(path.read_bytes()[:5000])
    if name == 'empty':
        path.write_bytes(b'')
    if name == 'absent':
        path.unlink()


@pytest.mark.parametrize(
    'name, word',
    [
        ('classes', '5 classes'),
        ('arch', 'another network'),
        ('missing', 'conv_seg.bias'),
        ('nan', 'NaN'),
        ('code', 'without running code'),
        ('truncated', 'damaged'),
        ('empty', 'no checkpoint'),
        ('absent', 'there is no checkpoint'),
    ],
)
@pytest.mark.parametrize('entry', ['test', 'predict', 'load_from'])
def test_a_checkpoint_that_does_not_fit_is_refused_at_every_entry_point(
    tool, segmentor, scenes, tmp_path, name, word, entry
):
    path = tmp_path / 'given.pth'
    corrupted(name, segmentor.state_dict(), path)
    arguments = {
        'test': ['test', TINY, path, '--work-dir', tmp_path],
        'predict': ['predict', TINY, path, scenes / 'images' / 'val', '--out-dir', tmp_path / 'out'],
        'load_from': ['train', TINY, '--work-dir', tmp_path, '--cfg-options', f'load_from={path}'],
    }[entry]
    outcome = tool(*arguments)
    assert outcome.status == 2
    assert_refused(type(outcome)(2, outcome.out, outcome.err.strip().splitlines()[-1]), 'given.pth', word)
    assert 'Traceback' not in outcome.err
    assert not path.with_suffix('.ran').exists()
    assert not list(tmp_path.glob('iter_*'))


def test_predict_names_a_missing_image(tool, checkpoint, tmp_path):
    assert_refused(tool('predict', TINY, checkpoint, tmp_path / 'no.jpg', '--out-dir', tmp_path / 'out'), 'no.jpg')


def test_predict_says_what_it_looked_for_in_an_empty_folder(tool, checkpoint, tmp_path):
    assert_refused(tool('predict', TINY, checkpoint, tmp_path, '--out-dir', tmp_path / 'out'), tmp_path, '.jpg')


def test_predict_wants_an_opacity_between_0_and_1(tool, checkpoint, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'a.png')
    assert_refused(
        tool('predict', TINY, checkpoint, tmp_path, '--out-dir', tmp_path / 'out', '--opacity', 7), 'opacity=7'
    )


def test_tta_needs_its_pipeline(tool, checkpoint, tmp_path):
    config = tmp_path / 'plain.py'
    config.write_text(f"_base_ = ['{TINY}']\ntta_model = dict(_delete_=True)\n")
    outcome = tool('test', config, checkpoint, '--tta', '--work-dir', tmp_path)
    assert outcome.status == 2 and 'Traceback' not in outcome.err


def test_the_traceback_is_there_for_the_asking(tool):
    outcome = tool('train', 'no_such.py', '--debug')
    assert (
        outcome.status == 2
        and 'Traceback' in outcome.err
        and outcome.err.strip().splitlines()[-1].startswith('error: ')
    )


@pytest.mark.parametrize(
    'option, word',
    [
        ('model=3', 'a dict was expected'),
        ('train_dataloader=1', 'a dict was expected'),
        ('model.decode_head=1', 'no decode_head'),
        ('train_cfg.max_iters=x', "'x'"),
        ('train_cfg.val_interval=0', 'val_interval=0'),
        ('optim_wrapper.optimizer.type=Nope', 'optim_wrapper'),
        ('optim_wrapper.optimizer.rate=1', "'rate'"),
        ('param_scheduler.0.type=Nope', "'Nope"),
        ('randomness.seed=abc', 'randomness'),
        ('train_dataloader.batch_size=0', 'batch_size=0'),
        ('train_dataloader.num_workers=-1', 'num_workers'),
        ('custom_hooks.0.type=Nope', 'custom_hooks'),
        ('train_dataloader.dataset.type=Nope', 'train_dataloader'),
        ('train_dataloader.dataset.pipeline.0.type=Nope', "'Nope"),
        ('val_evaluator.type=Nope', 'evaluator'),
        ('val_evaluator.iou_metrics=[mNope]', "'mNope'"),
        ('default_hooks.checkpoint.save_best=nope', 'nope'),
        ('default_hooks.checkpoint.every=3', "'every'"),
    ],
)
def test_a_part_of_the_config_that_cannot_be_built_is_named(tool, tmp_path, option, word):
    outcome = tool('train', TINY, '--work-dir', tmp_path, '--no-data-check', '--cfg-options', option)
    assert_refused(outcome, word)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(
    'arguments',
    [
        ['test', 'CHECKPOINT', '--work-dir', 'FILE'],
        ['test', 'CHECKPOINT', '--out', 'FILE', '--work-dir', 'FOLDER'],
        ['predict', 'CHECKPOINT', 'IMAGE', '--out-dir', 'FILE'],
        ['predict', 'CHECKPOINT', 'IMAGE', '--out-dir', 'FOLDER/' + 'a' * 300],
        ['export', 'CHECKPOINT', '--to', 'safetensors', '--out', 'FILE/a.safetensors'],
        ['check_data', '--workers', '0', '--json', 'FOLDER'],
        ['train', '--work-dir', 'FILE/a'],
    ],
)
def test_a_place_that_cannot_be_written_is_named(tool, checkpoint, scenes, tmp_path, arguments):
    (tmp_path / 'file').write_text('')
    places = {
        'FILE': tmp_path / 'file',
        'FOLDER': tmp_path,
        'CHECKPOINT': checkpoint,
        'IMAGE': scenes / 'images/val/0000.jpg',
    }
    name, *rest = arguments
    for place, path in places.items():
        rest = [argument.replace(place, str(path)) for argument in rest]
    outcome = tool(name, TINY, *rest)
    assert_refused(type(outcome)(outcome.status, '', outcome.err.strip().splitlines()[-1]), tmp_path)
    assert 'Traceback' not in outcome.err


@pytest.mark.parametrize(
    'arguments, word',
    [
        (['predict', 'x.pth', 'a.png', '--out-dir', 'out'], 'test_dataloader'),
        (['test', 'x.pth'], 'test_dataloader'),
        (['report', 'x.pth'], 'test data'),
        (['check_data', '--split', 'test'], 'no data set for test'),
    ],
)
def test_a_config_without_test_data_is_said(tool, tmp_path, arguments, word):
    config = tmp_path / 'half.py'
    config.write_text(f"_base_ = ['{TINY}']\ntest_dataloader = test_evaluator = test_cfg = None\n")
    (tmp_path / 'a.png').write_bytes(b'')
    name, *rest = arguments
    assert_refused(
        tool(name, config, *[str(tmp_path / item) if '.' in item or item == 'out' else item for item in rest]), word
    )


@pytest.mark.parametrize(
    'arguments', [[], ['a.py', '--no-such-option'], ['a.py', '--launcher', 'elves'], ['a.py', '--cfg-options', 'x']]
)
def test_wrong_arguments_are_one_line(tool, arguments):
    assert_refused(tool('train', *arguments), '--help')


@pytest.mark.parametrize(
    'arguments, package',
    [
        (['report', TINY, 'CHECKPOINT'], 'jinja2'),
        (['report', TINY, 'CHECKPOINT'], 'plotly'),
        (['hub', 'save', TINY, 'CHECKPOINT', 'hub'], 'huggingface_hub'),
        (['hub', 'save', TINY, 'CHECKPOINT', 'hub'], 'safetensors'),
    ],
)
def test_a_missing_package_is_named_before_anything_is_scored(
    tool, checkpoint, tmp_path, monkeypatch, arguments, package
):
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *of: None if name == package else find(name, *of))
    outcome = tool(*(str(checkpoint) if word == 'CHECKPOINT' else word for word in arguments))
    assert_refused(outcome, package, 'pip install')
    assert not list(tmp_path.iterdir())
