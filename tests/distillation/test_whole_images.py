"""What a teacher made of a whole image lies over every crop of it, however the crop was made."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from networks import TINY
from PIL import Image

from effseg.distillation import whole_images
from effseg.distillation.logits import Teacher
from effseg.distillation.whole_images import WholeImages
from effseg.engine.config import build_model, load_config
from effseg.errors import ConfigError

HEIGHT, WIDTH = 96, 128
PACK = dict(type='PackSegInputs', meta_keys=('img_path', 'img_shape', 'pixels'))
LOAD = [dict(type='LoadImageFromFile'), dict(type='TrackPixels'), dict(type='Unlabelled')]


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    """An image whose red is its column, and whose green is its row."""
    path = tmp_path_factory.mktemp('photo') / 'photo.png'
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    pixels[..., 2] = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH))
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(1)
    model = build_model(load_config(TINY)).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, 0, 1)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return str(path)


def teacher(checkpoint, cache_gb=1.0) -> WholeImages:
    """Opened, with a test pipeline that leaves the size as it is."""
    opened = Teacher(TINY, checkpoint, cache_gb).whole_images
    opened.pipeline = Compose([dict(type='LoadImageFromFile'), dict(type='PackSegInputs')])
    return opened


def sample(photo, *steps):
    init_default_scope('mmseg')
    return Compose([*LOAD, *steps, PACK])(dict(img_path=photo, seg_fields=[]))


@pytest.mark.parametrize('seed', range(6))
def test_places_follow_every_geometry(photo, seed):
    np.random.seed(seed)
    crop = sample(
        photo,
        dict(type='RandomResize', scale=(200, 150), ratio_range=(0.5, 2.0), keep_ratio=False),
        dict(type='RandomRotate', prob=0.7, degree=30.0),
        dict(type='RareClassCrop', classes=(1,), crop_size=(64, 64)),
        dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
        dict(type='ResizeToMultiple', size_divisor=32),
    )
    shown, places = crop['inputs'].numpy(), crop['data_samples'].metainfo['pixels']
    inside = (np.abs(places) <= 1).all(-1)
    assert inside.mean() > 0.3
    column, row = ((places[..., axis] + 1) * size / 2 - 0.5 for axis, size in enumerate((WIDTH, HEIGHT)))
    # a resized label map is up to a pixel off; at the border of a rotation the image fades into the padding
    off = np.maximum(np.abs(column - shown[2]), np.abs(row - shown[1]))[inside]
    assert np.median(off) < 1 and np.mean(off > 2.5) < 0.08


@pytest.mark.parametrize('flip', [False, True])
def test_logits_of_a_crop_are_those_of_the_whole_image_there(photo, checkpoint, flip):
    whole = teacher(checkpoint)
    crop = sample(photo, dict(type='RandomFlip', prob=float(flip)))
    size = (HEIGHT // 4, WIDTH // 4)
    found, inside = whole.at([crop['data_samples']], crop['inputs'][None], size)
    expected = whole.logits(photo).float()
    assert inside.all() and expected.shape[1:] == size
    torch.testing.assert_close(found[0], expected.flip(2) if flip else expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[0], expected.flip(1), atol=1e-2)


def test_the_logits_are_those_of_the_teacher_itself(photo, checkpoint):
    whole = teacher(checkpoint)
    image = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)[None].float()
    preprocessor = whole.model.data_preprocessor
    with torch.no_grad():
        expected = whole.model((image - preprocessor.mean) / preprocessor.std, mode='tensor')[0]
    torch.testing.assert_close(whole.logits(photo).float(), expected, atol=2e-3, rtol=2e-3)


def test_the_teacher_sees_what_its_own_config_shows_it(photo, checkpoint, tmp_path):
    """The pipeline of a config as it is, with its loading of label maps, on an image that is transparent."""
    image = Image.open(photo).convert('RGBA')
    image.putalpha(0)
    image.save(tmp_path / 'clear.png')
    Image.new('RGB', image.size, 'white').save(tmp_path / 'white.png')
    whole = Teacher(TINY, checkpoint, 1).whole_images
    clear, white = (whole.logits(str(tmp_path / name)) for name in ('clear.png', 'white.png'))
    assert torch.equal(clear, white) and not torch.equal(clear, whole.logits(photo))


def test_what_lies_outside_of_the_image_does_not_count(photo, checkpoint):
    whole = teacher(checkpoint)
    crop = sample(photo, dict(type='RandomCrop', crop_size=(HEIGHT, 64)))
    padded = torch.zeros(1, 3, HEIGHT + 32, 128)  # as MMSegmentation's data preprocessor pads a small crop
    found, inside = whole.at([crop['data_samples']], padded, (32, 32))
    assert inside[0, :24, :16].all() and not inside[0, 24:].any() and not inside[0, :, 16:].any()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize('cache_gb, times', [(1.0, 1), (0.0, 3)])
def test_an_image_is_seen_once_as_far_as_there_is_room(photo, checkpoint, cache_gb, times, monkeypatch):
    said = []
    monkeypatch.setattr(whole_images, 'print_log', lambda text, **_: said.append(text))
    whole = teacher(checkpoint, cache_gb)
    seen = []
    whole.model.register_forward_hook(lambda *_: seen.append(1))
    kept = [whole.logits(photo) for _ in range(3)]
    assert len(seen) == times and all(torch.equal(one, kept[0]) for one in kept)
    assert ['the logits of 0 images' in text for text in said] == ([] if cache_gb else [True])


def test_a_student_learns_from_whole_images(photo, checkpoint):
    cfg = load_config(TINY)
    cfg.model.update(type='DistilledEncoderDecoder', teacher=dict(config=TINY, checkpoint=checkpoint, cache_gb=1))
    torch.manual_seed(0)
    student = build_model(cfg).train()
    crop = sample(photo, dict(type='RandomCrop', crop_size=(64, 64)))
    batch = student.data_preprocessor(dict(inputs=[crop['inputs']], data_samples=[crop['data_samples']]), True)
    optimizer = torch.optim.AdamW(student.parameters(), 3e-3)
    divergences = []
    for _ in range(15):
        losses = student(**batch, mode='loss')
        divergences.append(float(losses['distill.loss_kl'].detach()))
        optimizer.zero_grad()
        losses['distill.loss_kl'].backward()
        optimizer.step()
    assert divergences[-1] < 0.7 * divergences[0]


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda meta: meta.pop('pixels'), "needs dict\\(type='TrackPixels'\\)"),
        (lambda meta: meta.update(img_shape=(64, 64)), r'made an image of \(64, 64\)'),
    ],
)
def test_what_cannot_be_tracked_is_one_line(photo, checkpoint, change, message):
    crop = sample(photo)
    meta = dict(crop['data_samples'].metainfo)
    change(meta)
    with pytest.raises(ConfigError, match=message):
        teacher(checkpoint).at([type(crop['data_samples'])(metainfo=meta)], crop['inputs'][None], (8, 8))


def test_a_teacher_that_pads_is_one_line(photo, checkpoint):
    whole = teacher(checkpoint)
    whole.pipeline = Compose(
        [dict(type='LoadImageFromFile'), dict(type='Pad', size=(160, 160)), dict(type='PackSegInputs')]
    )
    with pytest.raises(ConfigError, match='pads images'):
        whole.logits(photo)
