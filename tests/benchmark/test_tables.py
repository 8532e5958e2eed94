"""The tables of the benchmark: every model is in them, and the figures are of the networks that are timed."""

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip('mmseg')
from conftest import required
from networks import TINY, segmenter

from effseg.apis.opening import open_segmenter
from effseg.benchmark.contestants import Contestant, of_runs, rivals
from effseg.benchmark.measure import spec_of
from effseg.benchmark.models import compare_models, shipped_models
from effseg.benchmark.rivals import compare_rivals
from effseg.errors import ConfigError
from effseg.fusion.segmentor import fuse


def test_all_models_of_a_decoder_stand_in_order():
    names = [path.stem.removesuffix('_ade20k') for path in shipped_models()]
    backbones = [
        *(f'effformer_{arch}' for arch in ('l1', 'l3', 'l7')),
        *(f'effformerv2_{arch}' for arch in ('s0', 's1', 's2', 'l')),
    ]
    for decoder in ('fpn', 'mlp'):
        assert [name for name in names if name.startswith(f'{decoder}_')] == [f'{decoder}_{name}' for name in backbones]


@pytest.mark.medium
def test_a_line_says_what_the_model_weighs_and_takes(tmp_path, capsys):
    config = tmp_path / 'small_ade20k.py'
    config.write_text(f'_base_ = [{TINY!r}]\n')
    compare_models([config], (64, 64), runs=2, threads=(1,))
    _, header, line = capsys.readouterr().out.splitlines()
    assert header.split()[0] == 'model' and 'GMAC' in header
    name, parameters, macs, fused_macs, _, _, ratio, threads = line.split()
    assert name == 'small' and threads == '1'
    model = open_segmenter(TINY, device='cpu').trained
    assert float(parameters) == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e6, abs=0.05)
    assert float(fused_macs) <= float(macs) and float(ratio) > 0


def test_the_rivals_are_configs_that_are_there():
    assert all(Path(one.config).is_file() for one in rivals())
    assert {'segformer', 'segnext'} == {Path(one.config).parent.name for one in rivals() if not one.ours}


@pytest.mark.medium
@pytest.mark.parametrize(
    'runtime, module',
    [('onnx', 'onnxruntime'), pytest.param('executorch', 'executorch', marks=pytest.mark.slow)],
)
def test_rivals_are_exported_alike_and_drawn(runtime, module, tmp_path, capsys, monkeypatch):
    required(module)
    fused = []
    monkeypatch.setattr('effseg.benchmark.rivals.fuse', lambda *given: fused.append(fuse(*given)) or fused[-1])
    rival = Contestant('tiny', TINY, {}, (12.5,))
    both = [rival, dataclasses.replace(rival, name='trained', fused=False)]
    compare_rivals(runtime, (64, 64), runs=2, plot=str(tmp_path / 'plot.png'), contestants=both)
    _, *tables = capsys.readouterr().out.splitlines()
    for header, line, trained, threads in zip(tables[::3], tables[1::3], tables[2::3], (1, 2), strict=True):
        assert header.split()[0] == 'model' and header.endswith(f'{threads} thread(s)')
        assert line.split()[1] == '12.5' and line.split()[-1] == '1.00'
        assert trained.split()[0] == 'trained'
    assert len(fused) == 1
    assert (tmp_path / 'plot.png').stat().st_size > 1000


RUNS = """name,config,options,iterations,lr,seed,mIoU,minutes
light,tiny.py,model.decode_head.channels=64 model.decode_head.in_index=[0],250,1e-3,0,30,4
light,tiny.py,model.decode_head.channels=64 model.decode_head.in_index=[0],250,2e-3,0,28,4
light,tiny.py,model.decode_head.channels=64 model.decode_head.in_index=[0],250,2e-3,1,26,4
light,tiny.py,,500,1e-3,0,35,8
"""


def test_trainings_are_contestants_at_the_learning_rate_with_most_seeds(tmp_path):
    path = tmp_path / 'runs.csv'
    path.write_text(RUNS)
    short, long = of_runs(str(path))
    assert (short.name, short.scores, short.score) == ('light, 250 iterations', (28.0, 26.0), 27.0)
    assert short.options == {'model.decode_head.channels': 64, 'model.decode_head.in_index': [0]}
    assert (long.name, long.scores, long.options) == ('light, 500 iterations', (35.0,), {})
    path.write_text(''.join(RUNS.splitlines(keepends=True)[:-1]))
    assert [one.name for one in of_runs(str(path))] == ['light']


@pytest.mark.parametrize('text', ['', 'name,config\na,b\n', RUNS.replace(',30,', ',good,'), '\0', RUNS + 'light'])
def test_what_is_no_list_of_trainings_is_one_line(text, tmp_path):
    (tmp_path / 'runs.csv').write_text(text)
    with pytest.raises(ConfigError, match='cannot be read as trainings'):
        of_runs(str(tmp_path / 'runs.csv'))


def test_a_spec_says_how_the_head_decides():
    assert spec_of(segmenter(head=dict(align_corners=True)), 'onnx', (64, 64)).align_corners
    head = dict(num_classes=2, out_channels=1, threshold=0.4)
    assert spec_of(segmenter(head=head), 'onnx', (64, 64)).threshold == 0.4


@pytest.mark.parametrize('wrong', [dict(runs=0), dict(threads=()), dict(threads=(0,))])
def test_refuses_what_it_cannot_time(wrong):
    with pytest.raises(ConfigError, match='1 or more'):
        compare_models([], (64, 64), **wrong)
