"""A search from the command line to an ordinary config and checkpoint, interrupted and gone on with."""

import json

import pytest

pytest.importorskip('mmseg')
import torch

import effseg
from effseg.errors import ConfigError
from effseg.slimming import evaluate, latency, search, slim
from effseg.slimming.space import Part, Space
from effseg.slimming.table import Table, fingerprint

from .test_latency import TINY


def table_of(config, path):
    """In which each part takes as long as it has weights, about."""
    network = latency.original(str(config))
    space = Space(network)
    made = Table('onnx', 'a device', 1, (64, 64), fingerprint(network), 0.0)
    for part in space.all_parts():
        made.ms[part] = 1e-3 * (part.dim_in + 1) * (part.dim + part.hidden)
    made.whole = sum(times * made.ms[part] for part, times in space.parts(space.original).items())
    made.write(path)
    return path


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    return table_of(TINY, tmp_path_factory.mktemp('table') / 'table.csv')


def arguments(checkpoint, table, out, budget=0.6):
    return ('slim', TINY, checkpoint, '--table', table, '--budget', budget, '--images', 2, '--out', out)


@pytest.fixture(scope='module')
def slimmed(scenes, checkpoint, table, tmp_path_factory):
    out = tmp_path_factory.mktemp('slim') / 'out'
    slim.slim(TINY, str(checkpoint), str(table), 0.6, str(out), 2)
    return out


def test_the_result_is_ordinary(slimmed, scenes):
    """A config of a few lines and a checkpoint that opens, fuses and is within the budget."""
    report = json.loads((slimmed / 'report.json').read_text())
    (latency,) = report['latency']
    assert latency['predicted_ms'] <= 0.6 * latency['original_ms'] and latency['measured_ms'] is None
    assert [step['ms'] for step in report['path']] == sorted((step['ms'] for step in report['path']), reverse=True)
    assert len((slimmed / 'slim.py').read_text().splitlines()) < 16
    segmenter = effseg.open(str(slimmed / 'slim.py'), str(slimmed / 'slim.pth'), device='cpu')
    arch = segmenter.trained.backbone.arch
    assert json.loads(json.dumps(arch.as_config())) == report['chosen']['arch'] != report['original']['arch']
    logits = effseg.fuse(segmenter.trained, (64, 64)).logits(torch.randn(1, 3, 64, 64))
    assert logits.shape == (1, 8, 16, 16)


def test_the_page_shows_the_path_and_every_block(slimmed):
    page, report = (slimmed / 'report.html').read_text(), json.loads((slimmed / 'report.json').read_text())
    for step in report['path'][1:]:
        assert step['action']['text'] in page and 0 <= step['accuracy'] <= 100
    blocks = sum(report['original']['arch']['depths'])
    assert page.count('<div class="block') == blocks
    assert page.count('left out<br>') == blocks - sum(report['chosen']['arch']['depths'])
    assert report['commands'][0] in page


@pytest.mark.medium
def test_the_printed_command_recovers_with_the_original_as_teacher(slimmed, scenes, tool, tmp_path, checkpoint):
    """And what it leaves is exported and slimmed again."""
    command, plain = json.loads((slimmed / 'report.json').read_text())['commands']
    assert command == f'python tools/train.py {slimmed}/recover.py' and plain.endswith('slim.py')
    outcome = tool('train', slimmed / 'recover.py', '--work-dir', tmp_path, '--no-data-check')
    (log,) = tmp_path.rglob('*.log')
    assert outcome.status == 0 and f'distilled from {checkpoint}' in log.read_text()
    assert 'distill.loss_kl' in log.read_text()
    best, slim_py = next(tmp_path.glob('iter_*.pth')), slimmed / 'slim.py'
    assert effseg.open(str(slim_py), str(best), device='cpu')  # the teacher is not in it
    assert tool('export', slim_py, best, '--to', 'torch', '--size', 64, 64, '-o', tmp_path / 'm.pt2').status == 0
    again = ('--table', table_of(slim_py, tmp_path / 'again.csv'), '--budget', 0.8, '--images', 2)
    outcome = tool('slim', slim_py, best, *again, '--out', tmp_path / 'again')
    assert outcome.status == 0, outcome.err
    assert effseg.open(str(tmp_path / 'again' / 'slim.py'), str(tmp_path / 'again' / 'slim.pth'), device='cpu')


def test_an_interrupted_search_goes_on_where_it_was(slimmed, scenes, checkpoint, table, tool, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        weigh, calls = search.weigh, []

        def once(*given):
            calls.append(given)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return weigh(*given)

        patch.setattr(search, 'weigh', once)
        assert tool(*arguments(checkpoint, table, tmp_path / 'out')).status == 130
    outcome = tool(*arguments(checkpoint, table, tmp_path / 'out'))
    assert outcome.status == 0 and 'going on behind step 1' in outcome.out and 'candidates' not in outcome.out
    assert 'fine-tune it: python tools/train.py' in outcome.out
    whole = json.loads((slimmed / 'report.json').read_text())
    assert json.loads((tmp_path / 'out' / 'report.json').read_text())['path'] == whole['path']
    outcome = tool(*arguments(checkpoint, table, tmp_path / 'out', 0.9))
    assert outcome.status == 2 and 'a search with another budget' in outcome.err
    options = ['--cfg-options', 'train_dataloader.dataset.data_root=/elsewhere']
    outcome = tool(*arguments(checkpoint, table, tmp_path / 'out'), *options)
    assert outcome.status == 2 and 'a search with another cfg_options' in outcome.err


@pytest.mark.parametrize('content', [b'cut', {}, {'asked': print}])
def test_a_state_that_cannot_be_read_is_said(tmp_path, content):
    state = tmp_path / slim.STATE
    state.write_bytes(content) if isinstance(content, bytes) else torch.save(content, state)
    with pytest.raises(ConfigError, match='search.pth cannot be read: give another --out'):
        slim._resume(state, {}, None)


def test_maps_of_one_pixel_and_one_image_are_said():
    norm = torch.nn.BatchNorm2d(3)
    with pytest.raises(ConfigError, match='batches of 1 image.* --images'):
        evaluate.recalibrate(norm, [(torch.zeros(1, 3, 1, 1), [])])


def test_what_cannot_be_searched_is_said(scenes, checkpoint, table, tool, tmp_path):
    out = tmp_path / 'out'
    outcome = tool(*arguments(checkpoint, table, out, 0.01))
    assert outcome.status == 2 and 'the fastest architecture of the space takes' in outcome.err
    assert tool(*arguments(checkpoint, table, out, 1.5)).status == 2
    outcome = tool(*arguments(checkpoint, table, out), '--cfg-options', 'model.backbone.resolution=3')
    assert outcome.status == 2 and 'is for another network' in outcome.err
    outcome = tool(*arguments(checkpoint, table, out), '--cfg-options', 'model.backbone.act=ReLU')
    assert outcome.status == 2 and 'the table is of another network' in outcome.err
    cut = Table.read(table)
    del cut.ms[Part('stem', 0, 'conv', 3, 8)]
    cut.write(tmp_path / 'cut.csv')
    outcome = tool(*arguments(checkpoint, tmp_path / 'cut.csv', out))
    assert outcome.status == 2 and 'lacks 1 rows: stem 0 conv 3 8 0' in outcome.err
    assert not out.exists()
