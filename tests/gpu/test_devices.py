"""What goes wrong where there is a GPU, found without one: the machine says that it has one, and what runs on the CPU
may not touch it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
from networks import TINY
from torch import nn

from effseg import hub
from effseg.apis.fit import _decide, _leaf
from effseg.apis.opening import open_segmenter, to_device
from effseg.benchmark.throughput import compare_on_device
from effseg.engine.optim import check_bfloat16
from effseg.errors import ConfigError
from effseg.fusion.trained import freeze_random_bases
from effseg.segmentors.network import speed
from effseg.timing import peak_memory, time_in_turn


@pytest.fixture
def untouched(monkeypatch):
    """A machine with a GPU that is full, or another's."""

    def touched(*given, **options):
        pytest.fail('what runs on the CPU touched the GPU')

    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    for name in ('synchronize', 'reset_peak_memory_stats', 'memory_allocated', 'max_memory_allocated'):
        monkeypatch.setattr(f'torch.cuda.{name}', touched)
    return touched


def test_what_runs_on_the_cpu_leaves_a_gpu_alone(untouched, checkpoint, scenes):
    time_in_turn({'nothing': lambda: None}, runs=1)
    with peak_memory() as peak:
        torch.ones(50_000_000 // 4)
    assert peak.bytes is None or peak.bytes > 45e6
    own = open_segmenter(TINY, str(checkpoint), device='cpu')
    own(np.zeros((32, 32, 3), np.uint8))
    assert own.model.images == 1 and 'threads' in speed(own.model)
    assert len(compare_on_device(TINY, device='cpu', precisions=['fp32'], batches=[1], size=(32, 32), runs=1)) == 2


def test_the_gpu_that_computes_is_the_one_that_is_measured(monkeypatch):
    asked = []
    for name in ('synchronize', 'reset_peak_memory_stats', 'memory_allocated', 'max_memory_allocated'):
        monkeypatch.setattr(f'torch.cuda.{name}', lambda device=None: asked.append(str(device)) or 0)
    time_in_turn({'nothing': lambda: None}, runs=1, warmup=0, device='cuda:1')
    with peak_memory('cuda:1'):
        pass
    assert asked == ['cuda:1'] * 4
    monkeypatch.setattr('torch.cuda.get_device_name', lambda device: f'a card, {device}')
    preprocessor = SimpleNamespace(device=torch.device('cuda:1'))
    model = SimpleNamespace(images=4, seconds=2.0, peak=10**6, data_preprocessor=preprocessor)
    assert '2.00 images/s in the model and its labels (a card, cuda:1), peak memory of an image 1 MB' in speed(model)


def test_random_bases_are_drawn_without_seeding_a_gpu(untouched, monkeypatch):
    monkeypatch.setattr('torch.cuda.manual_seed_all', untouched)
    module = nn.Identity()
    module.__dict__.update(rand_init=True, S=1, R=2, _build_bases=lambda b, s, d, r, device: torch.rand(b * s, d, r))
    assert freeze_random_bases(module, lambda module: module(torch.zeros(1, 3, 2, 2))) == 1
    assert module.bases.shape == (1, 3, 2)


def test_bfloat16_is_asked_of_the_gpu_that_computes(monkeypatch):
    monkeypatch.setattr('torch.cuda.get_device_capability', lambda device: (7, 5) if device == 'cuda:1' else (9, 0))
    check_bfloat16('cuda')
    with pytest.raises(ConfigError, match='slower than fp32 on this GPU'):
        check_bfloat16('cuda:1')


def test_a_gpu_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr(nn.Linear, 'to', lambda self, device: torch.zeros(1).to('nowhere'), raising=False)
    with pytest.raises(ConfigError, match='--device cuda cannot be used'):
        to_device(nn.Linear(1, 1), None)


@pytest.mark.parametrize('capability, precision', [((9, 0), 'bfloat16'), ((7, 5), 'float32')])
def test_fit_says_what_it_decides_for_a_gpu(capability, precision, tmp_path, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.get_device_capability', lambda device: capability)
    (tmp_path / 'weights.pth').touch()
    data = SimpleNamespace(sizes=np.array([[96, 128]]), shares=[0.5, 0.5], root=tmp_path, classes=['a', 'b'])
    data.palette, data.suffix = [[0, 0, 0], [9, 9, 9]], '.png'
    _, rows = _decide(_leaf('mlp_effformerv2_s0'), data, str(tmp_path / 'weights.pth'))
    said = {what: (value, why) for what, value, why in rows}
    assert said['crop'] == ('96 x 96', 'a multiple of 32 in the image, of a GPU') and said['precision'][0] == precision


def test_a_model_that_was_scored_on_a_gpu_goes_to_the_hub(checkpoint, tmp_path, monkeypatch):
    def scored(config, segmenter, *others):
        segmenter.model.to('meta')
        return SimpleNamespace(metrics={'mIoU': 1.0})

    monkeypatch.setattr('effseg.report.scoring.score', scored)
    monkeypatch.setattr('safetensors.torch.save_file', lambda *given: None)
    assert hub.save(TINY, str(checkpoint), str(tmp_path / 'model')) == tmp_path / 'model'


def test_a_full_gpu_is_one_line(tool, scenes, tmp_path, monkeypatch):
    def full(*given, **options):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 3.06 MiB free.')

    monkeypatch.setattr('mmseg.models.EncoderDecoder.loss', full)
    outcome = tool('train', TINY, '--work-dir', tmp_path / 'run', '--no-data-check')
    assert outcome.status == 2 and len(outcome.err.splitlines()) == 1, outcome.err
    assert 'Tried to allocate 20.00 MiB' in outcome.err and 'smaller batch' in outcome.err
    assert 'do not fit together' not in outcome.err
