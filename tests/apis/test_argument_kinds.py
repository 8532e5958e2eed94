"""A value of a wrong kind at any argument of any tool ends in a result or in one line, from the tool's own parser."""

import argparse
import os
import random

import pytest
from networks import TINY

from effseg import hub
from effseg.apis import cli
from effseg.errors import MissingRuntimeError

# how each tool is called while one of its arguments is changed; the name in capitals that an argument stands for
CALLS = {
    'test': ['CONFIG', 'CHECKPOINT', '--work-dir', 'work'],
    'report': ['CONFIG', 'WEIGHTS', '--out', 'report', '--pictures', '1'],
    'predict': ['CONFIG', 'CHECKPOINT', 'IMAGES', '--out-dir', 'out'],
    'export': ['CONFIG', 'CHECKPOINT', '--to', 'onnx', '--size', '32', '64', '--proof-images', '1'],
    'benchmark': ['CONFIG', 'CHECKPOINT', '--compare', '--size', '32', '64', '--runs', '1', '--threads', '1'],
    'check_data': ['CONFIG', '--workers', '0'],
    'web_demo': ['ARTIFACT', '--out', 'site', '--runtime', 'FOLDER'],
    'hub save': ['save', 'CONFIG', 'CHECKPOINT', 'FOLDER'],
    'hub push': ['push', 'SAVED', 'a/b'],
    'convert': ['SOURCE', '--out', 'mine'],
    'fit': ['DATA', '--out', 'fit', '--dry-run', '--model', 'mlp_effformerv2_s0', '--weights', 'CHECKPOINT'],
    'latency': ['CONFIG', '--size', '32', '64', '--runs', '1', '-o', 'table.csv'],
    'slim': ['CONFIG', 'CHECKPOINT', '--table', 'FILE', '--out', 'slim', '--images', '1'],
    'distill': ['CONFIG', '--teacher', 'resnet18', '--teacher-weights', 'FILE', '--work-dir', 'work'],
    'demo': ['new', '--train', '1', '--val', '1', '--size', '32', '32'],
    'train': ['CONFIG', '--work-dir', 'work', '--no-data-check', '--cfg-options', 'train_cfg.max_iters=1'],
}
# they wait for somebody, start other processes, or take the time that they are given
LEFT_OUT = {'help', 'debug', 'serve', 'show', 'launcher', 'local_rank', 'rivals', 'models', 'host', 'port', 'compile'}
HUGE = '1' + '0' * 29
NUMBERS = ['-1', '0', HUGE, 'nan', '1.5', '', 'x', 'None']
# no system hands a null character over
PATHS = ['', '.', 'EMPTY', 'FILE', 'missing/of/it', os.fsdecode(b'a\xff.jpg'), 'a' * 300, 'LOOP', 'http:/host/a']
OPTIONS = ['a', '=', 'a=[', 'a.b.c=1', 'model=3', 'test_dataloader=None', 'test_evaluator=None', 'test_pipeline=None']
OPTIONS += ['a=[(1,2)', 'a=dict(type="SGD",lr=0.1)', 'a=f(1,2),g', 'a="(1,2"']
DRAWN = 3  # for each tool in the default tests


def calls(tool, name: str) -> list[list[str]]:
    """The tool's call with each of its arguments as each of the values of its kind."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.Parser, 'parse_args', lambda self, argv: made.append(self) or self.exit())
        assert tool(name.split()[0]).status == 0
    commands = [action for action in made[0]._actions if isinstance(action, argparse._SubParsersAction)]
    parser = commands[0].choices[CALLS[name][0]] if commands else made[0]
    return [
        _replaced(CALLS[name], action, given)
        for action in parser._actions
        if action.dest not in LEFT_OUT
        for given in _values(action)
    ]


def _values(action: argparse.Action) -> list[list[str]]:
    if action.dest == 'cfg_options':
        return [[option] for option in OPTIONS]
    if action.nargs == 0:
        return [[]]
    if action.choices:
        return [[choice] for choice in (*action.choices, 'x', '')]
    count = action.nargs if isinstance(action.nargs, int) else 1
    values = NUMBERS if action.type in (int, float) else PATHS
    return [[value] * count for value in values if (action.dest, value) != ('runs', HUGE)]


def _replaced(call: list[str], action: argparse.Action, given: list[str]) -> list[str]:
    if action.option_strings:
        return [*call, action.option_strings[-1], *given]
    if (name := action.dest.upper()) not in call:  # one that may be left out
        return [call[0], *given, *call[1:]]
    place = call.index(name)
    return [*call[:place], *given, *call[place + 1 :]]


@pytest.fixture
def places(scenes, checkpoint, tmp_path, monkeypatch) -> dict[str, str]:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('no such thing')
    (tmp_path / 'loop').symlink_to('loop')
    places = dict(CONFIG=TINY, CHECKPOINT=checkpoint, WEIGHTS=checkpoint, IMAGES=scenes / 'images/val/0000.jpg')
    (tmp_path / 'saved').mkdir()
    for name in (hub.CONFIG, hub.WEIGHTS):
        (tmp_path / 'saved' / name).write_text('{}')
    places |= dict(SAVED=tmp_path / 'saved', SOURCE=scenes, DATA=scenes)
    places |= dict(ARTIFACT=tmp_path / 'file', FILE=tmp_path / 'file', EMPTY=tmp_path / 'empty', FOLDER='hub')
    return {**{name: str(path) for name, path in places.items()}, 'LOOP': str(tmp_path / 'loop' / 'a')}


@pytest.fixture
def quick(monkeypatch):
    """Without what takes long behind the arguments: a conversion, and the timing of large images."""
    import huggingface_hub

    from effseg.benchmark import fused
    from effseg.deploy import backends
    from effseg.slimming import latency

    class Api:
        def create_repo(self, repository, private, exist_ok):
            huggingface_hub.utils.validate_repo_id(repository)
            raise OSError('nobody is contacted')

    def no_runtime(*arguments):
        raise MissingRuntimeError('conversion was reached')

    monkeypatch.setattr(backends.backend('onnx'), 'export', no_runtime)
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    monkeypatch.setattr('effseg.hub.model._read_config', lambda path: path.is_file())
    monkeypatch.setattr(fused, 'PHOTO', (64, 96))
    monkeypatch.setattr(fused, '_print_rates', lambda runs: 1.0)
    monkeypatch.setattr(latency, 'export', no_runtime)


@pytest.mark.parametrize(
    'name, drawn',
    [(name, 1 if name == 'fit' else DRAWN) for name in CALLS]
    + [pytest.param(name, None, marks=pytest.mark.slow) for name in CALLS],
)
@pytest.mark.medium
@pytest.mark.usefixtures('quick')
def test_any_argument_of_any_kind(tool, places, tmp_path, monkeypatch, name, drawn):
    every = calls(tool, name)
    for number, call in enumerate(random.Random(name).sample(every, drawn) if drawn else every):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        outcome = tool(name.split()[0], *(places.get(word, word) for word in call))
        said = outcome.err.strip().splitlines()
        assert outcome.status in (0, 1, 2) and 'Traceback' not in outcome.err, (call, outcome.err[-800:])
        assert outcome.status == 0 or name == 'check_data' or said[-1].startswith('error: '), (call, outcome.err[-800:])


@pytest.mark.parametrize(
    'value', ['[(1,2)', '((1,2)', '1,2)', 'dict(type="SGD",lr=0.1)', '(a,b)c', 'f(1,2),g', '"(1,2"']
)
def test_brackets_that_do_not_pair_are_one_line(tool, value):
    outcome = tool('train', TINY, '--cfg-options', f'optim_wrapper.optimizer={value}')
    assert outcome.status == 2 and outcome.err.startswith('error: --cfg-options optim_wrapper.optimizer=')
    assert len(outcome.err.splitlines()) == 1


# what the other tools take from a config; tests/engine/test_config_kinds.py holds those of a training
KEYS = {
    'test': ['test_dataloader', 'test_evaluator', 'test_cfg', 'model.test_cfg', 'model.data_preprocessor', 'tta_model'],
    'export': ['model.data_preprocessor.mean', 'model.data_preprocessor.size', 'test_pipeline', 'val_dataloader'],
    'predict': ['model.test_cfg', 'test_pipeline', 'test_dataloader.dataset', 'model.data_preprocessor.std'],
}
KINDS = ['None', '[]', 'x', '-1', 'nan', '[None]', 'True', HUGE, '["a","b","c"]']


@pytest.mark.parametrize(
    'name, drawn',
    [(name, 3) for name in KEYS] + [pytest.param(name, None, marks=pytest.mark.slow) for name in KEYS],
)
@pytest.mark.medium
@pytest.mark.usefixtures('quick')
def test_any_kind_at_the_keys_of_the_other_tools(tool, places, tmp_path, monkeypatch, name, drawn):
    monkeypatch.chdir(tmp_path)
    every = [f'{key}={kind}' for key in KEYS[name] for kind in KINDS]
    for option in random.Random(name).sample(every, drawn) if drawn else every:
        added = ['--tta'] if 'tta' in option else []
        outcome = tool(name, *(places.get(word, word) for word in CALLS[name]), *added, '--cfg-options', option)
        said = outcome.err.strip().splitlines()
        assert outcome.status in (0, 2) and 'Traceback' not in outcome.err, (option, outcome.err[-800:])
        assert outcome.status == 0 or said[-1].startswith('error: '), (option, outcome.err[-800:])
