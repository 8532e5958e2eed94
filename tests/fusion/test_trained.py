"""Parts that have no exact form: as they were trained, BatchNorms folded by data flow, equal in float64."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from timm.layers import DropPath
from torch import nn

import effseg
from effseg.errors import FuseError
from effseg.fusion import segmentor
from effseg.fusion.trained import as_trained, freeze_random_bases

EXACT = dict(rtol=1e-9, atol=1e-9)
BN = dict(type='BN')
WIDTHS = [8, 16, 24, 32]


def resnet(**others):
    return dict(
        type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=BN, **{'style': 'pytorch', **others}
    )


def timm(name):
    return dict(type='TIMMBackbone', model_name=name, pretrained=False)


def fpn(widths):
    return dict(
        neck=dict(type='FPN', in_channels=widths, out_channels=16, num_outs=4),
        decode_head=dict(
            type='FPNHead',
            in_channels=[16] * 4,
            in_index=[0, 1, 2, 3],
            feature_strides=[4, 8, 16, 32],
            channels=16,
            num_classes=5,
            norm_cfg=BN,
        ),
    )


def head(kind='FCNHead', widths=(8, 16, 32, 64), **others):
    common = dict(type=kind, channels=16, num_classes=5, norm_cfg=BN, in_channels=widths[-1], in_index=3)
    return dict(decode_head={**common, **others})


def several(kind, **others):
    return head(kind, in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], **others)


FASTSCNN = dict(
    type='FastSCNN',
    downsample_dw_channels=(8, 12),
    global_in_channels=16,
    global_block_channels=(16, 24, 32),
    global_out_channels=32,
    higher_in_channels=16,
    lower_in_channels=32,
    fusion_out_channels=32,
    norm_cfg=BN,
)
MSCAN = dict(
    type='MSCAN', embed_dims=WIDTHS, depths=[1, 1, 1, 1], mlp_ratios=[2] * 4, norm_cfg=BN, act_cfg=dict(type='GELU')
)
HAM = dict(MD_S=1, MD_R=4, train_steps=6, eval_steps=7, inv_t=100, rand_init=True)
MODELS_AND_FORMS = {
    'semantic fpn': (dict(backbone=resnet(), **fpn([8, 16, 32, 64])), 'decoder FPN and FPNHead: exact form'),
    'all-mlp': (dict(backbone=resnet(), **several('SegformerHead')), 'decoder SegformerHead: exact form'),
    'fcn': (dict(backbone=resnet(), **head(dropout_ratio=0.5)), '22 of 22 BatchNorms folded'),
    'dilated': (
        dict(
            backbone=resnet(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
            **head('DepthwiseSeparableASPPHead', dilations=(1, 2, 4), c1_in_channels=8, c1_channels=4),
        ),
        'decoder DepthwiseSeparableASPPHead: as trained',
    ),
    'upernet': (dict(backbone=resnet(), **several('UPerHead', pool_scales=(1, 2))), 'decoder UPerHead: as trained'),
    'fastscnn': (
        dict(backbone=FASTSCNN, **head('DepthwiseSeparableFCNHead', in_channels=32, in_index=-1)),
        'BatchNorms folded',
    ),
    'segnext': (
        dict(
            backbone=MSCAN,
            **head('LightHamHead', in_channels=WIDTHS[1:], in_index=[1, 2, 3], ham_channels=16, ham_kwargs=HAM),
        ),
        'random bases, drawn for every image in training, frozen',
    ),
    'repvit': (dict(backbone=timm('repvit_m0_9'), **fpn([48, 96, 192, 384])), 'reparameterized by timm'),
    'efficientformer with a head without exact form': (
        dict(
            backbone=dict(
                type='EfficientFormer', arch=dict(depths=(1, 0, 0, 1), embed_dims=WIDTHS, num_vit=1), resolution=3
            ),
            **head(
                'EfficientViTHead', in_channels=WIDTHS[1:], in_index=[1, 2, 3], width=8, act_cfg=dict(type='HSwish')
            ),
        ),
        'decoder EfficientViTHead: as trained, 13 of 13 BatchNorms folded',
    ),
    'auxiliary': (
        dict(backbone=resnet(), **head(), auxiliary_head=head(in_channels=32, in_index=2)['decode_head']),
        'auxiliary heads: dropped',
    ),
    'fpn that is set up otherwise': (
        dict(
            backbone=resnet(),
            neck=dict(
                type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4, upsample_cfg=dict(mode='bilinear')
            ),
            decode_head=fpn([])['decode_head'],
        ),
        'no exact form, since the FPN upsamples',
    ),
}


def build(**parts):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(type='EncoderDecoder', test_cfg=dict(mode='whole'), **copy.deepcopy(parts)))


def cascade():
    init_default_scope('mmseg')
    first, second = head(norm_cfg=BN)['decode_head'], head('OCRHead', ocr_channels=8)['decode_head']
    cfg = dict(type='CascadeEncoderDecoder', num_stages=2, backbone=resnet(), decode_head=[first, second])
    return MODELS.build(ConfigDict(test_cfg=dict(mode='whole'), **cfg))


def drawn(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(3)).double()


def logits(model, x):
    metas = [dict(img_shape=tuple(x.shape[2:]), ori_shape=tuple(x.shape[2:]))]
    return model.encode_decode(x, metas)


@pytest.mark.parametrize('name', MODELS_AND_FORMS)
@torch.no_grad()
def test_equals_the_trained_model(name, random_stats):
    parts, said = MODELS_AND_FORMS[name]
    model = random_stats(build(**parts))
    before = copy.deepcopy(model.state_dict())
    fused = effseg.fuse(model, size=(64, 96))
    assert said in '\n'.join(fused.parts), fused.parts
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if name == 'segnext':
        freeze_random_bases(model, lambda model: model(drawn(64, 96), mode='tensor'))
    for network in (fused, fused.exportable()):
        for size in ((64, 96),) if network.backbone.portable else ((64, 96), (96, 64), (70, 50)):
            if name == 'repvit' and size == (70, 50):
                continue
            x = drawn(*size)
            torch.testing.assert_close(network.logits(x), model(x, mode='tensor'), **EXACT)


@torch.no_grad()
def test_a_cascade_goes_head_by_head(random_stats):
    model = random_stats(cascade())
    fused = effseg.fuse(model, size=(64, 64))
    x = drawn(64, 64)
    found = nn.functional.interpolate(fused.logits(x), size=(64, 64), mode='bilinear', align_corners=False)
    torch.testing.assert_close(found, logits(model, x), **EXACT)
    assert 'decoder FCNHead and OCRHead' in '\n'.join(fused.parts)


class Crossed(nn.Module):
    """Convs of one width registered in another order than they run in, one of them shared and one with two readers."""

    def __init__(self):
        super().__init__()
        self.norm2, self.norm1 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.second, self.first = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2))
        self.shared, self.forked = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm3, self.norm4, self.norm5 = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x):
        if bool(x.mean() > 1e9):  # what cannot be traced
            return x
        x = self.norm2(self.second(self.norm1(self.first(x)).relu_()))
        x = self.norm3(self.shared(x)) + self.norm4(self.shared(x))
        y = self.forked(x)
        return self.norm5(y) + y


@torch.no_grad()
def test_pairs_are_found_by_data_flow(random_stats):
    module, x = random_stats(Crossed()), drawn(8, 9)
    part, done = as_trained(module, lambda module: module(x))
    torch.testing.assert_close(part(x), module(x), **EXACT)
    kept = [type(getattr(part.module, f'norm{index}')).__name__ for index in range(1, 6)]
    assert kept == ['Identity', 'Identity', 'BatchNorm2d', 'BatchNorm2d', 'BatchNorm2d']
    assert done == '2 of 5 BatchNorms folded'


class Clipped(nn.BatchNorm2d):
    """A BatchNorm that computes more than one."""

    def forward(self, x):
        return super().forward(x).clamp(-0.1, 0.1)


class Unfoldable(nn.Module):
    """A conv whose result is returned too, one whose weight is computed in every run, one in front of more than a
    BatchNorm, and a layer of timm's without weights."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv3 = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 1)
        self.conv2 = nn.utils.spectral_norm(nn.Conv2d(8, 8, 1))
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), Clipped(8)
        self.drop = DropPath(0.1)

    def forward(self, x):
        first = self.conv1(x)
        last = self.norm3(self.conv3(self.norm2(self.conv2(self.norm1(first)))))
        return first, self.drop(last)


@torch.no_grad()
def test_what_only_looks_like_a_pair_is_left(random_stats):
    both = head(in_channels=[8, 8], in_index=[0, 1], input_transform='resize_concat')
    model = build(backbone=resnet(), **both)
    model.backbone = Unfoldable()
    random_stats(model)
    fused, x = effseg.fuse(model, size=(32, 32)), drawn(32, 32)
    torch.testing.assert_close(fused.logits(x), model(x, mode='tensor'), **EXACT)
    assert '0 of 3 BatchNorms folded' in fused.parts[0]


def test_a_form_that_gives_no_numbers_is_refused():
    with pytest.raises(FuseError, match='differ by nan'):
        segmentor._check_equal(torch.full((1,), torch.nan), torch.zeros(1))


def test_a_wrong_fold_is_refused(random_stats, monkeypatch):
    from effseg.fusion import trained

    right = trained.fold_norm
    monkeypatch.setattr(trained, 'fold_norm', lambda conv, norm: right(conv, norm).scaled(torch.tensor(1.01).double()))
    with pytest.raises(FuseError, match='other logits than the model'):
        effseg.fuse(random_stats(build(backbone=resnet(), **head())), size=(64, 64))


def test_heads_that_decide_otherwise_are_named(random_stats):
    with pytest.raises(FuseError, match='EncHead has a predict of its own'):
        effseg.fuse(random_stats(build(backbone=resnet(), **several('EncHead', num_codes=4))))
    model = random_stats(build(backbone=resnet(), **head()))
    kind = type(model)
    for name in ('postprocess_result', 'predict', 'inference'):
        model.__class__ = type('Mine', (kind,), {name: lambda self: None})
        getattr(type(model), name).__qualname__ = f'Mine.{name}'
        with pytest.raises(FuseError, match=f'Mine has a {name} of its own'):
            effseg.fuse(model)
    model.__class__ = kind
    made = model.decode_head.forward
    for came, message in (
        (lambda maps: (made(maps), None), 'a tuple of 2: Tensor, NoneType'),
        (lambda maps: made(maps)[:, :3], r'a tensor of shape \(1, 3, 2, 2\); one tensor of logits \(1, 5, h, w\)'),
    ):
        model.decode_head.forward = came
        with pytest.raises(FuseError, match=f'FCNHead returns {message}'):
            effseg.fuse(model, size=(64, 64))


def test_heads_that_want_more_than_maps_are_named(random_stats):
    model = random_stats(build(backbone=resnet(), **head()))
    kind = type(model.decode_head)
    for members, said in (
        (dict(forward=lambda self, inputs, batch_img_metas: None), 'decides by inputs, batch_img_metas'),
        (dict(forward_test=lambda self, inputs, img_metas, test_cfg: None), 'has a forward_test of its own'),
    ):
        for function in members.values():
            function.__qualname__ = f'Mine.{next(iter(members))}'
        model.decode_head.__class__ = type('Mine', (kind,), members)
        with pytest.raises(FuseError, match=f'Mine {said}'):
            effseg.fuse(model, size=(64, 64))


def test_an_image_the_model_does_not_take_is_one_error(random_stats):
    model = random_stats(build(backbone=resnet(), **head()))
    model.decode_head.conv_seg = nn.Conv2d(3, 5, 1).double().eval()
    with pytest.raises(FuseError, match='FCNHead does not run on an image of this size: RuntimeError'):
        effseg.fuse(model, size=(64, 64))
