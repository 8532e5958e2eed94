"""What a config may write as ``arch``, and what is said of the rest."""

import pytest
import torch

pytest.importorskip('mmseg')
from effseg.errors import ConfigError
from effseg.models import EfficientFormer, EfficientFormerV2
from effseg.models.arch import resolve_arch

TINY = dict(depths=(1, 1, 2, 2), embed_dims=(8, 8, 16, 16), num_vit=1)
HIDDEN = ((8,), (24,), (32, 20), (1, 64))


@pytest.mark.parametrize('backbone', [EfficientFormer, EfficientFormerV2])
def test_hidden_widths_are_of_each_block(backbone):
    model = backbone(dict(TINY, hidden_dims=HIDDEN))
    found = [[block.mlp.fc2 for block in stage.blocks if hasattr(block, 'mlp')] for stage in model.stages]
    widths = [[(getattr(fc2, 'conv', fc2)).weight.shape[1] for fc2 in stage] for stage in found]
    assert widths == [list(stage) for stage in HIDDEN]
    assert model.arch.as_config() == dict(
        depths=(1, 1, 2, 2),
        embed_dims=(8, 8, 16, 16),
        num_vit=(0, 0, 1 if backbone is EfficientFormerV2 else 0, 1),
        hidden_dims=HIDDEN,
    )
    again = backbone(model.arch.as_config())
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for got, expected in zip(again.eval()(x), model.eval()(x)):
            torch.testing.assert_close(got, expected)


def test_attention_may_differ_by_stage():
    model = EfficientFormerV2(dict(TINY, num_vit=(0, 0, 0, 2)))
    assert [[block.token_mixer is not None for block in stage.blocks] for stage in model.stages] == [
        [False],
        [False],
        [False, False],
        [True, True],
    ]


def test_a_hidden_width_is_rounded():
    ratio = 240 / 176
    assert int(176 * ratio) == 239  # what this is about
    arch = dict(depths=(0, 0, 0, 1), embed_dims=(8, 8, 8, 176), num_vit=0, mlp_ratios=((), (), (), (ratio,)))
    assert resolve_arch(arch, {}, (3,)).hidden_dims[3] == (240,)


@pytest.mark.parametrize(
    'change, said',
    [
        (dict(depths=(1, 1, 2)), r'arch.depths=\(1, 1, 2\)'),
        (dict(depths=(1, 1, 2, -1)), 'arch.depths'),
        (dict(depths=(1, 1, 2, 2.0)), 'arch.depths'),
        (dict(depths=None), 'arch.depths=None'),
        (dict(embed_dims=(8, 8, 16, 0)), 'arch.embed_dims'),
        (dict(embed_dims='wide'), "arch.embed_dims='wide'"),
        (dict(num_vit=3), r'arch.num_vit=3 .* at most \(0, 0, 2, 2\)'),
        (dict(num_vit=(1, 0, 0, 0)), 'arch.num_vit'),
        (dict(num_vit=True), 'arch.num_vit=True'),
        (dict(mlp_ratios=((4,), (4,), (4,), (4, 4))), r'arch.mlp_ratios.*the lengths \(1, 1, 2, 2\)'),
        (dict(mlp_ratios=((4,), (4,), (4, 4), (4, 0.01))), '0.01'),
        (dict(mlp_ratios=((4,), (4,), (4, 4), (4, float('nan')))), 'nan'),
        (dict(mlp_ratios=((4,), (4,), (4, 4), (4, '4'))), "'4'"),
        (dict(hidden_dims=((8,), (8,), (8, 8), (8, 8.0))), '8.0'),
        (dict(hidden_dims=7), 'arch.hidden_dims=7'),
        (dict(hidden_dims=HIDDEN, mlp_ratios=((4,), (4,), (4, 4), (4, 4))), 'at most one'),
        (dict(widths=(8,)), 'widths'),
    ],
)
def test_what_makes_no_network_is_said(change, said):
    with pytest.raises(ConfigError, match=said):
        EfficientFormerV2({**TINY, **change})


@pytest.mark.parametrize('arch', [None, 3, ['s0']])
def test_an_arch_of_another_kind_is_said(arch):
    with pytest.raises(ConfigError, match="'s0'.* or a dict was expected"):
        EfficientFormerV2(arch)
