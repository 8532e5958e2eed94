"""Segmenters that are not of this project, through the export: what goes in, and what a converter cannot take."""

import pytest
import torch
from networks import MEAN, STD, segmenter

import effseg
from effseg import deploy
from effseg.deploy.backends import SUFFIXES, backend
from effseg.deploy.exporting import _convert
from effseg.deploy.program import Unfused
from effseg.errors import ArtifactError, FuseError

from .conftest import SIZE, need, spec_of

PADDING = dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True, test_cfg=dict(size_divisor=32))


def foreign(random_stats):
    """ResNet-18 and FPNHead, behind a preprocessor that pads in testing, as SegNeXt's does."""
    from mmseg.registry import MODELS

    model = segmenter(resolution=3)
    norm = dict(type='BN')
    model.backbone = MODELS.build(dict(type='ResNet', depth=18, base_channels=8, norm_cfg=norm, style='pytorch'))
    model.neck = MODELS.build(dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4))
    model.data_preprocessor = MODELS.build(PADDING)
    return random_stats(model).float()


def test_a_foreign_backbone_exports_with_the_exact_decoder(random_stats, images, tmp_path):
    need('onnx')
    model = foreign(random_stats)
    fused = effseg.fuse(model, SIZE)
    assert 'as trained' in fused.parts[0] and 'exact form' in fused.parts[1]
    with torch.no_grad():
        deploy.export(model, fused.exportable(), spec_of('onnx'), tmp_path / 'model.onnx', images[:2])
    assert deploy.load(tmp_path / 'model.onnx').spec.grid == (SIZE[0] // 4, SIZE[1] // 4)


class Untraceable(torch.nn.Module):
    def forward(self, x):
        return x if float(x.mean()) > -1e9 else -x


class Unknown(torch.nn.Module):
    def forward(self, x):
        return x + 0 * torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    'layer, named', [(Untraceable, 'in Untraceable.forward: return x if'), (Unknown, 'operator prims.bessel_j0')]
)
def test_what_cannot_be_converted_is_one_error_and_leaves_nothing(layer, named, random_stats, images, tmp_path):
    need('onnx')
    model = foreign(random_stats)
    model.backbone.conv1 = torch.nn.Sequential(layer(), model.backbone.conv1)
    with torch.no_grad(), pytest.raises(ArtifactError, match=f'onnx cannot convert this network.*{named}') as raised:
        deploy.export(model, Unfused(model), spec_of('onnx'), tmp_path / 'model.onnx', images[:1])
    assert '--unfused' in str(raised.value) and len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_head_that_returns_two_tensors_is_named(random_stats, images, tmp_path):
    model = foreign(random_stats)
    made = model.decode_head.forward
    model.decode_head.forward = lambda maps: (made(maps), made(maps))
    with torch.no_grad(), pytest.raises(FuseError, match='FPNHead returns a tuple of 2'):
        deploy.export(model, Unfused(model), spec_of('onnx'), tmp_path / 'model.onnx', images[:1])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('runtime', SUFFIXES)
@torch.no_grad()
def test_every_runtime_names_what_it_cannot_convert(runtime, tmp_path):
    need(runtime)

    class Behind(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.conv, self.layer = torch.nn.Conv2d(3, 3, 4, 4), layer

        def logits(self, x):
            return self.layer(self.conv(x))

    for layer, named in ((Untraceable(), 'in Untraceable.forward: return x if'), (Unknown(), 'bessel_j0')):
        if runtime == 'torch' and isinstance(layer, Unknown):
            continue  # which knows it
        with pytest.raises(ArtifactError, match=f'{runtime} cannot convert this network.*{named}') as raised:
            path = tmp_path / f'model{SUFFIXES[runtime]}'
            _convert(backend(runtime), Behind(layer).eval(), spec_of(runtime), path, [])
        assert len(str(raised.value).splitlines()) == 1
