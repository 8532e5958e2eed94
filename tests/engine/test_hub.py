"""A trained model goes into the hub's layout and comes back the same; a folder from a stranger runs nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

import effseg
from effseg import hub
from effseg.apis.segmenter import Labeller, build_segmentor
from effseg.errors import ConfigError, WeightsError

from .conftest import TINY

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
    model, own = hub.load(str(saved), 'cpu'), build_segmentor(TINY, str(checkpoint), device='cpu')
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in model.state_dict().items())
    picture = np.random.default_rng(0).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    assert (Labeller(model)(picture) == Labeller(own)(picture)).all()
    assert model.dataset_meta['classes'] == tuple(own.dataset_meta['classes'])
    assert not effseg.fuse(model, (32, 32)).training


def test_the_card_holds_what_was_measured_and_the_hub_can_read_it(saved):
    card = ModelCard.load(saved / hub.CARD)
    assert card.data.library_name == 'effseg' and card.data.pipeline_tag == 'image-segmentation'
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert set(measured) == {'mIoU', 'aAcc', 'mAcc'}
    assert f'| mIoU | {measured["mIoU"]:.2f} % |' in card.text and 'parameters' in card.text and 'GMAC' in card.text


def test_a_config_whose_bases_come_by_name(checkpoint, tmp_path):
    config = tmp_path / 'named.py'
    shutil.copy(TINY, config)
    config.write_text(config.read_text().replace('../../configs/', 'effseg::'))
    hub.load(str(hub.save(str(config), str(checkpoint), str(tmp_path / 'model'), metrics={})))


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
        (lambda c: c['model']['decode_head'].update(num_classes=5), 'model.safetensors'),
        (lambda c: c['model']['backbone'].update(colour=1), 'cannot|describes no'),
    ],
)
def test_a_config_that_does_not_fit_is_refused(stranger, edit, said):
    with pytest.raises(WeightsError, match=said):
        hub.load(stranger(edit))


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(WeightsError, match='config.json'):
        hub.load(str(tmp_path))
    with pytest.raises(WeightsError, match='config.json'):
        hub.push(str(tmp_path), 'a/b')


def test_a_model_with_other_parts_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, 'TYPES', hub.TYPES - {'FPN'})
    with pytest.raises(ConfigError, match="'FPN'"):
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
