"""Segmenters that are not of this project, through every tool behind a training."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomise
from networks import TINY
from PIL import Image

from effseg import hub
from effseg.apis.opening import open_segmenter

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('scenes')]

MODELS = {
    'SegFormer': """
    backbone=dict(
        _delete_=True, type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 1, 1],
        patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], mlp_ratio=2),
    neck=None,
    decode_head=dict(
        _delete_=True, type='SegformerHead', in_channels=[8] * 4, in_index=[0, 1, 2, 3], channels=16, num_classes=8,
        norm_cfg=dict(type='BN'), align_corners=False, loss_decode=dict(type='CrossEntropyLoss')),
""",
    'FCN behind ResNet': """
    backbone=dict(_delete_=True, type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN')),
    neck=None,
    decode_head=dict(
        _delete_=True, type='FCNHead', in_channels=64, in_index=3, channels=16, num_convs=1, num_classes=8,
        norm_cfg=dict(type='BN'), align_corners=True, loss_decode=dict(type='CrossEntropyLoss')),
""",
}


@pytest.fixture(scope='module', params=MODELS)
def foreign(request, scenes, tmp_path_factory):
    """A config and a checkpoint."""
    folder = tmp_path_factory.mktemp('foreign')
    config = folder / 'foreign.py'
    preprocessor = 'data_preprocessor=dict(size=(128, 128)),'
    config.write_text(f'_base_ = [{TINY!r}]\nmodel = dict(\n    {preprocessor}{MODELS[request.param]})\n')
    model = randomise(open_segmenter(str(config), device='cpu').trained).float()
    torch.save({'state_dict': model.state_dict()}, folder / 'foreign.pth')
    return config, folder / 'foreign.pth'


def done(outcome):
    assert outcome.status == 0, outcome
    return outcome.out


def score(text):
    return float(re.search(r'mIoU ([\d.]+)', text)[1])


@pytest.fixture(scope='module')
def exported(foreign, scenes):
    """Files by name: of logits, of labels, in int8."""
    import effseg

    config, checkpoint = foreign
    files = {}
    for output, precision in (('logits', 'fp32'), ('labels', 'fp32'), ('logits', 'int8')):
        path = checkpoint.with_name(f'{output}_{precision}.onnx')
        effseg.export(
            str(config),
            str(checkpoint),
            'onnx',
            size=(128, 128),
            output=output,
            precision=precision,
            calibration=4,
            path=str(path),
            keep_inaccurate=True,
        )
        files[f'{output}-{precision}'] = path
    return files


def test_scores(tool, foreign, exported, tmp_path):
    config, checkpoint = foreign
    own = score(done(tool('test', config, checkpoint, '--work-dir', tmp_path)))
    assert score(done(tool('test', config, checkpoint, '--work-dir', tmp_path, '--fused'))) == pytest.approx(
        own, abs=0.02
    )
    logits, labels = (
        score(done(tool('test', config, exported[name], '--work-dir', tmp_path)))
        for name in ('logits-fp32', 'labels-fp32')
    )
    # logits are decided at the photo's size and without the cells behind its edge, which at stride 32 are coarse
    assert logits == pytest.approx(labels, abs=1) and logits > 0


def test_predicts(tool, foreign, exported, scenes, tmp_path):
    config, checkpoint = foreign
    for number, weights in enumerate((checkpoint, *exported.values())):
        done(tool('predict', config, weights, scenes / 'images' / 'val', '--out-dir', tmp_path / str(number)))
        maps = list((tmp_path / str(number)).glob('*_labels.png'))
        assert len(maps) == 2 and all(np.array(Image.open(path)).max() < 8 for path in maps)


def test_is_reported_side_by_side(tool, foreign, exported, tmp_path):
    config, checkpoint = foreign
    done(
        tool(
            'report', config, checkpoint, exported['logits-fp32'], exported['logits-int8'], '--fused', '--out', tmp_path
        )
    )
    (page,) = tmp_path.glob('*.html')
    assert all(name in page.read_text() for name in ('logits_fp32.onnx', 'logits_int8.onnx'))


def test_stands_in_the_browser_page(exported, tmp_path):
    from effseg.errors import MissingRuntimeError
    from effseg.web import runtime
    from effseg.web.site import write_site

    try:
        package = str(runtime.package())
    except MissingRuntimeError as error:
        pytest.skip(str(error))
    site = write_site(str(exported['labels-fp32']), str(tmp_path / 'site'), package)
    assert json.loads((Path(site) / 'spec.json').read_text())['height'] == 128


def test_comes_back_from_the_hub(tool, foreign, tmp_path):
    config, checkpoint = foreign
    done(tool('hub', 'save', config, checkpoint, tmp_path / 'hub'))
    own, model = (
        open_segmenter(str(config), str(checkpoint), device='cpu').trained,
        hub.load(str(tmp_path / 'hub'), 'cpu'),
    )
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        assert torch.equal(own(x, mode='tensor'), model(x, mode='tensor'))
