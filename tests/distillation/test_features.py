"""A backbone learns the maps of a network of timm, and starts a segmenter from them."""

import pytest
import timm
import torch
from mmengine.registry import init_default_scope
from networks import TINY

from effseg.demo.dataset import write_demo_data
from effseg.distillation.features import FeatureDistiller, open_teacher
from effseg.engine.config import load_config
from effseg.errors import ConfigError, WeightsError

TEACHER = 'test_efficientnet.r160_in1k'  # timm's own, for tests


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
    """Weights of the teacher in a file as timm writes them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('teacher') / 'weights.pth'
    torch.save(timm.create_model(TEACHER).state_dict(), path)
    return str(path)


def test_the_backbone_comes_near_the_teacher(weights):
    cfg = load_config(TINY).model
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = FeatureDistiller(cfg.backbone, TEACHER, weights, cfg.data_preprocessor).train()
    assert not any(key.startswith('_teacher') for key in model.state_dict())
    images = torch.randn(4, 3, 64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    totals = []
    for _ in range(30):
        losses = model(images, mode='loss')
        assert set(losses) == {f'loss_stride{stride}' for stride in (4, 8, 16, 32)}
        optimizer.zero_grad()
        total = sum(losses.values())
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]
    # maps that say nothing of the image end at the variance of normalised maps, which is 1 in each level
    assert totals[-1] < 4


def test_a_file_gives_the_weights_that_it_holds(weights):
    teacher = open_teacher(TEACHER, weights)
    stem = timm.create_model(TEACHER)
    stem.load_state_dict(torch.load(weights, weights_only=True))
    assert all(torch.equal(value, stem.state_dict()[key]) for key, value in teacher.state_dict().items())
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.medium
def test_one_command_teaches_and_the_segmenter_starts_from_it(tool, weights, tmp_path, monkeypatch):
    write_demo_data(tmp_path / 'demo', train=4, val=2, size=(64, 64))
    monkeypatch.setenv('DEMO_ROOT', str(tmp_path / 'demo'))
    options = ['--teacher', TEACHER, '--teacher-weights', weights]
    short = ['--cfg-options', 'train_cfg.max_iters=2', 'train_dataloader.num_workers=0']
    short += ['train_dataloader.persistent_workers=False']
    images = ['--images', tmp_path / 'demo/images']
    other = ['model.decode_head.ignore_index=9', 'train_dataloader.dataset.ignore_index=9']
    for name, chosen, laid in (('own', [], other), ('folder', images, [])):
        outcome = tool('distill', TINY, *options, *chosen, '--work-dir', tmp_path / name, *short, *laid)
        assert outcome.status == 0, outcome.err
        assert 'backbone.safetensors' in outcome.out
    (tmp_path / 'theirs').mkdir()
    (tmp_path / 'theirs/backbone.safetensors').write_text('mine')
    outcome = tool('distill', TINY, *options, '--work-dir', tmp_path / 'theirs', *short)
    assert outcome.status == 2 and (tmp_path / 'theirs/backbone.safetensors').read_text() == 'mine'
    start = [
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={tmp_path}/own/backbone.safetensors',
    ]
    outcome = tool('train', TINY, '--work-dir', tmp_path / 'run', *short, *start)
    assert outcome.status == 0 and 'tensors loaded from' in outcome.out + outcome.err


def test_what_cannot_teach_is_one_line(weights, tmp_path):
    with pytest.raises(ConfigError, match='no network of timm'):
        open_teacher('resnet_of_mine', None)
    with pytest.raises(ConfigError, match='strides'):
        open_teacher('vit_tiny_patch16_224', None)
    other = tmp_path / 'other.pth'
    torch.save(torch.nn.Linear(2, 2).state_dict(), other)
    with pytest.raises(WeightsError, match='gives no weights for'):
        open_teacher(TEACHER, str(other))
