"""Everything is where the network is: on a pretended GPU, which computes what the CPU does, and counts what is waited
for."""

import numpy as np
import pytest
import timm
import torch

pytest.importorskip('mmseg')
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from networks import SMALL_V2, TINY, segmenter
from pretended import CUDA, OnGpu, pretended_gpu
from torch import nn

from effseg.apis.opening import open_segmenter
from effseg.apis.test import test as score
from effseg.apis.train import train
from effseg.benchmark.throughput import compare_on_device
from effseg.distillation import features
from effseg.engine.config import build_model, load_config
from effseg.engine.ema import ResumableEMAHook
from effseg.engine.plain_data import plain
from effseg.fusion import labels, layers
from effseg.fusion.segmentor import fuse
from effseg.segmentors.confidence import confidence_of
from effseg.segmentors.windows import at_size, label_in_windows

MLP = dict(arch=SMALL_V2, type='EfficientFormerV2', head=dict(type='SegformerHead', interpolate_mode='bilinear'))


@pytest.mark.parametrize('options', [{}, MLP], ids=['Semantic FPN', 'all-MLP'])
@torch.no_grad()
def test_a_fused_network_is_the_same_there_and_waits_for_nothing(options, random_stats, monkeypatch):
    model = random_stats(segmenter(resolution=2, **options))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = model(images, mode='tensor')
    dilations, conv2d = [], layers.F.conv2d

    def watched(*given, **named):
        dilations.extend(given[5:6])
        return conv2d(*given, **named)

    with pretended_gpu() as gpu:
        model, images = model.to(CUDA), images.to(CUDA)
        with pytest.raises(RuntimeError, match='same device'):  # or nothing here could fail
            model(images.cpu(), mode='tensor')
        torch.testing.assert_close(model(images, mode='tensor').cpu(), expected)
        gpu.done.clear()
        fused = fuse(model, (64, 64))
        assert torch.ops.aten.convolution.default not in gpu.done, 'it is judged on the CPU, where nothing is rounded'
        gpu.waits.clear()
        monkeypatch.setattr(layers.F, 'conv2d', watched)
        found, other = fused.logits(images), fused(images[:1, :, :50])
        exported = fused.exportable().logits(images[:1])
        assert not gpu.waits
        torch.testing.assert_close(found.cpu(), expected)
        torch.testing.assert_close(exported.cpu(), expected[:1])
    assert isinstance(other, OnGpu)
    assert dilations and 2 not in dilations, 'the detour around a matrix product is for CPUs'


def test_labels_are_found_there_in_few_operations(monkeypatch):
    monkeypatch.setattr(labels, 'GPU_CHUNK', 2 * 4 * 40 * 60)  # classes at once: two parts of them
    steps = [labels.Resize(32, 48), labels.Crop(0, 0, 30, 45), labels.Resize(40, 60)]
    logits = torch.randn(2, 7, 8, 12)

    def found(logits):
        sample = {'seg_logits': {'data': logits[0]}, 'pred_sem_seg': {'data': logits[0, :1] > 0}}
        maps = [labels.label_map(logits, steps), labels.label_map(logits[:, :1], steps, threshold=0.3)]
        windows = label_in_windows(logits[:1], lambda window: window[:, 0].long(), (4, 6))
        return [*maps, at_size(maps[0], steps), windows, labels.near_ties(logits, 0.1), confidence_of(sample)]

    expected = found(logits)
    with pretended_gpu() as gpu:
        there = found(logits.to(CUDA))
        assert not gpu.waits and len(gpu.done) < 150, len(gpu.done)
        for own, other in zip(there, expected):
            assert (own.cpu() == other).float().mean() > 0.999


def test_photos_are_labelled_there(checkpoint, scenes, monkeypatch):
    monkeypatch.setattr('torch.compile', lambda function: function)  # it compiles for real GPUs alone
    photo = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    expected = open_segmenter(TINY, str(checkpoint), device='cpu')(photo)
    with pretended_gpu():
        for fused in (False, True):
            own = open_segmenter(TINY, str(checkpoint), fused, device=CUDA)
            assert (own(photo) == expected).mean() > 0.999
        labels, confidence = own.confident(photo)
        assert (labels == expected).mean() > 0.999 and confidence.dtype == np.float32
        rows = compare_on_device(TINY, str(checkpoint), CUDA, ['fp32'], [2], (32, 32), runs=1, compiled=True)
    assert [row['agreement'] > 0.999 for row in rows] == [True] * 3


@pytest.mark.parametrize('cache_gb', [None, 1])
def test_a_teacher_goes_where_the_student_is(cache_gb, checkpoint, scenes):
    cfg = load_config(TINY)
    cfg.model.update(type='DistilledEncoderDecoder')
    cfg.model.teacher = dict(config=TINY, checkpoint=str(checkpoint), cache_gb=cache_gb)
    student = build_model(cfg).eval()
    path = str(next(scenes.glob('images/train/*')))
    places = np.linspace(-1.1, 1, 2 * 32 * 32, dtype=np.float32).reshape(32, 32, 2)
    images, truth = torch.randn(2, 3, 32, 32), torch.randint(0, 8, (1, 32, 32))

    def losses(device):
        meta = dict(img_path=path, img_shape=(32, 32), pixels=places)
        sample = SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=truth.to(device)))
        return {name: loss.detach() for name, loss in student.loss(images.to(device), [sample, sample]).items()}

    expected = losses('cpu')
    teacher, where = student.teacher().model, []
    teacher.backbone.register_forward_pre_hook(lambda module, given: where.append(given[0].device.type))
    if cache_gb:
        student.teacher().whole_images._kept.clear()
    with pretended_gpu():
        student.to(CUDA)
        there = losses(CUDA)
        assert set(where) == {'cuda'}
        for name, loss in there.items():
            assert isinstance(loss, OnGpu)
            torch.testing.assert_close(loss.cpu(), expected[name], rtol=1e-3, atol=1e-3)


def test_a_teacher_of_features_goes_where_the_backbone_is(monkeypatch):
    init_default_scope('mmseg')
    cfg = load_config(TINY).model
    monkeypatch.setattr(features, 'open_teacher', lambda name, weights: timm.create_model(name).eval())
    model = features.FeatureDistiller(cfg.backbone, 'test_efficientnet.r160_in1k', None, cfg.data_preprocessor).eval()
    images = torch.randn(2, 3, 64, 64)
    expected = model(images, mode='loss')
    with pretended_gpu():
        there = model.to(CUDA)(images.to(CUDA), mode='loss')
        for name, loss in there.items():
            torch.testing.assert_close(loss.detach().cpu(), expected[name].detach())


def test_what_a_checkpoint_holds_opens_without_a_gpu():
    with pretended_gpu():
        hook, values = ResumableEMAHook(), torch.ones(2).to(CUDA)
        hook.ema_model, hook._exchanged = nn.Linear(2, 2).to(CUDA), True
        checkpoint = {'optimizer': {0: {'exp_avg': values, 'others': (values,)}}}
        hook.before_save_checkpoint(None, checkpoint)
        state = plain(checkpoint)['optimizer'][0]
        held = [*checkpoint['ema_state_dict'].values(), state['exp_avg'], *state['others']]
    assert not any(isinstance(value, OnGpu) for value in held)


@pytest.mark.slow
def test_a_training_resumes_and_is_fused_there(scenes, tmp_path, monkeypatch):
    """All but the gradients, which torch computes on no GPU but a real one: they are made up."""

    def backward(self, loss, **options):
        for group in self.optimizer.param_groups:
            for weight in group['params']:
                weight.grad = torch.full_like(weight.detach(), 1e-3)

    def run(name, iterations, resume=False):
        average = dict(type='ResumableEMAHook', ema_type='WarmAverage', momentum=0.1, update_buffers=True)
        options = {'custom_hooks': [average], 'train_cfg.max_iters': iterations}
        train(TINY, str(tmp_path / name), resume, cfg_options=options, data_check=False)
        return torch.load(tmp_path / name / f'iter_{iterations}.pth', weights_only=True)

    monkeypatch.setattr(OptimWrapper, 'backward', backward)
    expected = run('cpu', 8)
    with pretended_gpu() as gpu, monkeypatch.context() as machine:
        machine.setattr('torch.cuda.is_available', lambda: True)
        machine.setattr('torch.cuda.manual_seed_all', lambda seed: None)
        machine.setattr('mmengine.runner.runner.get_device', lambda: CUDA)
        run('gpu', 4)
        found = run('gpu', 8, resume=True)
        assert len(gpu.done) > 1000
        scores = score(TINY, str(tmp_path / 'gpu/best.pth'), str(tmp_path / 'test'), fused=True)
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, found[part][name]) for name, value in expected[part].items())
    assert scores == score(TINY, str(tmp_path / 'cpu/best.pth'), str(tmp_path / 'test'), fused=True)
