"""A student learns what its teacher says; its checkpoint is an ordinary one."""

import pytest
import torch
from mmengine.config import Config
from networks import TINY

from effseg.distillation.logits import Teacher, divergence
from effseg.engine.config import build_model, load_config
from effseg.errors import ConfigError, WeightsError


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A segmenter of wider maps, and its checkpoint."""
    path = tmp_path_factory.mktemp('teacher')
    config = path / 'teacher.py'
    config.write_text(
        f'_base_ = [{TINY!r}]\nmodel = dict(neck=dict(out_channels=24), decode_head=dict(in_channels=[24] * 4))\n'
    )
    torch.manual_seed(1)
    model = build_model(load_config(str(config))).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, 0, 1)
    torch.save({'state_dict': model.state_dict()}, path / 'teacher.pth')
    return dict(config=str(config), checkpoint=str(path / 'teacher.pth'))


def student(teacher, **options):
    cfg = load_config(TINY, {f'model.{key}': value for key, value in options.items()})
    cfg.model.update(type='DistilledEncoderDecoder', teacher=teacher)
    torch.manual_seed(0)
    return build_model(cfg)


def batch(label=None):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in images:
        labels = torch.randint(0, 8, (1, 32, 32), generator=generator)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels if label is None else labels * 0 + label)))
    return images, samples


def test_the_student_comes_near_the_teacher_without_any_label(teacher):
    model = student(teacher).train()
    images, samples = batch(label=255)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    divergences = []
    for _ in range(30):
        losses = model.loss(images, samples)
        assert float(losses['decode.loss_ce']) == 0
        divergences.append(float(losses['distill.loss_kl'].detach()))
        optimizer.zero_grad()
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        optimizer.step()
    assert divergences[-1] < 0.5 * divergences[0]


def test_the_checkpoint_is_an_ordinary_one_and_the_teacher_stays_as_it_was(teacher):
    model = student(teacher)
    before = {key: value.clone() for key, value in model.teacher().model.state_dict().items()}
    images, samples = batch()
    model.train()
    sum(value for key, value in model.loss(images, samples).items() if 'loss' in key).backward()
    ours = model.teacher().model
    assert not ours.training and all(parameter.grad is None for parameter in ours.parameters())
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    plain = build_model(load_config(TINY))
    plain.load_state_dict(model.state_dict(), strict=True)
    assert len(list(model.parameters())) == len(list(plain.parameters()))


def test_the_teacher_sees_the_image_in_its_own_normalisation(teacher, tmp_path):
    images, _ = batch()
    opened, preprocessor = Teacher(**teacher), student(teacher).data_preprocessor
    expected = opened.logits(images, preprocessor)
    config = tmp_path / 'other.py'
    config.write_text(
        Config.fromfile(teacher['config']).pretty_text.replace('123.675', '100.0').replace('58.395', '50.0')
    )
    other = Teacher(str(config), teacher['checkpoint'])
    pixels = images * preprocessor.std + preprocessor.mean
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([100.0, 116.28, 103.53], [50.0, 57.12, 57.375]))
    torch.testing.assert_close(
        other.logits(images, preprocessor), opened.model((pixels - mean) / std, mode='tensor'), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(other.logits(images, preprocessor), expected, atol=1e-2)


def test_a_cascade_teaches(tmp_path):
    config, head = tmp_path / 'cascade.py', dict(in_channels=16, in_index=3, channels=8, num_classes=8)
    heads = [dict(type='FCNHead', num_convs=1, **head), dict(type='OCRHead', ocr_channels=8, **head)]
    config.write_text(
        f"_base_ = [{TINY!r}]\nmodel = dict(type='CascadeEncoderDecoder', num_stages=2, decode_head={heads})\n"
    )
    torch.save({'state_dict': build_model(load_config(str(config))).state_dict()}, tmp_path / 'x.pth')
    model = student(dict(config=str(config), checkpoint=str(tmp_path / 'x.pth')))
    assert float(model.loss(*batch())['distill.loss_kl'].detach()) > 0


def test_the_divergence_is_that_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 2, 5, 3, 4, generator=generator).double()
    p, q = (theirs / 2).softmax(1), (ours / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    everywhere = torch.ones(2, 3, 4, dtype=torch.bool)
    torch.testing.assert_close(divergence(ours, theirs, 2.0, everywhere).double(), expected, atol=1e-5, rtol=1e-5)
    assert float(divergence(ours, ours, 2.0, everywhere)) == pytest.approx(0, abs=1e-6)
    first = torch.tensor([True, False]).view(2, 1, 1).expand(2, 3, 4)
    torch.testing.assert_close(
        divergence(ours, theirs, 2.0, first), divergence(ours[:1], theirs[:1], 2.0, everywhere[:1])
    )


@pytest.mark.parametrize(
    'wrong, options, error, message',
    [
        (dict(config=TINY), {}, ConfigError, 'takes config, checkpoint'),
        (dict(weights='a'), {}, ConfigError, 'and perhaps cache_gb; config, checkpoint, weights came'),
        (dict(cache_gb='much'), {}, ConfigError, "cache_gb='much' must be a number of GB"),
        ({}, {'decode_head.num_classes': 5}, ConfigError, 'gives 8 classes and this model 5'),
        (dict(checkpoint='nowhere.pth'), {}, WeightsError, 'nowhere.pth'),
        ({}, dict(temperature=0.0), ConfigError, 'temperature'),
        ({}, {'decode_head.num_classes': 2, 'decode_head.out_channels': 1}, ConfigError, 'one map per class'),
    ],
)
def test_a_teacher_that_cannot_teach_is_one_line(teacher, wrong, options, error, message):
    given = {key: value for key, value in {**teacher, **wrong}.items() if wrong != dict(config=TINY) or key in wrong}
    with pytest.raises(error, match=message):
        student(given, **options).teacher()
