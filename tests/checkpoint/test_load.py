import logging

import mmseg.models  # noqa: F401  registers the heads
import pytest
import timm
import torch
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict as mmengine_load
from networks import segmenter
from original import random_weights
from safetensors.torch import save_file

import effseg  # noqa: F401  registers the models
from effseg.checkpoint import load
from effseg.checkpoint.load import load_pretrained, load_segmentor
from effseg.errors import ConfigError, WeightsError
from effseg.models import EfficientFormer, EfficientFormerV2
from effseg.models.attention_bias import resize_table

TABLE = 'stages.3.blocks.4.token_mixer.attention_biases'


@pytest.fixture(scope='module')
def theirs():
    """timm's L1, whose trunk nobody else's random numbers equal."""
    torch.manual_seed(7)
    model = timm.create_model('efficientformer_l1')
    torch.nn.init.normal_(model.get_parameter(TABLE))
    return model.state_dict()


@pytest.fixture
def l1():
    return EfficientFormer('l1')


def as_original(state_dict):
    """timm's L1 under the original's ImageNet names."""
    stem = {
        'stem.conv1': 'patch_embed.0',
        'stem.norm1': 'patch_embed.1',
        'stem.conv2': 'patch_embed.3',
        'stem.norm2': 'patch_embed.4',
    }
    renamed = {}
    for key, value in state_dict.items():
        for ours, original in stem.items():
            key = key.replace(ours, original)
        for index in range(4):
            key = key.replace(f'stages.{index}.blocks.', f'network.{2 * index}.')
            key = key.replace(f'stages.{index}.downsample.', f'network.{2 * index - 1}.')
        key = (
            key.replace('.conv.', '.proj.').replace('ls1.gamma', 'layer_scale_1').replace('ls2.gamma', 'layer_scale_2')
        )
        renamed[key.replace('head_dist', 'dist_head')] = value
    return renamed


def assert_trunk(model, expected, resolution=7):
    state = model.state_dict()
    trunk = [key for key in state if not key.startswith('norm') and key != TABLE]
    assert len(trunk) > 200 and all(torch.equal(state[key], expected[key]) for key in trunk)
    if resolution == 7:
        assert torch.equal(state[TABLE], expected[TABLE])


def prefixed(state_dict, *prefixes):
    return {''.join(prefixes) + key: value for key, value in state_dict.items()}


FORMATS = {
    'timm': lambda s: s,
    'original': lambda s: {'model': as_original(s)},
    'original, undistilled': lambda s: {'model': {k: v for k, v in as_original(s).items() if 'dist_head' not in k}},
    'mmengine': lambda s: {'state_dict': s, 'meta': {}},
    'module.': lambda s: {'state_dict': prefixed(s, 'module.')},
    '_orig_mod.': lambda s: {'state_dict': prefixed(s, '_orig_mod.')},
    'module._orig_mod.': lambda s: prefixed(s, 'module.', '_orig_mod.'),
    'backbone.': lambda s: {'state_dict': prefixed(s, 'backbone.')},
    'module.backbone.': lambda s: {'state_dict': prefixed(s, 'module.', 'backbone.')},
    'backbone._orig_mod.': lambda s: prefixed(s, 'backbone.', '_orig_mod.'),
    'segmenter': lambda s: {
        'state_dict': {**prefixed(s, 'backbone.'), 'neck.a': torch.ones(1), 'decode_head.b': torch.ones(1)}
    },
    'EMA': lambda s: {'state_dict_ema': prefixed(s, 'module.'), 'state_dict': {k: v * 0 for k, v in s.items()}},
    'half precision': lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    'without counters': lambda s: {k: v for k, v in s.items() if 'num_batches' not in k},
}


@pytest.mark.parametrize('name', FORMATS)
def test_formats(tmp_path, theirs, l1, name):
    torch.save(FORMATS[name](theirs), tmp_path / 'x.pth')
    report = load_pretrained(l1, tmp_path / 'x.pth')
    half = {key: value.half().to(value.dtype) for key, value in theirs.items()}
    assert_trunk(l1, half if name == 'half precision' else theirs)
    assert set(report.missing) == {f'norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias')}
    assert not report.interpolated
    assert len(report.matched) + len(report.missing) == sum(
        'num_batches' not in key or key in theirs and name != 'without counters' for key in l1.state_dict()
    )
    assert any('head' in key for key in report.unexpected)


def test_safetensors(tmp_path, theirs, l1):
    save_file(theirs, tmp_path / 'x.safetensors')
    load_pretrained(l1, tmp_path / 'x.safetensors')
    assert_trunk(l1, theirs)


@pytest.mark.parametrize('bias_resize', ['interpolate', 'hold'])
def test_tables_are_carried_over_by_offset_and_reported(tmp_path, theirs, bias_resize):
    torch.save(theirs, tmp_path / 'x.pth')
    model = EfficientFormer('l1', resolution=16, bias_resize=bias_resize)
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert report.interpolated == (TABLE,) and TABLE not in report.matched
    assert torch.equal(model.get_parameter(TABLE), resize_table(theirs[TABLE], (7, 7), (16, 16), bias_resize))
    assert_trunk(model, theirs, 16)
    assert TABLE in str(report)


@pytest.mark.parametrize('network, arch', [(EfficientFormer, 'l1'), (EfficientFormerV2, 's0')])
def test_tables_that_lose_offsets_are_a_warning(tmp_path, network, arch, monkeypatch):
    said = []
    monkeypatch.setattr(load, 'print_log', lambda text, logger, level=logging.INFO: said.append((level, text)))
    torch.save(network(arch, resolution=16).state_dict(), tmp_path / 'x.pth')
    load_pretrained(network(arch, resolution=7), tmp_path / 'x.pth')
    warnings = [text for level, text in said if level == logging.WARNING]
    assert len(warnings) == 1 and '81% of them are lost' in warnings[0]
    assert 'model.backbone.resolution=16' in warnings[0]


def test_numbers_that_the_network_cannot_hold_are_refused(tmp_path, theirs, l1):
    before = l1.state_dict()['stem.conv1.weight'].clone()
    for value, dtype in ((1e300, torch.float64), (3e38, torch.float64), (-1e39, torch.float64)):
        state_dict = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in theirs.items()}
        state_dict['stem.conv1.weight'][0, 0, 0, 0] = value
        torch.save(state_dict, tmp_path / 'x.pth')
        if value == 3e38:  # fits
            load_pretrained(EfficientFormer('l1'), tmp_path / 'x.pth')
            continue
        with pytest.raises(WeightsError, match='infinite numbers as torch.float32.*stem.conv1.weight'):
            load_pretrained(l1, tmp_path / 'x.pth')
    assert torch.equal(l1.state_dict()['stem.conv1.weight'], before)


def test_stages_that_the_backbone_leaves_out_are_left_out(tmp_path, theirs):
    torch.save({'model': as_original(theirs)}, tmp_path / 'x.pth')
    model = EfficientFormer('l1', out_indices=(0, 1))
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert all(
        torch.equal(value, theirs[key]) for key, value in model.state_dict().items() if not key.startswith('norm')
    )
    assert TABLE in report.unexpected


def without(state_dict, *keys):
    return {key: value for key, value in state_dict.items() if key not in keys}


def test_less_than_the_trunk_is_refused(tmp_path, theirs, l1):
    before = {key: value.clone() for key, value in l1.state_dict().items()}
    cases = {
        'stem.conv1.weight': without(theirs, 'stem.conv1.weight'),
        TABLE: without(theirs, TABLE),
        'stages.0.blocks.0.mlp.fc1.weight': {k: v for k, v in theirs.items() if not k.startswith('stages.')},
        'surplus.weight': {**theirs, 'surplus.weight': torch.ones(1)},
        'stages.3.blocks.5.mlp.fc3.weight': {**theirs, 'stages.3.blocks.5.mlp.fc3.weight': torch.ones(1)},
        'stages.1.blocks.1.ls1.gamma': {**theirs, 'stages.1.blocks.1.ls1.gamma': torch.ones(95)},
        'stem.norm1.bias': {**theirs, 'stem.norm1.bias': torch.full((24,), float('nan'))},
        'stem.conv2.bias': {**theirs, 'stem.conv2.bias': torch.full((48,), float('inf'))},
        'stem.conv1.bias': {**theirs, 'stem.conv1.bias': torch.ones(24, dtype=torch.int64)},
    }
    for key, state_dict in cases.items():
        torch.save(state_dict, tmp_path / 'x.pth')
        with pytest.raises(WeightsError) as caught:
            load_pretrained(l1, tmp_path / 'x.pth')
        assert key in str(caught.value) and str(tmp_path) in str(caught.value) and '\n' not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in l1.state_dict().items())


@pytest.mark.parametrize('other', ['efficientformer_l3', 'efficientformerv2_s0', 'resnet18'])
def test_another_architecture_is_refused(tmp_path, l1, other):
    torch.save(timm.create_model(other).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='another network'):
        load_pretrained(l1, tmp_path / 'x.pth')


def test_prefix(tmp_path, theirs, l1):
    torch.save(
        {**prefixed(theirs, 'student.'), **prefixed({k: v * 0 for k, v in theirs.items()}, 'teacher.')},
        tmp_path / 'x.pth',
    )
    load_pretrained(l1, tmp_path / 'x.pth', prefix='student')
    assert_trunk(l1, theirs)
    with pytest.raises(WeightsError, match='nobody'):
        load_pretrained(l1, tmp_path / 'x.pth', prefix='nobody.')


def segmentor(classes=5, **backbone):
    return segmenter('l1', classes, 16, 8, **backbone)


def test_init_cfg_inside_a_segmentor(tmp_path, theirs, caplog):
    torch.save({'model': as_original(theirs)}, tmp_path / 'x.pth')
    model = segmentor(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
    fresh = {key: value.clone() for key, value in model.neck.state_dict().items()}
    with caplog.at_level(logging.INFO):
        MMLogger.get_current_instance().addHandler(caplog.handler)
        model.init_weights()
        MMLogger.get_current_instance().removeHandler(caplog.handler)
    reports = [record.message for record in caplog.records if 'tensors loaded' in record.message]
    assert len(reports) == 1 and 'new: norm0.weight' in reports[0] and str(tmp_path) in reports[0]
    assert_trunk(model.backbone, theirs)
    assert model.backbone.is_init
    # the neck's own initialisation still happens
    assert not torch.equal(fresh['lateral_convs.0.conv.weight'], model.neck.state_dict()['lateral_convs.0.conv.weight'])


def test_init_cfg_loads_once_and_after_other_initialisers(tmp_path, theirs, monkeypatch):
    torch.save(theirs, tmp_path / 'x.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    model = EfficientFormer('l1', init_cfg=[pretrained, dict(type='Constant', layer='Conv2d', val=0.0)])
    calls = []
    monkeypatch.setattr(
        'effseg.models.backbone.load_pretrained', lambda *args: calls.append(args) or load_pretrained(*args)
    )
    model.init_weights()
    model.init_weights()
    assert len(calls) == 1
    assert_trunk(model, theirs)


def test_a_half_load_stops_init_weights(tmp_path, theirs):
    torch.save({'model': {'network.0.0.mlp.fc1.weight': torch.ones(192, 48, 1, 1)}}, tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='stem.conv1.weight'):
        segmentor(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))).init_weights()


@pytest.mark.parametrize(
    'init_cfg', [dict(type='Pretrained'), dict(type='Pretrained', checkpoint='x.pth', strict=False)]
)
def test_init_cfg_with_a_wrong_key(init_cfg):
    with pytest.raises(ConfigError, match='checkpoint='):
        EfficientFormer('l1', init_cfg=init_cfg).init_weights()


def released(original_shapes, model, **meta):
    """What the original's ADE20K checkpoints look like: its names for the backbone, MMSegmentation's for the rest."""
    backbone = {
        key: value.float() if value.is_floating_point() else value
        for key, value in random_weights(original_shapes).items()
    }
    rest = {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if not key.startswith('backbone.')
    }
    return {
        'state_dict': {**prefixed(backbone, 'backbone.'), **rest},
        'meta': {'CLASSES': ('a', 'b', 'c', 'd', 'e'), **meta},
    }


@torch.no_grad()
def test_released_segmentor(tmp_path, original_shapes):
    model, plain = segmentor(resolution=16).eval(), segmentor(resolution=16).eval()
    content = released(original_shapes['l1'], model)
    torch.save(content, tmp_path / 'x.pth')
    report = load_segmentor(model, tmp_path / 'x.pth')
    assert (
        not report.missing and not report.interpolated and report.dataset_meta == {'classes': ('a', 'b', 'c', 'd', 'e')}
    )
    # MMSegmentation's own tools load through load_state_dict or MMEngine's form of it
    plain.load_state_dict(content['state_dict'])
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(x), plain(x))
    third = segmentor(resolution=16).eval()
    mmengine_load(third, content['state_dict'], strict=True)
    assert torch.equal(model(x), third(x))
    with pytest.raises(WeightsError, match='model.backbone.resolution=16'):
        load_segmentor(segmentor(), tmp_path / 'x.pth')


SEGMENTERS = {
    'bare': lambda s: s,
    'mmengine': lambda s: {'state_dict': s, 'meta': {'epoch': 0, 'iter': 1}},
    'mmengine, with the weights that were averaged': lambda s: {
        'state_dict': s,
        'ema_state_dict': {
            'steps': torch.tensor(3),
            **prefixed({key: value * 0 for key, value in s.items()}, 'module.'),
        },
    },
    'module.': lambda s: {'state_dict': prefixed(s, 'module.')},
    '_orig_mod.': lambda s: {'state_dict': prefixed(s, '_orig_mod.')},
    'module._orig_mod.': lambda s: {'state_dict': prefixed(s, 'module._orig_mod.')},
    'EMA': lambda s: {
        'state_dict_ema': prefixed(s, 'module.'),
        'state_dict': {key: value * 0 for key, value in s.items()},
    },
    'without counters': lambda s: {'state_dict': {key: value for key, value in s.items() if 'num_batches' not in key}},
    'safetensors': None,
}


@pytest.mark.parametrize('name', SEGMENTERS)
def test_formats_of_a_segmentor(tmp_path, name):
    source, target = segmentor(), segmentor()
    state = source.state_dict()
    path = tmp_path / ('x.safetensors' if name == 'safetensors' else 'x.pth')
    if name == 'safetensors':
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(SEGMENTERS[name](state), path)
    for parameter in target.parameters():
        parameter.data.zero_()
    report = load_segmentor(torch.nn.DataParallel(target), path)
    assert not report.missing and len(report.matched) == len(
        [key for key in state if name != 'without counters' or 'num_batches' not in key]
    )
    assert all(torch.equal(value, state[key]) for key, value in target.state_dict().items())


class Foreign(torch.nn.Module):
    """A backbone of somebody else's, some of whose names are those that ours leave out or translate."""

    def __init__(self):
        super().__init__()
        self.patch_embed, self.norm, self.head = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.BatchNorm2d(8), torch.nn.Module()
        self.head.gamma = torch.nn.Parameter(torch.rand(8, 1, 1))


@pytest.mark.parametrize('place', ['backbone', 'image_encoder'])
def test_the_names_of_other_backbones_are_their_own(tmp_path, place):
    model = segmentor()
    del model.backbone
    setattr(model, place, Foreign())
    torch.save(model.state_dict(), tmp_path / 'x.pth')
    assert not load_segmentor(model, tmp_path / 'x.pth').unexpected


@pytest.mark.parametrize('load', [load_segmentor, lambda model, path: load_pretrained(model.backbone, path)])
def test_the_weights_of_a_fused_network_are_refused(tmp_path, load):
    state = effseg.fuse(segmentor().eval(), size=(64, 64)).state_dict()
    torch.save({'state_dict': state}, tmp_path / 'x.pth')
    target = segmentor()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(WeightsError, match='another network|no segmenter'):
        load(target, tmp_path / 'x.pth')
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_segmentor_that_does_not_fit(tmp_path, theirs):
    model = segmentor()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = segmentor().state_dict()
    cases = {
        'was trained for 7 classes, the config has 5': segmentor(classes=7).state_dict(),
        'another network': without(state, 'neck.fpn_convs.0.conv.weight'),
        'decode_head.conv_seg.weight is (5, 1, 1, 1) in the file': {
            **state,
            'decode_head.conv_seg.weight': state['decode_head.conv_seg.weight'][:, :1],
        },
        'decode_head.conv_seg.bias': without(state, 'decode_head.conv_seg.bias'),
        'auxiliary_head.x': {**state, 'auxiliary_head.x': torch.ones(1)},
        'NaN': {**state, 'decode_head.conv_seg.bias': torch.full((5,), float('nan'))},
        'holds no segmenter': theirs,
    }
    for words, state_dict in cases.items():
        torch.save({'state_dict': state_dict}, tmp_path / 'x.pth')
        with pytest.raises(WeightsError) as caught:
            load_segmentor(model, tmp_path / 'x.pth')
        assert words in str(caught.value) and '\n' not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_new_head_for_other_classes(tmp_path):
    source, target = segmentor(classes=7), segmentor()
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'x.pth')
    report = load_segmentor(target, tmp_path / 'x.pth', new_head=True)
    assert set(report.missing) == {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}
    assert torch.equal(
        target.state_dict()['neck.fpn_convs.0.conv.weight'], source.state_dict()['neck.fpn_convs.0.conv.weight']
    )


@pytest.mark.parametrize('arch', ['l1', 'l3', 'l7'])
def test_every_original_name_has_its_place(original_shapes, arch):
    with torch.device('meta'):
        model = EfficientFormer(arch, resolution=16)
        state = {key: torch.empty(shape) for key, shape in original_shapes[arch].items()}
    assert not any(model.load_state_dict(state, assign=True))
