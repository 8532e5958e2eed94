"""A trained model goes into the hub's layout and comes back the same; a folder from a stranger runs nothing."""

import json
import pickle
import random
import re
import shutil
import socket
import sys
import threading
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from conftest import randomise
from hostile import changed
from huggingface_hub import ModelCard
from mmengine.config import Config, ConfigDict
from networks import ROOT, TINY

import effseg
from effseg import hub
from effseg.apis.opening import Segmenter, open_segmenter
from effseg.benchmark.models import shipped_models
from effseg.benchmark.zoo import MODELS as ZOO
from effseg.benchmark.zoo import build
from effseg.engine.config import load_config
from effseg.errors import ConfigError, MissingRuntimeError, WeightsError
from effseg.fusion.trained import freeze_random_bases
from effseg.hub import model, schema

pytestmark = pytest.mark.usefixtures('scenes')


@pytest.fixture(scope='module')
def saved(scenes, checkpoint, tmp_path_factory):
    return hub.save(TINY, str(checkpoint), str(tmp_path_factory.mktemp('hub') / 'model'))


@pytest.fixture
def stranger(saved, tmp_path):
    """A copy of the folder, and a function that changes its config."""
    folder = tmp_path / 'stranger'
    shutil.copytree(saved, folder)

    def change(edit):
        content = json.loads((folder / hub.CONFIG).read_text())
        edit(content)
        (folder / hub.CONFIG).write_text(json.dumps(content))
        return str(folder)

    return change


def test_it_comes_back_the_same(saved, checkpoint):
    model, own = hub.load(str(saved), 'cpu'), open_segmenter(TINY, str(checkpoint), device='cpu').trained
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in model.state_dict().items())
    image = np.random.default_rng(0).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    assert (Segmenter(model)(image) == Segmenter(own)(image)).all()
    assert model.dataset_meta['classes'] == tuple(own.dataset_meta['classes'])
    assert not effseg.fuse(model, (32, 32)).training


FOREIGN = {
    'SegFormer': """
    backbone=dict(
        _delete_=True, type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 1, 1],
        sr_ratios=[8, 4, 2, 1], mlp_ratio=2, init_cfg=dict(type='Pretrained', checkpoint='b0.pth')),
    neck=None,
    decode_head=dict(
        _delete_=True, type='SegformerHead', in_channels=[8] * 4, in_index=[0, 1, 2, 3], channels=16, num_classes=8,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss', class_weight=[1.0] * 8))""",
    'timm and a cascade': """
    type='CascadeEncoderDecoder', num_stages=2, neck=None,
    backbone=dict(_delete_=True, type='TIMMBackbone', model_name='test_efficientnet.r160_in1k', pretrained=True),
    decode_head=[dict(
        type='FCNHead', in_channels=48, in_index=3, channels=8, num_convs=1, num_classes=8, norm_cfg=dict(type='BN')),
      dict(type='OCRHead', ocr_channels=8, in_channels=48, in_index=3, channels=8, num_classes=8,
        norm_cfg=dict(type='BN'))]""",
}


def saved_foreign(name, folder):
    """The folder of a foreign model, and the model."""
    config, checkpoint = folder / 'foreign.py', folder / 'foreign.pth'
    config.write_text(f'_base_ = [{TINY!r}]\nmodel = dict({FOREIGN[name]})\n')
    with pytest.MonkeyPatch.context() as patch:  # an own config fetches, and need not here
        patch.setattr('timm.models._builder.load_pretrained', lambda *_, **__: None)
        own = randomise(open_segmenter(str(config), device='cpu').trained).float()
        torch.save({'state_dict': own.state_dict()}, checkpoint)
        return hub.save(str(config), str(checkpoint), str(folder / 'hub'), metrics={}), own


@pytest.mark.parametrize('name', FOREIGN)
def test_a_foreign_model_comes_back_the_same_and_fetches_nothing(name, tmp_path, monkeypatch, watched):
    folder, own = saved_foreign(name, tmp_path)
    text = (folder / hub.CONFIG).read_text()
    assert not any(word in text for word in ('pretrained', 'checkpoint', 'class_weight'))
    monkeypatch.setattr('timm.models._builder.load_pretrained', lambda *_, **__: pytest.fail('weights were fetched'))
    model = hub.load(str(folder), 'cpu')
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(*(each.encode_decode(x, [dict(img_shape=x.shape[2:])]) for each in (model, own)))
    assert (' and OCRHead' in (folder / hub.CARD).read_text()) == (name != 'SegFormer')
    assert not watched


def test_the_card_holds_what_was_measured_and_the_hub_can_read_it(saved):
    card = ModelCard.load(saved / hub.CARD)
    assert card.data.library_name == 'effseg' and card.data.pipeline_tag == 'image-segmentation'
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert set(measured) == {'mIoU', 'aAcc', 'mAcc'}
    assert f'| mIoU | {measured["mIoU"]:.2f} % |' in card.text and 'parameters' in card.text and 'GMAC' in card.text


def test_a_config_whose_bases_come_by_name(checkpoint, tmp_path):
    config = tmp_path / 'named.py'
    shutil.copy(TINY, config)
    config.write_text(config.read_text().replace('../configs/', 'effseg::'))
    hub.load(str(hub.save(str(config), str(checkpoint), str(tmp_path / 'model'), metrics={})))


@pytest.mark.parametrize('path', shipped_models(), ids=lambda path: path.stem)
def test_every_shipped_model_has_a_place_in_the_layout(path):
    content = model._content(load_config(str(path)), {'classes': ['a'], 'palette': [(0, 0, 0)]})
    assert 'loss_decode' not in content['model']['decode_head']


def test_the_files_hold_no_paths_of_home(saved, scenes):
    assert sorted(path.name for path in saved.iterdir()) == [hub.CARD, hub.CONFIG, hub.WEIGHTS]
    assert str(scenes) not in (saved / hub.CONFIG).read_text()


@pytest.mark.parametrize(
    'edit',
    [
        lambda c: c['model'].update(type='os.system'),
        lambda c: c['model']['backbone'].update(type='subprocess.Popen'),
        lambda c: c['test_pipeline'].append(dict(type='mmseg.LoadAnnotations')),
        lambda c: c['model'].update(init_cfg=dict(type='EncoderDecoder', checkpoint='x')),
        lambda c: c['model'].update(pretrained='http://localhost/x.pth'),
        lambda c: c['test_pipeline'][0].update(backend_args=dict(backend='local')),
    ],
)
def test_a_config_that_names_more_than_models_is_refused(stranger, edit):
    with pytest.raises(WeightsError, match='names the type|no place in the layout'):
        hub.load(stranger(edit))


@pytest.mark.parametrize(
    'edit, said',
    [
        (lambda c: c.pop('classes'), 'not complete'),
        (lambda c: c.update(effseg_hub=9), 'another version'),
        (lambda c: c['model']['decode_head'].update(num_classes=5), '8 classes, and its decode head has 5'),
        (lambda c: (c['classes'].pop(), c['palette'].pop()), '7 classes, and its decode head has 8'),
        (lambda c: c['model']['backbone'].update(color=1), 'cannot|describes no'),
    ],
)
def test_a_config_that_does_not_fit_is_refused(stranger, edit, said):
    with pytest.raises(WeightsError, match=said):
        hub.load(stranger(edit))


def test_a_device_that_is_not_there_is_said(saved):
    with pytest.raises(ConfigError, match='--device nowhere cannot be used'):
        hub.load(str(saved), 'nowhere')


@pytest.fixture
def watched(monkeypatch):
    """What was read by MMEngine's loader of pickles, or asked of another machine."""
    calls = []
    monkeypatch.setattr('mmseg.models.losses.utils.load', lambda *arguments, **options: calls.append(arguments))
    monkeypatch.setattr(np, 'load', lambda *arguments, **options: calls.append(arguments))
    monkeypatch.setattr(pickle, 'load', lambda *arguments, **options: calls.append(arguments))
    monkeypatch.setattr(socket.socket, 'connect', lambda self, address: calls.append(address))
    return calls


@pytest.mark.parametrize('loss', ['CrossEntropyLoss', 'LovaszLoss', 'FocalLoss'])
@pytest.mark.parametrize('file', ['http://127.0.0.1:9/w.pkl', '/tmp/w.pkl', 'w.npy'])
def test_a_loss_that_names_a_file_is_left_out(stranger, watched, loss, file):
    def edit(content):
        content['model']['decode_head']['loss_decode'] = dict(type=loss, class_weight=file)

    hub.load(stranger(edit))
    assert not watched


@pytest.mark.parametrize(
    'edit, said',
    [
        (lambda c: c['model']['decode_head'].update(num_classes=10**9), 'num_classes is 1000000000'),
        (lambda c: c['model']['backbone']['arch'].update(depths=[10**7, 1, 1, 1]), r'depths\[0\]'),
        (lambda c: c['model']['backbone']['arch'].update(embed_dims=[10**6] * 4), 'embed_dims'),
        (
            lambda c: c['model']['backbone']['arch'].update(depths=[1, 1, 64, 64], embed_dims=[2048] * 4),
            'twice the num',
        ),
        (lambda c: c['model']['backbone'].update(drop_path_rate=float('nan')), 'drop_path_rate is nan'),
        (lambda c: c['palette'].__setitem__(0, [0, 0, 'red']), 'palette'),
        (lambda c: c['palette'].__setitem__(0, [0, 0, 256]), 'palette'),
        (lambda c: c['classes'].__setitem__(0, 'sky\x1b[2J'), 'classes'),
        (lambda c: c['classes'].pop(), '7 classes and 8'),
        (lambda c: c['test_pipeline'].insert(1, dict(type='Resize', scale=[10**6, 10**6])), 'scale'),
        (lambda c: c['test_pipeline'][0].update(imdecode_backend='tifffile'), 'imdecode_backend'),
        (lambda c: c['model']['data_preprocessor'].update(size=[10**6, 10**6]), 'size'),
        (lambda c: c['model'].update(test_cfg=dict(mode='slide', crop_size=[512, 512], stride=[1, 1])), 'stride'),
        (lambda c: c['model']['decode_head'].update(norm_cfg=dict(type='BN', momentum='http://x')), 'momentum'),
        (lambda c: c.update(run='x'), "'run'"),
    ],
)
def test_every_value_of_a_config_is_bounded(stranger, watched, edit, said):
    with pytest.raises(WeightsError, match=said):
        hub.load(stranger(edit), 'cpu')
    assert not watched


@pytest.mark.parametrize('text', ['[' * 10**5, 'null', '[]', '{"effseg_hub": 1}', '\ud800', '{' + ' ' * 10**6 + '}'])
def test_a_config_that_is_no_config_is_one_error(saved, tmp_path, text):
    (tmp_path / hub.CONFIG).write_bytes(text.encode('utf-8', 'surrogatepass'))
    with pytest.raises(WeightsError, match='config.json'):
        hub.load(str(tmp_path))


HOSTILE = [None, [], {}, -1, 0, 10**9, 1e308, True, 'x', 'http://127.0.0.1:9/w.pkl', '/dev/zero', [10**9] * 4]
HOSTILE += [{'type': 'CrossEntropyLoss', 'class_weight': 'w.pkl'}, {'type': 'Pretrained', 'checkpoint': 'w.pkl'}]


ACTS = {'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'socket.connect', 'socket.getaddrinfo'}
ACTS |= {'pickle.find_class', 'os.remove', 'os.rename', 'shutil.rmtree'}
# what may be opened: the folder itself, Python's packages, and what a process knows by its number
KNOWN = rf'/stranger/(config\.json|model\.safetensors)$|^{re.escape(str(ROOT))}/effseg/|/lib/python|\.pyc?$|^\d+$'
WATCH = threading.local()
sys.addaudithook(lambda *event: WATCH.see(*event) if hasattr(WATCH, 'see') else None)


def attack(folder, stranger, count):
    """Loads so many changed copies of a folder, and gives what else Python itself saw being opened, started, fetched or
    removed by it."""
    content = json.loads((folder / hub.CONFIG).read_text())
    rng, seen = random.Random(0), []

    def see(event, arguments):
        if event in ACTS or (event == 'open' and not re.search(KNOWN, str(arguments[0]))):
            seen.append((event, str(arguments)))

    for number in range(count):
        other = changed(content, rng)
        path = stranger(lambda c, other=other: (c.clear(), c.update(other)))
        WATCH.see = see
        try:
            hub.load(path, 'cpu')
        except WeightsError as error:
            assert '\n' not in str(error).strip() and len(str(error)) < 2000, (number, other)
        finally:
            del WATCH.see
    return seen


def test_what_a_folder_would_open_is_seen(saved, stranger, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, 'load', lambda path, device: (tmp_path / 'else').write_text(path))
    ((event, arguments),) = attack(saved, stranger, 1)
    assert event == 'open' and str(tmp_path / 'else') in arguments


@pytest.mark.medium
def test_whatever_a_config_says_it_is_a_model_or_one_error(saved, stranger, watched):
    assert not attack(saved, stranger, 200) and not watched


@pytest.mark.slow
@pytest.mark.parametrize('name', FOREIGN)
def test_whatever_a_foreign_config_says_it_is_a_model_or_one_error(name, stranger, watched, tmp_path):
    folder, _ = saved_foreign(name, tmp_path)
    shutil.copy(folder / hub.WEIGHTS, tmp_path / 'stranger' / hub.WEIGHTS)
    assert not attack(folder, stranger, 300) and not watched


@pytest.mark.slow
@pytest.mark.parametrize('name', ZOO)
def test_the_zoo_comes_back_the_same(name, tmp_path, watched):
    path, exchanged = ZOO[name]
    cfg = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / path)
    cfg.model = ConfigDict({**cfg.model, **exchanged})
    cfg.model.pretrained = None
    size = (512, 512) if 'LRASPP' in name else (64, 64)
    cfg.model.data_preprocessor.size = size
    cfg.dump(tmp_path / 'config.py')
    own = build(name, size)
    weights = {
        key: value for key, value in own.state_dict().items() if not key.endswith('.bases')
    }  # drawn when it runs
    torch.save({'state_dict': weights}, tmp_path / 'own.pth')
    folder = hub.save(str(tmp_path / 'config.py'), str(tmp_path / 'own.pth'), str(tmp_path / 'hub'), metrics={})
    x = torch.randn(1, 3, *size)
    model = hub.load(str(folder), 'cpu')
    freeze_random_bases(model, lambda model: model(x, mode='tensor'))
    with torch.inference_mode():
        assert torch.equal(own(x, mode='tensor'), model(x, mode='tensor')) and not watched


def test_files_of_others_are_not_replaced(checkpoint, tmp_path):
    (tmp_path / hub.CARD).write_text('my project')
    with pytest.raises(ConfigError, match='README.md that tools/hub.py did not write'):
        hub.save(TINY, str(checkpoint), str(tmp_path), metrics={})
    assert (tmp_path / hub.CARD).read_text() == 'my project'


def test_the_card_has_a_licence_and_shows_names_as_text(checkpoint, tmp_path, monkeypatch):
    from effseg.apis import opening

    def named(*arguments):
        meta = dataset_meta(*arguments)
        return {**meta, 'classes': ['`<a href="http://x">sky</a>[x](http://x)`', *meta['classes'][1:]]}

    dataset_meta = opening.dataset_meta
    monkeypatch.setattr(opening, 'dataset_meta', named)
    hub.save(TINY, str(checkpoint), str(tmp_path / 'model'), metrics={'mIoU': 12.344}, license='apache-2.0')
    card = ModelCard.load(tmp_path / 'model' / hub.CARD)
    assert card.data.license == 'apache-2.0' and card.data.eval_results[0].metric_value == 12.34
    assert """`'<a href="http://x">sky</a>[x](http://x)'`,""" in card.text


@pytest.mark.parametrize('package', ['huggingface_hub', 'safetensors', 'jinja2'])
def test_a_missing_package_is_said_before_the_work(monkeypatch, tmp_path, package):
    monkeypatch.setattr(model.importlib.util, 'find_spec', lambda name: None if name == package else name)
    monkeypatch.setattr('effseg.apis.opening.open_segmenter', None)
    with pytest.raises(MissingRuntimeError, match=f'pip install {package}'):
        hub.save(TINY, 'x.pth', str(tmp_path / 'model'))


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(WeightsError, match='config.json'):
        hub.load(str(tmp_path))
    with pytest.raises(WeightsError, match='config.json'):
        hub.push(str(tmp_path), 'a/b')


def test_a_model_with_other_parts_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(schema.ARGUMENTS, 'FPN', {})
    with pytest.raises(ConfigError, match="neck: 'in_channels' cannot be given"):
        hub.save(TINY, str(checkpoint), str(tmp_path / 'model'), metrics={})
    assert not (tmp_path / 'model').exists()


def test_push_uploads_the_three_files_alone(saved, monkeypatch):
    import huggingface_hub

    calls = []

    class Api:
        def create_repo(self, repository, private, exist_ok):
            calls.append((repository, private, exist_ok))

        def upload_folder(self, **options):
            calls.append(options)
            return type('Commit', (), {'commit_url': 'commit'})()

    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    assert hub.push(str(saved), 'me/model', private=True) == 'commit'
    assert calls[0] == ('me/model', True, True)
    assert calls[1]['folder_path'] == str(saved) and sorted(calls[1]['allow_patterns']) == [
        hub.CARD,
        hub.CONFIG,
        hub.WEIGHTS,
    ]


def test_the_command_answers_in_one_line(tool, tmp_path):  # that it saves is tested with own_data.md
    outcome = tool('hub', 'push', tmp_path, 'a/b')
    assert outcome.status == 2 and outcome.err.startswith('error: ') and len(outcome.err.splitlines()) == 1
