"""The parts of a network add up to it, and the table says what it is of."""

import json
import random

import pytest

pytest.importorskip('mmseg')
import torch
from deploy.conftest import need
from networks import TINY
from torch.utils.flop_counter import FlopCounterMode

from effseg.deploy.backends import SUFFIXES
from effseg.errors import ConfigError
from effseg.slimming import latency
from effseg.slimming.chains import LENGTHS, chain_of, export, fused_of, milliseconds
from effseg.slimming.slicing import apply
from effseg.slimming.space import Space
from effseg.slimming.table import Table, fingerprint

from .conftest import trained_looking
from .test_slicing import weights

SIZE = (64, 96)


def work(network) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.float().logits(torch.zeros(1, 3, *SIZE))
    return counter.get_total_flops()


def wide(random_stats, backbone, decoder='all-MLP'):
    """A network that has options to be narrower."""
    network = trained_looking(random_stats, backbone, decoder)
    model = dict(network.model)
    arch = dict(network.arch.as_config(), embed_dims=(16, 32, 48, 64))
    model['backbone'] = dict(model['backbone'], arch=arch)
    model['decode_head'] = dict(model['decode_head'], channels=64, in_channels=[16, 32, 48, 64])
    from effseg.models.arch import resolve_arch

    return type(network)(model, resolve_arch(arch, {}, (2, 3)), {})


@pytest.mark.medium
@pytest.mark.parametrize('backbone', ['EfficientFormer', 'EfficientFormerV2'])
def test_the_parts_of_a_network_do_its_work(random_stats, backbone):
    """With multiplications in the place of milliseconds the prediction is exact; and every architecture of the space
    is made of parts that the table has."""
    network = wide(random_stats, backbone)
    space, generator = Space(network), random.Random(3)
    table = Table('onnx', 'a device', 1, SIZE, 'of the test', work(fused_of(network, space.original, SIZE)))
    shapes = [space.random(generator) for _ in range(3)] + [space.smallest()]
    assert all(set(space.parts(shape)) <= set(space.all_parts()) for shape in shapes)
    for part in {part for shape in (space.original, *shapes) for part in space.parts(shape)}:
        short, long = (work(chain_of(part, network, SIZE, length)) for length in LENGTHS)
        table.ms[part] = (long - short) / 4
    for shape in shapes:
        # the norms on the maps are not proportional to the head's channels
        assert table.predict(space, shape) == pytest.approx(work(fused_of(network, shape, SIZE)), rel=2e-3)
        assert table.predict(space, shape) < table.whole


@pytest.mark.slow
@pytest.mark.parametrize('runtime', latency.RUNTIMES)
@pytest.mark.parametrize('backbone', ['EfficientFormer', 'EfficientFormerV2'])
def test_every_kind_of_chain_runs(random_stats, backbone, runtime, tmp_path):
    """And the longer one takes more time."""
    need(runtime)
    network = wide(random_stats, backbone)
    kinds = {(part.part, part.kind): part for part in Space(network).all_parts()}  # the largest of each
    assert len(kinds) > 4
    for part in kinds.values():
        paths = [tmp_path / f'{length}{SUFFIXES[runtime]}' for length in LENGTHS]
        for length, path in zip(LENGTHS, paths):
            export(chain_of(part, network, SIZE, length), runtime, SIZE, path)
        short, long = milliseconds(paths, runtime, SIZE, 1, 20)
        assert 0 < short < long, part


def test_actions_change_the_shape_as_they_change_the_network(network):
    space, generator = Space(network), random.Random(1)
    for _ in range(6):
        shape = network.shape
        actions = [action for action in space.actions(shape) if action.kind != 'attention']
        if not actions:
            break
        action = generator.choice(actions)
        network = apply(network, action, weights(network))
        assert network.shape == shape.after(action)


class Exported(list):
    def __init__(self):
        super().__init__()
        self.in_turn = []  # how many files each measurement had


@pytest.fixture
def counted(monkeypatch):
    """Measuring without files: each takes as long as it has pieces; the list of what was exported."""
    exported = Exported()

    def export(network, runtime, size, path):
        exported.append(network)
        path.write_text(str(len(getattr(network, 'pieces', ())) or 100))

    def milliseconds(paths, *_):
        exported.in_turn.append(len(paths))
        return [10.0 + 0.5 * int(path.read_text()) for path in paths]

    monkeypatch.setattr(latency, 'export', export)
    monkeypatch.setattr(latency, 'milliseconds', milliseconds)
    return exported


def test_a_measurement_goes_on_where_it_was(scenes, tool, counted, tmp_path, monkeypatch):
    path = tmp_path / 'table.csv'
    arguments = ('latency', TINY, '--size', 64, 64, '-o', path)
    with monkeypatch.context() as patch:
        patch.setattr(latency, 'chain_of', lambda *_: 1 / 0 if len(counted) > 6 else torch.nn.Sequential())
        with pytest.raises(ZeroDivisionError):
            tool(*arguments)
    begun = Table.read(path)
    assert begun.whole and len(begun.ms) == 3
    counted.clear()
    assert tool(*arguments).status == 0
    table, network = Table.read(path), latency.original(TINY)
    space = Space(network)
    assert list(table.ms) == space.all_parts() and table.network == fingerprint(network)
    assert len(counted) == 2 * (len(space.all_parts()) - 3)
    heads = [part for part in space.all_parts() if part.part == 'head']
    assert counted.in_turn[-1] == 2 * len(heads) > 2 and set(counted.in_turn[:-1]) == {2, 1}
    assert set(list(table.ms.values())[3:]) == {0.5}
    assert table.predict(space, space.original) == table.whole
    header, first = path.read_text().splitlines()[:2]
    assert header == 'runtime,device,threads,size,part,stage,kind,dim_in,dim,hidden,ms'
    assert first.startswith('onnx,') and ',64x64,whole,,EfficientFormer-FPNHead-' in first
    for change, said in (
        (('--size', 64, 96), 'another size'),
        (('--runtime', 'litert'), 'another runtime'),
        (('--threads', 3), 'another number of threads'),
        (('--cfg-options', 'model.decode_head.channels=24'), 'another network'),
        (('--verify', -1), '--verify -1 must be 1 or more'),
    ):
        outcome = tool(*arguments, *change)
        assert outcome.status == 2 and said in outcome.err
    monkeypatch.setattr(latency, 'device', lambda: 'a machine beside it')
    outcome = tool(*arguments)
    assert outcome.status == 2 and 'another device' in outcome.err


def test_files_for_another_device_and_its_times(scenes, tool, counted, tmp_path):
    folder, measured, path = tmp_path / 'chains', tmp_path / 'phone.csv', tmp_path / 'table.csv'
    assert tool('latency', TINY, '--size', 64, 64, '--emit', folder).status == 0
    manifest = json.loads((folder / 'manifest.json').read_text())
    names = sorted(file.name for file in folder.glob('*.onnx'))
    assert len(names) == 1 + 2 * len(manifest['parts']) == len(counted)
    assert tool('latency', TINY, '--size', 64, 64, '--emit', folder).status == 0 and len(counted) == len(names)
    lines = [f'{name},{7 if "whole" in name else 2 * int(name[4])}' for name in names]
    measured.write_text('\n'.join(['file,ms', *lines[1:]]))
    back = ('latency', TINY, '--emit', folder, '--from', measured, '-o', path, '--device', 'a phone')
    outcome = tool(*back)
    assert outcome.status == 2 and f'lacks 1 of {len(names)} files: 000_2' in outcome.err
    measured.write_text('\n'.join(['file,ms', *lines]))
    assert tool(*back).status == 0
    table = Table.read(path)
    assert (table.device, table.whole, set(table.ms.values())) == ('a phone', 7.0, {2.0})
    outcome = tool('latency', TINY, '--size', 64, 96, '--emit', folder)
    assert outcome.status == 2 and 'another network, runtime or size' in outcome.err


@pytest.fixture
def emitted(scenes, tmp_path):
    """What reads a manifest and times back, and a manifest and a file of times that are right."""
    network = latency.original(TINY)
    parts = [list(vars(part).values()) for part in Space(network).all_parts()]
    manifest = dict(network=fingerprint(network), runtime='onnx', size=[64, 64], parts=parts)
    names = ['whole', *(f'{number:03}_{length}' for number in range(len(parts)) for length in LENGTHS)]

    times = dict.fromkeys(names, 1.5)

    def read(manifest=manifest, times=times, out='table.csv'):
        (tmp_path / 'manifest.json').write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
        rows = ''.join(f'{name}.onnx,{ms}\n' for name, ms in times.items())
        (tmp_path / 'times.csv').write_text(f'file,ms\n{rows}')
        return latency.read_back(TINY, str(tmp_path), str(tmp_path / 'times.csv'), str(tmp_path / out), 'a phone')

    return read, manifest, times


def test_times_of_another_device_replace_a_table_alone(emitted, tmp_path):
    read, _, _ = emitted
    (tmp_path / 'thesis.tex').write_text('all of it')
    with pytest.raises(ConfigError, match='is no latency table'):
        read(out='thesis.tex')
    assert (tmp_path / 'thesis.tex').read_text() == 'all of it'
    assert read() == read() == Table.read(tmp_path / 'table.csv')


@pytest.mark.parametrize('ms', ['nan', 'inf', '-5', '0', 'a' * 200_000])
def test_times_that_are_none_are_refused(emitted, tmp_path, ms):
    read, _, times = emitted
    with pytest.raises(ConfigError, match='a time above 0 was expected|give no table'):
        read(times={**times, 'whole': ms})
    assert not (tmp_path / 'table.csv').exists()


@pytest.mark.parametrize(
    'change',
    [dict(size=[]), dict(size='ab'), dict(runtime=['x']), dict(parts=[[[], {}, 1, 2, 3, 4]] * 3), '[' * 10**5, '[]'],
)
def test_a_manifest_of_somebody_else_is_one_line(emitted, tmp_path, change):
    read, manifest, _ = emitted
    with pytest.raises(ConfigError, match='give no table'):
        read(change if isinstance(change, str) else {**manifest, **change})
    with pytest.raises(ConfigError, match='was not written by effseg'):
        latency.emit(TINY, 'executorch', (64, 64), str(tmp_path))


def test_what_is_measured_stands_beside_the_prediction(random_stats, monkeypatch):
    """As shares of the original's time, so that a machine twice as slow as at the table's time changes nothing; not at
    all for another device."""
    network = trained_looking(random_stats, 'EfficientFormerV2', 'all-MLP')
    space = Space(network)
    shape = space.original.after(space.actions(space.original)[0])
    table = Table('onnx', latency.device(), 1, SIZE, fingerprint(network), 10.0)
    table.ms = dict.fromkeys(space.all_parts(), 0.0)
    table.ms[next(part for part, times in space.parts(space.original).items() if not space.parts(shape)[part])] = 2.0
    monkeypatch.setattr(latency, 'fused_of', lambda *_: None)
    monkeypatch.setattr(latency, 'export', lambda *_: None)
    monkeypatch.setattr(latency, 'milliseconds', lambda paths, *_: [20.0, 18.0])
    found = latency.facts(network, shape, table)
    assert (found['predicted_ms'], found['measured_ms'], found['gap']) == (8.0, 18.0, pytest.approx(0.125))
    assert '90.0% (+12.5% to the prediction)' in latency.in_words(found)
    monkeypatch.setattr(latency, 'original', lambda *_: network)
    monkeypatch.setattr(space.__class__, 'random', lambda *_: shape)
    written = []
    monkeypatch.setattr(latency, 'export', lambda network, runtime, size, path: written.append(path.touch()))
    assert latency.verify('any', table, 2) == pytest.approx([-1 / 9] * 2)
    assert len(written) == 2  # the original, and one that comes twice
    table.device = 'a phone'
    assert latency.facts(network, shape, table)['measured_ms'] is None
    with pytest.raises(ConfigError, match='a phone'):
        latency.verify('any', table, 2)


@pytest.mark.parametrize(
    'text, said',
    [
        ('', 'its columns'),
        ('a,b\n1,2\n', 'its columns'),
        (','.join(latency.Table.__dataclass_fields__), 'its columns'),
        ('HEAD\nonnx,cpu,1,64x64,whole,,net,,,,nan\n', 'nan ms'),
        ('HEAD\nonnx,cpu,1,64x64,block,x,net,,,,1\n', 'no latency table'),
        ('HEAD\nonnx,cpu,1,64x64,whole,,n,,,,1\nonnx,cpu,2,64x64,whole,,n,,,,1\n', 'of several'),
    ],
)
def test_a_file_that_is_no_table_is_said(tmp_path, text, said):
    path = tmp_path / 'table.csv'
    path.write_text(text.replace('HEAD', 'runtime,device,threads,size,part,stage,kind,dim_in,dim,hidden,ms'))
    with pytest.raises(ConfigError, match=said):
        Table.read(path)


def test_missing_rows_are_named(network):
    space = Space(network)
    shape = space.original.after(space.actions(space.original)[0])
    table = Table('onnx', 'cpu', 1, SIZE, 'a network', 3.0)
    with pytest.raises(ConfigError, match=r'lacks \d+ rows: block 0 '):
        table.predict(space, shape)
    assert table.predict(space, space.original) == 3.0


@pytest.mark.parametrize(
    'arguments, said',
    [
        (('--size', 64, 65), 'multiples of 32'),
        (('--threads', 0), '0 threads'),
        (('--device', 'phone'), 'does nothing with --device'),
        (('--emit', 'files', '--verify', 3), '--emit does nothing with --out, --verify'),
    ],
)
def test_what_cannot_be_measured_is_said(scenes, tool, tmp_path, arguments, said):
    outcome = tool('latency', TINY, '-o', tmp_path / 'table.csv', *arguments)
    assert outcome.status == 2 and said in outcome.err
