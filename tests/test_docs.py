"""The commands of the pages are run as they stand, on a small network; their figures are those of the files."""

import csv
import re
import shlex
from pathlib import Path

import pytest
from browser import find
from pages import PAGES, ROOT, blocks, commands

DOCS = ROOT / 'docs'
# laid over the page's config: a network and a training of seconds, no download
SMALL = """
_base_ = ['page_config.py']
iterations = 4
dims = [8, 16, 24, 32]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(1, 1, 1, 1), embed_dims=dims, num_vit=1), resolution=1,
    init_cfg=None),
    neck=dict(in_channels=dims, out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=iterations, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""


def tool_calls(page: Path) -> list[list[str]]:
    """Name and arguments of the tools that a page calls."""
    split = [shlex.split(command.text) for command in commands(page)]
    return [
        [Path(words[1]).stem, *words[2:]]
        for words in split
        if words[:1] == ['python'] and words[1].startswith('tools/')
    ]


@pytest.mark.medium
def test_own_data_from_masks_to_the_phone(tool, tmp_path, monkeypatch):
    from effseg.demo.dataset import write_demo_data
    from effseg.errors import MissingRuntimeError
    from effseg.web import runtime

    monkeypatch.chdir(tmp_path)
    write_demo_data('my_data', train=4, val=2, size=(64, 96))
    page_config, *taught = blocks(DOCS / 'own_data.md', 'python')
    Path('page_config.py').write_text(page_config.replace('(512, 512)', '(64, 64)').replace('(2048, 512)', '(96, 64)'))
    Path('my_config.py').write_text(SMALL)
    run = [call for call in tool_calls(DOCS / 'own_data.md') if call[:2] != ['hub', 'push']]  # which takes an account
    run = [call for call in run if call[0] not in ('fit', 'convert', 'distill')]  # their own tests
    assert [name for name, *_ in run] == [
        'check_data',
        'train',
        'test',
        'report',
        'predict',
        'export',
        'report',
        'predict',
        'web_demo',
        'hub',
    ]
    for name, *arguments in run:
        if name == 'web_demo':
            try:
                runtime.package()
            except MissingRuntimeError:
                continue  # tests/web says that it is missing
        if name == 'export':
            size = arguments.index('--size')
            arguments[size + 1 : size + 3] = ['64', '96']
            arguments += ['--proof-images', '1']
        outcome = tool(name, *arguments)
        assert outcome.status == 0, (name, outcome)
        if name == 'report':
            folder = Path(arguments[arguments.index('--out') + 1] if '--out' in arguments else 'work_dirs/mine/report')
            assert (folder / 'report.html').resolve().as_uri() in outcome.out
    mine = Path('work_dirs/mine')
    for file in (
        'best.pth',
        'report/report.html',
        'predictions/shares.json',
        'model.onnx',
        'compared/report.html',
        'predictions_of_the_file/shares.json',
        'hub/model.safetensors',
    ):
        assert (mine / file).is_file(), file
    assert tool('test', 'my_config.py', mine / 'best.pth', '--tta').status == 0
    for name, config in zip(('taught', 'taught_once'), taught, strict=True):
        Path(f'{name}.py').write_text(config.replace('large_config.py', 'my_config.py').replace('large/', 'mine/'))
        outcome = tool('train', f'{name}.py')
        (log,) = Path('work_dirs', name).glob('*/*.log')
        assert ('which sees whole images' in log.read_text()) == (name == 'taught_once')
        assert outcome.status == 0, outcome
        assert tool('test', 'my_config.py', f'work_dirs/{name}/best.pth').status == 0
    assert (mine / 'site' / 'index.html').is_file() or not find('npm')


def test_own_data_is_split_by_scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {f'{scene}_{number}' for scene in 'abcdefghij' for number in range(3)}
    for folder, suffix in (('images', '.jpg'), ('annotations', '.png')):
        (tmp_path / 'my_data' / folder / 'train').mkdir(parents=True)
        for name in names:
            (tmp_path / 'my_data' / folder / 'train' / f'{name}{suffix}').touch()
    exec(blocks(DOCS / 'own_data.md', 'py')[0], {})
    split = {
        folder: {path.stem for path in (tmp_path / 'my_data' / folder).iterdir()}
        for folder in ('images/train', 'images/val', 'annotations/train', 'annotations/val')
    }
    assert split['images/train'] == split['annotations/train'] and split['images/val'] == split['annotations/val']
    assert split['images/train'] | split['images/val'] == names and len(split['images/val']) == 6
    assert not {name[0] for name in split['images/train']} & {name[0] for name in split['images/val']}


TRACKERS = [line for block in blocks(DOCS / 'reproduce.md', 'py') for line in block.splitlines()]


def test_four_trackers_are_shown():
    assert [re.search(r'(\w+)VisBackend', line.replace('LocalVisBackend', ''))[1] for line in TRACKERS] == [
        'Tensorboard',
        'Wandb',
        'MLflow',
        'Swanlab',
    ]


@pytest.mark.parametrize('line', TRACKERS)
def test_a_tracker_is_one_line_in_a_config(line, tmp_path):
    import inspect

    from mmengine.registry import VISBACKENDS

    from effseg.engine.config import load_config

    config = tmp_path / 'tracked.py'
    config.write_text(f'_base_ = [{str(ROOT / "configs/fpn_effformer_l1_demo.py")!r}]\n{line}\n')
    local, tracker = load_config(str(config)).visualizer.vis_backends
    assert local.type == 'LocalVisBackend' and tracker.type in line
    if not tracker.type.startswith('swanlab.'):  # not MMEngine's
        inspect.signature(VISBACKENDS.get(tracker.type)).bind(
            'work_dir', **{key: value for key, value in tracker.items() if key != 'type'}
        )


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_every_tool_and_file_that_a_page_names_is_there(page):
    text = page.read_text()
    for name in set(re.findall(r'\b(?:tools|configs|tests|effseg)/[\w/]+\.py\b', text)):
        assert (ROOT / name).is_file(), name
    for target in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_every_option_that_a_page_shows_exists(page):
    for name, *arguments in tool_calls(page):
        source = (ROOT / 'tools' / f'{name}.py').read_text() + (ROOT / 'effseg/apis/cli.py').read_text()
        for option in (word.strip('[]') for word in arguments if word.strip('[').startswith('--')):
            assert f"'{option}'" in source, (page.name, name, option)


def test_the_decoders_of_the_page_are_those_of_the_file():
    with open(DOCS / 'decoders_long.csv', newline='') as file:
        runs = [(row['name'], row['mIoU']) for row in csv.DictReader(file)]
    table = (DOCS / 'benchmarks.md').read_text().split('### Which one')[1].split('![')[0]
    rows = [line.strip('| ').replace('*', '').split(' | ') for line in table.splitlines() if line.startswith('| ')]
    names = list(dict.fromkeys(name for name, _ in runs))
    assert len(rows) == len(names) + 1  # and the heading
    for name, (_, _, said, mean) in zip(names, rows[1:]):
        scores = [score for other, score in runs if other == name]
        assert said.split(', ') == scores
        assert float(mean) == pytest.approx(sum(map(float, scores)) / len(scores), abs=0.0051)


def test_the_decoders_at_equal_time_are_those_of_the_file():
    runs: dict = {}
    with open(DOCS / 'decoders.csv', newline='') as file:
        for row in csv.DictReader(file):
            runs.setdefault((row['name'], row['iterations'], row['lr']), []).append((row['mIoU'], row['cpu_minutes']))
    names = list(dict.fromkeys(name for name, *_ in runs))
    measured = {}
    for (name, iterations, _), rows in runs.items():
        scores, minutes = zip(*rows)
        means = [sum(map(float, values)) / len(values) for values in (scores, minutes)]
        measured[iterations, scores] = names.index(name), pytest.approx(means[0], abs=0.0051), means[1]
    tables = (DOCS / 'benchmarks.md').read_text().split('| iterations | seeds from 0 |')[1:]
    found = []
    for table in tables:
        lines = [line for line in table.split('\n\n')[0].splitlines() if line.startswith('| ')]
        rows = [line.strip('| ').split(' | ') for line in lines]
        places = []
        for name, iterations, said, mean, minutes in rows:
            place, expected, took = measured[iterations, tuple(said.split(', '))]
            assert float(mean) == expected and float(minutes) == pytest.approx(took, abs=0.051), name
            places.append(place)
        assert places == sorted(set(places)), "rows stand in the order of the file, so that a figure is its decoder's"
        found.append(len(rows))
    assert found == [5, 14]
