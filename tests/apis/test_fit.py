"""From a folder of masks to a proven file by one command, and what stops it before it has cost anything."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from effseg.apis.fit import class_weights, iterations_of, literal
from effseg.demo.dataset import write_demo_data
from effseg.engine.config import load_config
from effseg.errors import ConfigError

OPTIONS = ['--model', 'mlp_effformerv2_s0']


@pytest.fixture
def masks(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    write_demo_data(tmp_path / 'masks', train=8, val=2, size=(64, 64))
    return tmp_path / 'masks'


@pytest.mark.slow
def test_one_command_goes_from_masks_to_a_proven_file(tool, masks, tmp_path):
    outcome = tool('fit', masks, '--out', tmp_path / 'out', '--budget', '2', *OPTIONS)
    assert outcome.status == 0, outcome.err
    for name in ('config.py', 'run/best.pth', 'run/report/report.html', 'run/best_fp32.onnx'):
        assert (tmp_path / 'out' / name).is_file(), name
    assert 'random' in outcome.out and 'small_data_from_scratch' in outcome.out


@pytest.mark.medium
def test_a_dry_run_ends_with_a_config_that_is_read_as_any_other(tool, masks, tmp_path):
    outcome = tool('fit', masks, '--out', tmp_path / 'out', '--budget', '3', '--dry-run')
    assert outcome.status == 0, outcome.err
    cfg = load_config(str(tmp_path / 'out/config.py'))
    assert cfg.model.backbone.arch == 's1' and cfg.model.decode_head.type == 'EfficientViTHead'
    assert cfg.train_cfg.max_iters == 3 and cfg.model.decode_head.num_classes == 8
    assert len(cfg.model.decode_head.loss_decode.class_weight) == 8 and cfg.model.backbone.init_cfg is None
    assert any(step.type == 'RareClassCrop' for step in cfg.train_dataloader.dataset.pipeline)
    assert {hook.type for hook in cfg.custom_hooks} == {'ResumableEMAHook', 'EarlyStoppingHook'}
    assert not (tmp_path / 'out/run').exists()
    assert cfg.optim_wrapper.optimizer.lr == 2e-3 and cfg.optim_wrapper.clip_grad
    tool('fit', masks, '--out', tmp_path / 'fpn', '--budget', '3', '--dry-run', '--model', 'fpn_effformerv2_s0')
    wrapper = load_config(str(tmp_path / 'fpn/config.py')).optim_wrapper
    assert wrapper.optimizer == dict(type='AdamW', lr=5e-4, weight_decay=1e-2) and wrapper.clip_grad


def test_a_converted_folder_without_its_images_is_one_line(tool, masks, tmp_path):
    tool('convert', masks, '--out', tmp_path / 'data')
    for image in (tmp_path / 'data/images/train').iterdir():
        image.unlink()
    outcome = tool('fit', tmp_path / 'data', '--out', tmp_path / 'out', '--budget', '3', '--dry-run', *OPTIONS)
    assert outcome.status == 2 and 'no image ends in' in outcome.err, outcome.err


def test_what_there_is_not_is_said_before_anything_is_written(tool, masks, tmp_path):
    for options, word in (
        (['--model', 'resnet'], 'mlp_effformerv2_s1'),
        (['--budget', 'soon'], 'neither a time'),
        (['--weights', 'none.pth'], 'is no file'),
    ):
        outcome = tool('fit', masks, '--out', tmp_path / 'out', *options)
        assert outcome.status == 2 and word in outcome.err, outcome.err
    assert not (tmp_path / 'out/config.py').exists()


NAMES = ('{{$NOWHERE:x}}', '{{ fileBasename }}', """"{{$A:\\'"+str(exit(9))+"}}""", 'road\\n', '{{_base_.model}}')


def test_names_out_of_a_file_of_labels_stay_names_in_the_config(tmp_path):
    (tmp_path / 'config.py').write_text(f'classes = {literal(NAMES)}\n')
    assert tuple(Config.fromfile(tmp_path / 'config.py').classes) == NAMES
    # the sabotage: as Python writes them, MMEngine exchanges what stands in the braces
    (tmp_path / 'config.py').write_text(f'classes = {NAMES[:2]!r}\n')
    assert tuple(Config.fromfile(tmp_path / 'config.py').classes) != NAMES[:2]


def test_a_budget_is_one_pass_at_least():
    dataset = SimpleNamespace(images=dict(train=20, val=2))
    assert iterations_of(3, 8, 1.0, 0.5, dataset) == 3
    with pytest.raises(ConfigError, match='one pass over the 20 training images takes 3: give 3 iterations'):
        iterations_of(2, 8, 1.0, 0.5, dataset)
    with pytest.raises(ConfigError, match='give 1m at least'):
        iterations_of(14.9, 8, 1.0, 0.5, dataset)
    assert iterations_of(15.0, 8, 1.0, 0.5, dataset) == 3


def test_class_weights():
    assert class_weights([0.25] * 4) == [1.0] * 4
    assert class_weights([0.99, 0.01, 0.0]) == [0.58, 4.0, 4.0]
