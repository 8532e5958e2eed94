import copy

import pytest
import timm
import torch
from original import random_weights
from safetensors.torch import save_file
from torch import nn

from effseg.checkpoint.load import load_pretrained
from effseg.deploy.backends.onnx import suited
from effseg.errors import ConfigError, WeightsError
from effseg.models import EfficientFormerV2
from effseg.models.attention_bias import resize_table

from .contract import EXACT, BackboneContract, image, randomised, smallest_by_default


class TestEfficientFormerV2(BackboneContract):
    backbone = EfficientFormerV2
    archs = ('s0', 's1', 's2', 'l')
    timm_name = 'efficientformerv2_{arch}'
    published = {'s0': (3.5, 0.40), 's1': (6.1, 0.65), 's2': (12.6, 1.25), 'l': (26.1, 2.56)}
    tiny = dict(depths=(1, 1, 2, 2), embed_dims=(8, 8, 16, 16), num_vit=1, mlp_ratios=((2,), (2,), (2, 3), (3, 2)))

    @pytest.fixture(params=archs)
    def arch(self, request):
        return request.param

    @pytest.fixture(params=smallest_by_default(archs))
    def arch_run(self, request):
        return request.param

    @pytest.mark.parametrize('size', [(64, 64), (96, 160), (224, 96), (65, 129), (31, 33)])
    @torch.no_grad()
    def test_fused_backbone_is_equal_and_keeps_no_norm(self, small, size):
        fused = small.fuse(size)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
        portable = copy.deepcopy(fused).set_portable()
        for form in (fused, portable, suited(portable, 'fp32')):
            for other in (size, (64, 96)):  # stored for one size, computed for others
                x = image(*other, batch=2)
                for got, expected in zip(form(x), small(x), strict=True):
                    torch.testing.assert_close(got, expected, **EXACT)

    @torch.no_grad()
    def test_fused_with_other_options(self):
        for options in (
            dict(act='ReLU'),
            dict(act='HardSwish', bias_resize='hold'),
            dict(bias_resize='matrix', resolution=3),
        ):
            model = randomised(EfficientFormerV2(self.tiny, **options))
            x = image(96, 64)
            for got, expected in zip(model.fuse((96, 64))(x), model(x), strict=True):
                torch.testing.assert_close(got, expected, **EXACT)

    @torch.no_grad()
    def test_output_norm_is_optional(self):
        model = randomised(EfficientFormerV2(self.tiny, out_norm=dict(type='GN', num_groups=1)))
        fused = model.fuse((64, 64))
        for got, expected in zip(fused(image(64, 64)), model(image(64, 64)), strict=True):
            torch.testing.assert_close(got, expected, **EXACT)

    def test_mlp_ratios_need_one_number_per_block(self):
        with pytest.raises(ConfigError, match='mlp_ratios'):
            EfficientFormerV2(dict(self.tiny, mlp_ratios=((2,), (2,), (2,), (3, 2))))

    def test_attention_reaches_the_map_it_is_added_to(self, small):
        """An odd map: the strided one is upsampled to it, not to the next even size."""
        x = image(16 * 5, 16 * 7)
        seen = {}
        hook = (
            small.stages[2]
            .blocks[-1]
            .token_mixer.register_forward_hook(lambda module, args, out: seen.update(shape=out.shape))
        )
        with torch.no_grad():
            small(x)
        hook.remove()
        assert seen['shape'][2:] == (5, 7)


def test_every_original_name_has_its_place(original_shapes, arch_name):
    with torch.device('meta'):
        model = EfficientFormerV2(arch_name, resolution=16)
        state = {key: torch.empty(shape) for key, shape in original_shapes[arch_name].items()}
    assert not any(model.load_state_dict(state, assign=True))


@pytest.fixture(params=TestEfficientFormerV2.archs)
def arch_name(request):
    return request.param


@pytest.mark.parametrize('bias_resize', ['interpolate', 'hold'])
def test_weights_from_the_hub_are_carried_over(tmp_path, bias_resize):
    theirs = randomised(timm.create_model('efficientformerv2_s0')).float().state_dict()
    save_file(theirs, tmp_path / 'model.safetensors')
    model = EfficientFormerV2(
        's0',
        resolution=16,
        bias_resize=bias_resize,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors')),
    )
    report = load_pretrained(model, tmp_path / 'model.safetensors')
    tables = [key for key in theirs if key.endswith('attention_biases')]
    assert set(report.interpolated) == set(tables) and len(tables) == 5 and not report.missing
    between = 'stages.3.downsample.attn.attention_biases'
    assert torch.equal(model.get_parameter(between), resize_table(theirs[between], (14, 14), (32, 32), bias_resize))
    for key, value in model.state_dict().items():
        assert key in tables or torch.equal(value, theirs[key])
    fresh = EfficientFormerV2('s0', resolution=16, bias_resize=bias_resize, init_cfg=model.init_cfg)
    fresh.init_weights()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in fresh.state_dict().items())


def test_original_weights_go_through_the_loader(tmp_path, original_shapes):
    weights = random_weights(original_shapes['s0'])
    torch.save(
        {
            'model': {
                **weights,
                'norm.weight': torch.ones(176),
                'norm.bias': torch.ones(176),
                'dist_head.weight': torch.ones(3, 176),
                'head.weight': torch.ones(3, 176),
            }
        },
        tmp_path / 'x.pth',
    )
    model, plain = (EfficientFormerV2('s0', resolution=16).double() for _ in range(2))
    report = load_pretrained(model, tmp_path / 'x.pth')
    assert not report.missing and not report.interpolated
    plain.load_state_dict(weights)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('other', ['efficientformerv2_s1', 'efficientformer_l1'])
def test_another_architecture_is_refused(tmp_path, other):
    torch.save(timm.create_model(other).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(WeightsError, match='another network'):
        load_pretrained(EfficientFormerV2('s0'), tmp_path / 'x.pth')
