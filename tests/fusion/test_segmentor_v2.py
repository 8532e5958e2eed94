"""The fused segmenter on an EfficientFormerV2 against MMSegmentation's own model, end to end."""

import pytest
import torch

pytest.importorskip('mmseg')
from networks import SMALL_V2, segmenter

import effseg

from .test_segmentor import check, images


def segmentor(arch=SMALL_V2, **backbone):
    head = dict(norm_cfg=dict(type='SyncBN'))
    return segmenter(arch, 11, 32, 16, head, type='EfficientFormerV2', **backbone)


@pytest.mark.medium
@pytest.mark.parametrize('arch', ['s0', *(pytest.param(arch, marks=pytest.mark.slow) for arch in ('s1', 's2', 'l'))])
@torch.no_grad()
def test_the_published_models(random_stats, arch):
    model = random_stats(segmentor(arch))
    fused = effseg.fuse(model, size=(64, 96))
    check(model, fused, images(1, (64, 96)))


@pytest.fixture(scope='module')
def model(random_stats):
    return random_stats(segmentor())


@pytest.mark.parametrize('size', [(64, 64), (96, 160), (160, 96), (100, 75), (31, 33), (1, 1)])
@torch.no_grad()
def test_built_for_any_size_and_right_at_all_others(model, size):
    fused = effseg.fuse(model, size=size)
    for batch, other in ((1, size), (2, size), (1, (64, 96)), (1, (50, 70))):
        check(model, fused, images(batch, other))


@pytest.mark.parametrize(
    'options',
    [
        dict(bias_resize='hold', resolution=3),
        dict(bias_resize='matrix', resolution=4),
        dict(act='ReLU'),
        dict(act='HardSwish'),
        dict(out_norm=dict(type='GN', num_groups=1)),
    ],
)
@torch.no_grad()
def test_options(random_stats, options):
    model = random_stats(segmentor(**options))
    check(model, effseg.fuse(model, size=(96, 64)), images(2, (96, 64)))
