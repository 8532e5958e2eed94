"""Every entry point through which a file comes in, and every file that would run code if it could: nothing runs,
unless it is asked for."""

import contextlib
import copy
import pickle

import pytest
import torch
from checkpoint.test_read import Runs, attacks
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from networks import TINY
from PIL import Image

from effseg.errors import EffsegError

pytestmark = pytest.mark.medium
ONE_MORE = [
    '--no-data-check',
    '--cfg-options',
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=9',
    'default_hooks.checkpoint.interval=1',
]
TEXTS = ['config text', 'runtime config text']


def load_from(tool, path, folder, *options):
    return tool('train', TINY, '--work-dir', folder / 'work', *options, *ONE_MORE, f'load_from={path}')


def init_cfg(tool, path, folder, *options):
    return tool(
        'train',
        TINY,
        '--work-dir',
        folder / 'work',
        *options,
        *ONE_MORE,
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={path}',
    )


def resume(tool, path, folder, *options):
    (folder / 'work').mkdir()
    (folder / 'work' / 'iter_1.pth').write_bytes(path.read_bytes())
    return tool('train', TINY, '--work-dir', folder / 'work', '--resume', *options, *ONE_MORE)


def resume_from(tool, path, folder, *options):
    return tool('train', TINY, '--work-dir', folder / 'work', '--resume', *options, *ONE_MORE, f'load_from={path}')


def predict(tool, path, folder, *options):
    Image.new('RGB', (40, 30)).save(folder / 'a.png')
    return tool('predict', TINY, path, folder / 'a.png', '--out-dir', folder / 'out', *options)


def artifact(suffix):
    def entry(tool, path, folder):
        path = path.rename(path.with_suffix(suffix))
        return predict(tool, path, folder)

    return entry


def mmengine(tool, path, folder):
    with contextlib.suppress(EffsegError):
        CheckpointLoader.load_checkpoint(str(path))


def inferencer(tool, path, folder):
    """Given weights alone, it builds the model from the config in them: from none, since the reader takes that out."""
    from mmseg.apis import MMSegInferencer

    with pytest.raises((EffsegError, ValueError), match='given.pth|no config|find the config'):
        MMSegInferencer(None, str(path), device='cpu')


ENTRIES = {
    'init_cfg': init_cfg,
    'load_from': load_from,
    'resume': resume,
    'resume from': resume_from,
    'test': lambda tool, path, folder, *options: tool('test', TINY, path, '--work-dir', folder / 'work', *options),
    'predict': predict,
    'export': lambda tool, path, folder, *options: tool(
        'export', TINY, path, '--to', 'safetensors', '--out', folder / 'a.safetensors', *options
    ),
    'report': lambda tool, path, folder, *options: tool(
        'report', TINY, path, '--out', folder / 'report', '--pictures', 0, *options
    ),
}
OTHER_ENTRIES = {
    '.onnx': artifact('.onnx'),
    '.pte': artifact('.pte'),
    '.tflite': artifact('.tflite'),
    'mmengine': mmengine,
    'MMSegInferencer': inferencer,
}


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory) -> dict:
    """A checkpoint of one iteration, from which all entry points open."""
    from effseg.apis.train import train

    folder = tmp_path_factory.mktemp('trained')
    train(
        TINY,
        str(folder),
        data_check=False,
        cfg_options={'train_cfg.max_iters': 1, 'train_cfg.val_interval': 9, 'default_hooks.checkpoint.interval': 1},
    )
    return torch.load(folder / 'iter_1.pth', weights_only=True)


def hostile(name, content, path, mark):
    """Writes a checkpoint that runs something when it is read carelessly; config texts are evaluated by MMEngine after
    reading."""
    content = copy.deepcopy(content)
    text = f'open({str(mark)!r}, "w")'
    if name == 'config text':
        content['meta']['config'] = text
    elif name == 'runtime config text':
        content['message_hub']['runtime_info']['cfg'] = content['meta']['cfg'] = text
    else:
        content['extra'] = attacks(str(mark))[name]
    if name in ('open', 'exec'):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)


def attack(names, entry, tool, trained, tmp_path):
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / 'given.pth'
        hostile(name, trained, path, folder / 'mark')
        outcome = {**ENTRIES, **OTHER_ENTRIES}[entry](tool, path, folder)
        assert not (folder / 'mark').exists(), name
        if outcome is not None:
            # text is only text, and the names of known classes come as empty objects: neither is a reason to refuse the
            # weights
            harmless = entry in ENTRIES and (name in TEXTS or name == 'getattr of a namespace')
            assert outcome.status == (0 if harmless else 2) and 'Traceback' not in outcome.err, (name, outcome)
            assert harmless or 'given.' in outcome.err or 'iter_1.pth' in outcome.err, (name, outcome)


@pytest.mark.parametrize('entry', [*ENTRIES, *OTHER_ENTRIES])
def test_two_attacks_at_every_entry_point(tool, trained, tmp_path, entry):
    attack(['os.system', 'config text'], entry, tool, trained, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('entry', [*ENTRIES, *OTHER_ENTRIES])
def test_every_attack_at_every_entry_point(tool, trained, tmp_path, entry):
    attack([*attacks(''), *TEXTS], entry, tool, trained, tmp_path)


def test_the_texts_are_live(tmp_path):
    Config.fromstring(f'open({str(tmp_path / "mark")!r}, "w")', '.py')
    assert (tmp_path / 'mark').exists()


# a training enters the trust once, whatever it reads
MORE_OF_TRAIN = ('init_cfg', 'resume', 'resume from')


@pytest.mark.parametrize(
    'entry', [pytest.param(name, marks=pytest.mark.slow if name in MORE_OF_TRAIN else ()) for name in ENTRIES]
)
def test_trusted_code_runs_and_it_is_said(tool, trained, tmp_path, entry):
    path, mark = tmp_path / 'given.pth', tmp_path / 'mark'
    text = {'config': f'open({str(tmp_path / "evaluated")!r}, "w")'}
    torch.save({**trained, 'meta': {**trained['meta'], **text}, 'extra': Runs(open, str(mark), 'w')}, path)
    for name in ('without', 'with'):
        (tmp_path / name).mkdir()
    refused = ENTRIES[entry](tool, path, tmp_path / 'without')
    assert refused.status == 2 and '--trust-checkpoint' in refused.err and not mark.exists(), refused
    done = ENTRIES[entry](tool, path, tmp_path / 'with', '--trust-checkpoint')
    assert done.status == 0 and mark.exists(), done
    assert 'it runs now, as --trust-checkpoint allows' in done.err
    assert not (tmp_path / 'evaluated').exists()


def test_trust_says_nothing_of_a_file_that_needs_none(tool, trained, tmp_path):
    torch.save(trained, tmp_path / 'given.pth')
    done = predict(tool, tmp_path / 'given.pth', tmp_path, '--trust-checkpoint')
    assert done.status == 0 and 'runs now' not in done.out + done.err
