"""A value of a wrong kind anywhere in a config is one line, from the config's own schema."""

import copy
import random

import pytest
from mmengine.config import Config
from networks import TINY

from effseg.engine.config import _KINDS, DATALOADERS, load_config
from effseg.errors import ConfigError

KINDS = [None, [], {}, 'x', -1, float('nan'), [None], True, 10**30]
KINDS_OF = {key: kinds for kinds, keys in _KINDS.items() for key in keys}
PARTS = {key.format(loader=loader) for key in KINDS_OF for loader in DATALOADERS}


@pytest.fixture(scope='module')
def tiny():
    return Config.fromfile(TINY)


@pytest.fixture
def read_once(tiny, monkeypatch):
    """Every test that takes this has the tiny config without its file being run again."""
    monkeypatch.setattr(Config, 'fromfile', lambda path: copy.deepcopy(tiny))


@pytest.mark.usefixtures('read_once')
@pytest.mark.parametrize('name', sorted(part for part in PARTS if not part.startswith('test_dataloader')))
def test_a_part_of_a_wrong_kind_is_named(name):
    pattern = name.replace(name.split('_dataloader')[0], '{loader}', 1).replace('}_dataloader', '}')
    kinds = KINDS_OF.get(name) or KINDS_OF[pattern]
    # a dict is merged into what a base config has there, by MMEngine
    for value in (None, [], 'x', -1, 0.5, True):
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if not fits:
            with pytest.raises(ConfigError) as caught:
                load_config(TINY, {name: value})
            assert len(str(caught.value).splitlines()) == 1
            assert name.split('.')[-1] in str(caught.value), caught.value


@pytest.mark.usefixtures('read_once')
@pytest.mark.parametrize(
    'option, word',
    [
        ({'model.decode_head': []}, 'decode_head'),
        ({'model.decode_head': [None]}, 'decode_head'),
        ({'train_dataloader.dataset.pipeline.3.crop_size': 'x'}, 'crop_size'),
        ({'train_dataloader.dataset.pipeline.3.crop_size': [None, 3]}, 'crop_size'),
        ({'train_dataloader.dataset.pipeline.0.type': [None]}, 'a dict with a type'),
        ({'train_dataloader.dataset.pipeline': [None]}, 'a dict with a type'),
        ({'val_evaluator.iou_metrics': 'x'}, 'iou_metrics'),
        ({'val_evaluator': [None]}, 'val_evaluator'),
        ({'log_level': 'LOUD'}, 'log_level'),
        ({'model': None}, 'model'),
    ],
)
def test_a_value_that_nobody_can_mean_is_named(option, word):
    with pytest.raises(ConfigError, match=word):
        load_config(TINY, option)


def test_a_preprocessor_is_asked_for_and_may_stand_beside_the_model(tmp_path):
    config, model = tmp_path / 'config.py', 'model = dict(backbone={}, decode_head=dict(num_classes=2))\n'
    config.write_text(model)
    with pytest.raises(ConfigError, match='no data_preprocessor'):
        load_config(str(config))
    config.write_text(model + 'data_preprocessor = dict(type="SegDataPreProcessor")\n')
    assert load_config(str(config)).model.data_preprocessor == dict(type='SegDataPreProcessor')


@pytest.mark.medium
@pytest.mark.parametrize(
    'option, word',
    [
        ('env_cfg.mp_cfg.mp_start_method=x', 'env_cfg'),
        ('train_dataloader.dataset.ann_file=none.txt', 'none.txt'),
        ('model.neck=None', 'first iteration'),
        ('default_hooks.checkpoint.interval=x', 'first iteration'),
        ('model.test_cfg=3', 'model.test_cfg=3'),
        ('test_cfg=None', 'test_cfg'),
    ],
)
def test_what_only_a_run_can_tell_is_one_line(tool, scenes, tmp_path, option, word):
    outcome = tool('train', TINY, '--work-dir', tmp_path, '--no-data-check', '--cfg-options', option)
    assert outcome.status == 2 and 'Traceback' not in outcome.err, outcome.err
    assert word in outcome.err.strip().splitlines()[-1]


def paths(value, name: str = ''):
    """Every key of a config, as ``--cfg-options`` names it."""
    if name:
        yield name
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, f'{name}.{key}' if name else str(key))


@pytest.mark.slow
def test_any_key_of_any_kind_trains_or_is_one_line(tool, scenes, tmp_path):
    cfg = load_config(TINY)
    kept = ('test_', 'tta_', 'work_dir', 'data_root', 'dims', 'dataset', 'train_cfg.max_iters')
    keys = [key for key in paths(cfg._cfg_dict.to_dict()) if not key.startswith(kept)]
    draw = random.Random(0)
    for number in range(200):
        key, value = draw.choice(keys), draw.choice(KINDS)
        options = ['--cfg-options', f'{key}={value}'.replace(' ', '')]
        options += [] if key == 'train_cfg' else ['train_cfg.max_iters=1']
        outcome = tool('train', TINY, '--work-dir', tmp_path / str(number), *options)
        said = outcome.err.strip().splitlines()
        assert outcome.status in (0, 2) and 'Traceback' not in outcome.err, (key, value, outcome.err[-800:])
        assert outcome.status == 0 or said[-1].startswith('error: '), (key, value, outcome.err[-800:])
