"""A config says what runs: ours name it, and others get it by one function."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from networks import ROOT, TINY

from effseg.engine.config import load_config
from effseg.engine.protect import protect

CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
OURS = ['FiniteHook', 'IterationSeedHook', 'DueValidationHook', 'StopHook', 'ProgressHook', 'SafeCheckpointHook']
FOREIGN = """
_base_ = 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2)
"""


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_our_configs_name_what_runs(path, capsys):
    cfg = load_config(str(path))
    capsys.readouterr()
    assert protect(cfg)._cfg_dict == cfg._cfg_dict and not capsys.readouterr().out


def test_a_config_of_others_is_protected_once_and_said_line_by_line(tmp_path, capsys):
    (tmp_path / 'foreign.py').write_text(FOREIGN)
    cfg = load_config(str(tmp_path / 'foreign.py'))
    before = cfg.pretty_text
    protected = protect(cfg)
    lines = capsys.readouterr().out.strip().splitlines()
    assert cfg.pretty_text == before and len(lines) == len(set(lines))
    assert all(line.startswith('protected: ') for line in lines)
    assert sorted(hook['type'] for hook in protected.default_hooks.values() if hook['type'] in OURS) == sorted(OURS)
    assert protected.train_cfg == dict(type='ResumableEpochLoop', max_epochs=2)
    for name in ('train', 'val', 'test'):
        loader = protected[f'{name}_dataloader']
        assert loader.sampler.type == 'SeededSampler' and loader.sampler.sampler_type.endswith('Sampler')
        assert (loader.dataset.type, loader.dataset.dataset_type) == ('GuardedDataset', 'ADE20KDataset')
        assert loader.dataset.num_classes == 150 and loader.dataset.ignored == [255]
        loaders = [step for step in loader.dataset.pipeline if step.type.startswith('Load')]
        assert [step.type for step in loaders] == ['LoadImageFromFile', 'LoadLabelMap']
        assert loaders[0].backend_args == dict(backend='on_white')
    again = protect(protected)
    assert again._cfg_dict == protected._cfg_dict and not capsys.readouterr().out


@pytest.mark.medium
def test_the_dumped_config_is_what_ran_and_a_flag_leaves_it_as_it_is(tool, scenes, tmp_path):
    short = ['--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=9']
    outcome = tool('train', TINY, '--work-dir', tmp_path / 'a', *short)
    assert outcome.status == 0 and 'protected: train_dataloader.dataset loads label maps' in outcome.out
    ran = Config.fromfile(tmp_path / 'a/tiny.py')
    assert protect(ran)._cfg_dict == ran._cfg_dict
    outcome = tool('train', TINY, '--work-dir', tmp_path / 'b', '--no-protect', *short)
    assert outcome.status == 0 and 'protected' not in outcome.out
    assert Config.fromfile(tmp_path / 'b/tiny.py').train_pipeline[1].type == 'LoadAnnotations'


NAN_AT_SIX = """
from mmseg.models import EncoderDecoder
calls, loss = [], EncoderDecoder.loss
def corrupted(self, inputs, data_samples):
    calls.append(0)
    return {name: value * float('nan') if len(calls) == 6 else value
            for name, value in loss(self, inputs, data_samples).items()}
EncoderDecoder.loss = corrupted
"""


@pytest.mark.slow
def test_mmsegmentation_s_own_tool_trains_with_the_same_protection(scenes, tmp_path):
    """Atomic and plain checkpoints, an end at NaN, an exact resume from a moved folder, a bad sample by name."""
    import mmseg

    config = tmp_path / 'small.py'
    config.write_text(
        f'_base_ = {str(ROOT / "configs/fpn_effformer_l1_demo.py")!r}\n'
        "custom_imports = dict(imports=['effseg', 'effseg.engine', 'nan_at_six'], allow_failed_imports=True)\n"
        'train_cfg = dict(max_iters=8, val_interval=4)\n'
        'default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=2), logger=dict(interval=2))\n'
        'crop_size = (32, 32)\n'
        'train_dataloader = dict(batch_size=2, dataset=dict(pipeline=[\n'
        "    dict(type='LoadImageFromFile', backend_args=dict(backend='on_white')), dict(type='LoadLabelMap'),\n"
        "    dict(type='RandomCrop', crop_size=crop_size), dict(type='RandomFlip', prob=0.5),\n"
        "    dict(type='PackSegInputs')]))\n"
        'model = dict(data_preprocessor=dict(size=crop_size))\n'
    )
    tool = Path(mmseg.__file__).parent / '.mim/tools/train.py'

    def train(work_dir, *more, path=''):
        return subprocess.run(
            [sys.executable, str(tool), str(config), '--work-dir', str(work_dir), *more],
            capture_output=True,
            text=True,
            env={**os.environ, 'PYTHONPATH': f'{ROOT}:{path}', 'OMP_NUM_THREADS': '1'},
        )

    whole = train(tmp_path / 'whole')
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert (tmp_path / 'whole/best.pth').is_file()
    (tmp_path / 'nan').mkdir()
    (tmp_path / 'nan/nan_at_six.py').write_text(NAN_AT_SIX)
    stopped = train(tmp_path / 'run', path=tmp_path / 'nan')
    assert stopped.returncode != 0 and 'TrainingError: the loss is nan at iteration 6' in stopped.stderr
    assert not (tmp_path / 'run/iter_6.pth').exists()
    (tmp_path / 'run').rename(tmp_path / 'moved')
    (tmp_path / 'moved/iter_4.pth').write_bytes(b'')
    resumed = train(tmp_path / 'moved', '--resume')
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert 'passed over' in resumed.stdout + resumed.stderr
    first, second = (torch.load(tmp_path / run / 'iter_8.pth', weights_only=True) for run in ('whole', 'moved'))
    assert all(torch.equal(first['state_dict'][key], value) for key, value in second['state_dict'].items())
    (scenes / 'images/train/0001.jpg').rename(scenes / 'kept')
    try:
        (scenes / 'images/train/0001.jpg').write_bytes(b'')
        bad = train(tmp_path / 'bad')
        assert bad.returncode != 0 and 'DataError: sample 1 (' in bad.stderr and '0001.jpg' in bad.stderr
    finally:
        (scenes / 'kept').replace(scenes / 'images/train/0001.jpg')
