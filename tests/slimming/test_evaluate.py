"""Statistics measured anew, channels weighed, and attention that becomes pooling."""

import pytest

pytest.importorskip('mmseg')
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from effseg.slimming.evaluate import build, loss_of, recalibrate, weigh
from effseg.slimming.slicing import Action, apply

from .conftest import trained_looking


def batches(count=2, size=(64, 64)):
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        images = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
        labels = [torch.randint(0, 5, (1, *size), generator=generator) for _ in images]
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
        for sample in samples:
            sample.set_metainfo(dict(img_shape=size, ori_shape=size, pad_shape=size))
        made.append((images, samples))
    return made


@pytest.fixture
def v1(random_stats):
    return trained_looking(random_stats, 'EfficientFormer', 'all-MLP')


@pytest.fixture
def v2(random_stats):
    return trained_looking(random_stats, 'EfficientFormerV2', 'semantic FPN')


def test_statistics_are_those_of_the_images(v2):
    """Twice the same images give the same; the weights stay; the first norm has the mean that its conv gives."""
    model, data = build(v2), batches()
    before = {key: value.clone() for key, value in model.state_dict().items() if 'running' not in key}
    recalibrate(model, data)
    stem = model.backbone.stem.conv1
    with torch.no_grad():
        mean = torch.stack([stem.conv(images).mean((0, 2, 3)) for images, _ in data]).mean(0)
    torch.testing.assert_close(stem.bn.running_mean, mean)
    assert stem.bn.momentum == 0.1 and not any(module.training for module in model.modules())
    first = loss_of(model, data)
    recalibrate(model, data)
    assert loss_of(model, data) == first
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items() if 'tracked' not in key)


def test_a_channel_without_use_weighs_nothing(v2):
    for key in ('weight', 'bias'):
        v2.state[f'backbone.stages.1.blocks.0.mlp.fc1.bn.{key}'][3] = 0
        v2.state[f'backbone.stages.1.blocks.0.mlp.mid.bn.{key}'][3] = 0
    v2.state['backbone.stages.1.blocks.0.mlp.fc2.conv.weight'][:, 3] = 0
    scores, tokens = weigh(v2, batches())
    hidden = scores['hidden.1.0']
    assert hidden.argmin() == 3 and hidden[3] < 1e-12 < hidden.sum()
    assert not tokens
    assert {group: len(score) for group, score in scores.items() if group.startswith('stage')} == {
        'stage0': 8,
        'stage1': 12,
        'stage2': 16,
        'stage3': 24,
    }


@torch.no_grad()
def test_pooling_keeps_what_the_mlp_of_an_attention_block_does(v1):
    """Where all tokens have one spread, the MLP is the same; what is lost is the attention."""
    block = 'backbone.stages.3.blocks.2.'  # the marker between map and tokens has number 1
    v1.state[f'{block}ls1.gamma'].zero_()
    data = batches()
    with torch.enable_grad():
        _, tokens = weigh(v1, data)
    assert set(tokens) == {(3, 1), (3, 2)}
    before, smaller = build(v1), apply(v1, Action('attention', 3, 1), {}, tokens)
    assert smaller.arch.num_vit == (0, 0, 0, 1)
    after, images = build(smaller), data[0][0]
    inputs = []
    hook = before.backbone.stages[3].blocks[2].register_forward_pre_hook(lambda _, args: inputs.append(args))
    before.backbone(images)
    hook.remove()
    (found, grid) = inputs[0]
    spread = tokens[3, 1].spread
    found = found * (spread / found.std(-1, correction=0, keepdim=True))
    expected = before.backbone.stages[3].blocks[2](found, grid)
    got = after.backbone.stages[3].blocks[1](found.transpose(1, 2).unflatten(2, grid))
    torch.testing.assert_close(got.flatten(2).transpose(1, 2), expected, rtol=1e-3, atol=1e-3)


def test_all_attention_may_go(v1):
    for block in (1, 2):
        _, tokens = weigh(v1, batches())
        v1 = apply(v1, Action('attention', 3, block), {}, tokens)
    assert v1.arch.num_vit == (0, 0, 0, 0)
    assert loss_of(build(v1), batches())[0] > 0
