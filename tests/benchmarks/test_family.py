"""The table of all models: every model is in it, and its figures are of the network that is timed."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg')
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from effseg.benchmarks.family import compare_family, shipped_models
from effseg.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / 'configs'


def test_all_seven_models_in_order():
    names = [path.stem for path in shipped_models(CONFIGS)]
    assert names == [
        f'fpn_{name}_ade20k'
        for name in (
            'effformer_l1',
            'effformer_l3',
            'effformer_l7',
            'effformerv2_s0',
            'effformerv2_s1',
            'effformerv2_s2',
            'effformerv2_l',
        )
    ]


def test_a_line_says_what_the_model_weighs_and_takes(random_stats, capsys):
    init_default_scope('mmseg')
    model = random_stats(
        MODELS.build(
            ConfigDict(
                type='EncoderDecoder',
                test_cfg=dict(mode='whole'),
                backbone=dict(
                    type='EfficientFormerV2',
                    arch=dict(depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_vit=1, mlp_ratios=((2,),) * 4),
                ),
                neck=dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=32, num_outs=4),
                decode_head=dict(
                    type='FPNHead',
                    in_channels=[32] * 4,
                    in_index=[0, 1, 2, 3],
                    feature_strides=[4, 8, 16, 32],
                    channels=32,
                    num_classes=5,
                    norm_cfg=dict(type='BN'),
                ),
            )
        )
    ).float()
    compare_family([('small', model)], (64, 64), runs=2)
    _, header, line = capsys.readouterr().out.splitlines()
    assert header.split()[0] == 'model' and 'GMAC' in header
    name, parameters, macs, fused_macs, trained, fused, ratio, threads = line.split()
    assert name == 'small' and threads == '1'
    assert float(parameters) == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e6, abs=0.05)
    assert float(fused_macs) <= float(macs)
    assert float(ratio) > 0


def test_refuses_what_it_cannot_time():
    from effseg.apis.benchmark import benchmark_family

    with pytest.raises(ConfigError):
        benchmark_family((64, 64), runs=0)
