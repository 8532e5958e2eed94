import argparse
import hashlib
import os
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from effseg.checkpoint.mmengine_loader import read
from effseg.checkpoint.read import read_checkpoint, read_file
from effseg.errors import MissingRuntimeError, WeightsError

TENSORS = {'a.weight': torch.arange(6.0).reshape(2, 3), 'a.bias': torch.ones(4000)}
needs_allow_list = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='this torch has no allow-list'
)


def same(state_dict):
    return set(state_dict) == set(TENSORS) and all(torch.equal(state_dict[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda t: t,
        lambda t: {'model': t},
        lambda t: {'state_dict': t, 'meta': {'epoch': 3}},
        lambda t: {'state_dict_ema': t, 'state_dict': {}},
        lambda t: {'model_ema': t},
    ],
)
def test_layouts_of_torch_files(tmp_path, wrap):
    torch.save(wrap(TENSORS), tmp_path / 'x.pth')
    assert same(read_checkpoint(tmp_path / 'x.pth').state_dict)


def test_file_of_the_older_torch_format(tmp_path):
    torch.save(TENSORS, tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / 'x.pth').state_dict)


def test_safetensors_whatever_the_suffix(tmp_path):
    for name in ('x.safetensors', 'x.bin'):
        save_file(TENSORS, tmp_path / name)
        assert same(read_checkpoint(str(tmp_path / name)).state_dict)


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': {'classes': ('road', 'sky'), 'palette': [[0, 0, 0], [1, 1, 1]]}},
        {'CLASSES': ('road', 'sky'), 'PALETTE': [[0, 0, 0], [1, 1, 1]]},
    ],
)
def test_classes_and_palette_of_both_generations(tmp_path, meta):
    torch.save({'state_dict': TENSORS, 'meta': meta}, tmp_path / 'x.pth')
    assert read_checkpoint(tmp_path / 'x.pth').dataset_meta == {
        'classes': ('road', 'sky'),
        'palette': [[0, 0, 0], [1, 1, 1]],
    }


@needs_allow_list
def test_stock_mmengine_checkpoint(tmp_path):
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance('test_stock_mmengine_checkpoint')
    hub.update_scalar('train/loss', torch.tensor(1.0))
    hub.update_scalar('train/lr', np.float64(2.0))
    torch.save(
        {'state_dict': TENSORS, 'message_hub': hub.state_dict(), 'meta': {'seed': np.int64(3)}}, tmp_path / 'x.pth'
    )
    assert same(read_checkpoint(tmp_path / 'x.pth').state_dict)


@needs_allow_list
def test_training_arguments_beside_the_weights(tmp_path):
    torch.save({'model': TENSORS, 'args': argparse.Namespace(lr=0.1)}, tmp_path / 'x.pth')
    assert same(read_checkpoint(tmp_path / 'x.pth').state_dict)


class Runs:
    """A pickle of this runs a command when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(mark: str) -> dict:
    command = f'touch {mark}'
    return {
        'os.system': Runs(os.system, command),
        'subprocess': Runs(subprocess.call, ['touch', mark]),
        'eval': Runs(eval, f'open({mark!r}, "w")'),
        'exec': Runs(exec, f'open({mark!r}, "w")'),
        'open': Runs(open, mark, 'w'),
        'getattr': Runs(getattr, Runs(__import__, 'os'), 'system'),
        'getattr of a namespace': Runs(getattr, argparse.Namespace(), '__class__'),
        'pickle in a pickle': Runs(pickle.loads, pickle.dumps(Runs(os.system, command))),
        'torch.load in a pickle': Runs(torch.load, mark),
        'torch.hub': Runs(torch.hub.load, mark, 'x'),
        'np.load': Runs(np.load, mark, None, True),
        'Path.touch': Runs(Path.touch, Path(mark)),
    }


@pytest.mark.parametrize('name', attacks(''))
@pytest.mark.parametrize('where', ['state_dict', 'meta'])
@pytest.mark.parametrize('form', ['zip', 'older', 'pickle'])
def test_no_code_of_a_file_runs(tmp_path, name, where, form):
    mark = tmp_path / 'mark'
    content = {'state_dict': dict(TENSORS), 'meta': {}}
    content[where]['x'] = attacks(str(mark))[name]
    path = tmp_path / 'x.pth'
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    try:
        read_checkpoint(path)
    except WeightsError as error:
        assert '\n' not in str(error)
    else:
        # read as an empty object beside the weights
        assert name.startswith('getattr of') and where == 'meta'
    assert not mark.exists()


def test_the_attacks_are_live(tmp_path):
    """Or the test above would prove nothing."""
    for name in ('os.system', 'subprocess', 'eval', 'exec', 'open', 'pickle in a pickle', 'Path.touch'):
        mark = tmp_path / name.replace(' ', '_')
        pickle.loads(pickle.dumps(attacks(str(mark))[name]))
        assert mark.exists(), name


def test_config_text_is_not_evaluated(tmp_path):
    mark = tmp_path / 'mark'
    text = f'open({str(mark)!r}, "w")'
    torch.save({'state_dict': TENSORS, 'meta': {'config': text, 'cfg': text}}, tmp_path / 'x.pth')
    assert read_checkpoint(tmp_path / 'x.pth').meta['config'] == text
    assert not mark.exists()


@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='TorchScript'):
        read_checkpoint(tmp_path / 'x.pth')


def test_tar_is_refused(tmp_path):
    (tmp_path / 'storages').write_bytes(b'x')
    with tarfile.open(tmp_path / 'x.pth', 'w') as file:
        file.add(tmp_path / 'storages', 'storages')
    with pytest.raises(WeightsError, match='no checkpoint'):
        read_checkpoint(tmp_path / 'x.pth')


def written(path: Path, form: str) -> bytes:
    if form == 'safetensors':
        save_file(TENSORS, path)
    else:
        torch.save({'state_dict': TENSORS}, path, _use_new_zipfile_serialization=form == 'zip')
    return path.read_bytes()


@pytest.mark.parametrize('form', ['zip', 'older', 'safetensors'])
def test_a_file_cut_at_any_length_is_refused(tmp_path, form):
    path = tmp_path / 'x.pth'
    content = written(path, form)
    for length in [*range(0, 64), *random.Random(0).sample(range(64, len(content)), 60), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError) as caught:
            read_checkpoint(path)
        assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
    path = tmp_path / 'x.pth'
    content = written(path, 'zip')
    start = content.index(TENSORS['a.bias'].numpy().tobytes())
    for position in random.Random(0).sample(range(start, start + 16000), 40):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match='damaged'):
            read_checkpoint(path)


def test_the_checksum_in_a_name_is_checked(tmp_path):
    content = written(tmp_path / 'x.safetensors', 'safetensors')
    digest = hashlib.sha256(content).hexdigest()
    right, wrong = tmp_path / f'x-{digest[:8]}.safetensors', tmp_path / 'x-deadbeef.safetensors'
    for path in (right, wrong, tmp_path / 'x-20261122.safetensors'):
        path.write_bytes(content)
    assert same(read_checkpoint(right).state_dict)
    assert same(read_checkpoint(tmp_path / 'x-20261122.safetensors').state_dict)
    with pytest.raises(WeightsError, match='deadbeef'):
        read_checkpoint(wrong)


@pytest.mark.filterwarnings('ignore:Validating sparse')
@pytest.mark.parametrize(
    'content',
    [
        {},
        {'state_dict': {}},
        {'a': 1},
        {'a': torch.ones(2).to_sparse()},
        [torch.ones(2)],
        {1: torch.ones(2)},
        {'a': torch.ones(2, dtype=torch.complex64)},
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('content', [b'', b'PK', b'hello', b'\x89PNG\r\n', b'{}', bytes(8) + b'{', b'\xff' * 8 + b'{}'])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / 'x.pth')


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / 'none.pth', tmp_path):
        with pytest.raises(WeightsError, match=str(path)):
            read_file(path)


IN_FRESH_PROCESS = """
import sys
from effseg.errors import MissingRuntimeError, WeightsError
from effseg.checkpoint.mmengine_loader import read
from effseg.checkpoint.read import read_checkpoint
for source in sys.argv[1:]:
    try:
        print(*sorted(read_checkpoint(source).state_dict))
    except WeightsError as error:
        print(error)
"""


@pytest.mark.medium
def test_hub_names_go_through_the_hub_s_cache_and_without_a_network_the_error_says_which_file_to_put_where(tmp_path):
    cache = tmp_path / 'hub' / 'models--timm--some_model.tag'
    (cache / 'refs').mkdir(parents=True)
    (cache / 'refs' / 'main').write_text('0' * 40)
    (cache / 'snapshots' / ('0' * 40)).mkdir(parents=True)
    save_file(TENSORS, cache / 'snapshots' / ('0' * 40) / 'model.safetensors')
    environment = dict(os.environ, HF_HOME=str(tmp_path), HF_HUB_OFFLINE='1')
    found, absent = subprocess.run(
        [sys.executable, '-c', IN_FRESH_PROCESS, 'timm/some_model.tag', 'timm/efficientformer_l1.snap_dist_in1k'],
        env=environment,
        check=True,
        text=True,
        capture_output=True,
        timeout=120,
    ).stdout.splitlines()
    assert found.split() == sorted(TENSORS)
    assert 'model.safetensors' in absent and 'model.backbone.init_cfg.checkpoint=' in absent


def odd_tensors() -> dict:
    """Tensors that hold no numbers of their own, too few, or of kinds that no network here has."""
    return {
        'meta': torch.empty(3, device='meta'),
        'float8': torch.zeros(3).to(torch.float8_e4m3fn),
        'complex': torch.zeros(3, dtype=torch.complex64),
        'sparse': torch.zeros(3).to_sparse(),
        'nested': torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        'repeated': torch.zeros(1).expand(10**9),
        'overlapping': torch.zeros(20).as_strided((9, 9), (1, 1)),
    }


def test_what_contains_itself_is_one_error(tmp_path):
    endless = []
    endless.append(endless)
    torch.save({'state_dict': TENSORS, 'meta': {'x': endless}}, tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='RecursionError'):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', odd_tensors())
def test_odd_tensors_are_one_error(tmp_path, name):
    torch.save({'state_dict': {**TENSORS, 'odd': odd_tensors()[name]}}, tmp_path / 'x.pth')
    with pytest.raises(WeightsError) as error:
        read_checkpoint(tmp_path / 'x.pth')
    assert '\n' not in str(error.value)


def test_a_file_that_unpacks_to_much_more_than_it_is_is_not_unpacked(tmp_path, monkeypatch):
    torch.save({'a': torch.zeros(10**6)}, tmp_path / 'x.pth')
    with zipfile.ZipFile(tmp_path / 'x.pth') as whole, zipfile.ZipFile(tmp_path / 'bomb.pth', 'w') as bomb:
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, 'open', None)
    with pytest.raises(WeightsError, match='would unpack from .* bytes to 40'):
        read_checkpoint(tmp_path / 'bomb.pth')


def test_files_of_one_name_from_two_servers_are_two_files(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    urls = [f'http://{host}/{query}' for host in 'ab' for query in ('model.pth', 'model.pth?v=2', 'x/model.pth')]

    def download(url, path, progress):
        torch.save({'a': torch.full((3,), float(urls.index(url)))}, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for _ in range(2):
        assert [read_checkpoint(url).state_dict['a'][0] for url in urls] == list(range(6))
        monkeypatch.setattr(torch.hub, 'download_url_to_file', None)


@pytest.mark.parametrize('hub', [7, [], 'x', {}, {'log_scalars': 3, 'runtime_info': {}, 'resumed_keys': {}}])
def test_an_odd_message_hub_does_not_stop_mmengine(tmp_path, hub):
    from mmengine.logging import MessageHub

    torch.save({'state_dict': TENSORS, 'message_hub': hub}, tmp_path / 'x.pth')
    content = read(str(tmp_path / 'x.pth'))
    MessageHub.get_instance('test_an_odd_message_hub').load_state_dict(content['message_hub'])
    assert same(content['state_dict'])


@pytest.mark.parametrize('package, name', [('safetensors', 'x.safetensors'), ('timm.models', 'timm/x')])
def test_a_missing_package_is_one_error(tmp_path, monkeypatch, package, name):
    save_file(TENSORS, tmp_path / 'x.safetensors')
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingRuntimeError, match='pip install'):
        read_checkpoint(name if package == 'timm.models' else tmp_path / name)


def test_a_url_that_was_downloaded_before_is_read_from_where_it_was_put(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    url = 'http://127.0.0.1:9/weights.pth'
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(url)
    place = Path(str(caught.value).rpartition('put it at ')[2])
    assert place.parent.parent == tmp_path / 'checkpoints' and place.name == 'weights.pth' and not place.exists()
    torch.save(TENSORS, place)
    assert same(read_checkpoint(url).state_dict)
