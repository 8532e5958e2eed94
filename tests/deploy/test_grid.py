"""Logits of any size: heads that decide at an eighth and at a thirty-second of the image."""

import numpy as np
import pytest
import torch

import effseg
from effseg import deploy
from effseg.deploy import backends
from effseg.deploy.program import Unfused
from effseg.deploy.reference import Reference

from .conftest import MEAN, SIZE, STD, need, spec_of

DIMS = (8, 12, 16, 24)
HEADS = {
    8: dict(type='SegformerHead', in_channels=list(DIMS[1:]), in_index=[1, 2, 3], act_cfg=None),
    32: dict(type='FCNHead', in_channels=24, in_index=3, num_convs=1),
}


def segmenter(stride: int) -> torch.nn.Module:
    pytest.importorskip('mmseg')
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True),
            backbone=dict(
                type='EfficientFormer', arch=dict(depths=(1, 0, 0, 1), embed_dims=DIMS, num_vit=1), resolution=3
            ),
            decode_head=dict(channels=16, num_classes=3, norm_cfg=dict(type='BN'), **HEADS[stride]),
            test_cfg=ConfigDict(mode='whole'),
        )
    )


@pytest.mark.parametrize('output', ['logits', 'labels'])
@pytest.mark.parametrize('stride', HEADS)
def test_the_size_of_the_logits_is_read_off(stride, output, random_stats, images, tmp_path):
    need('onnx')
    model = random_stats(segmenter(stride)).float()
    network = effseg.fuse(model, size=SIZE).exportable() if stride == 8 else Unfused(model)
    with torch.no_grad():
        deploy.export(model, network, spec_of('onnx', output), tmp_path / 'model.onnx', images)
    artifact = deploy.load(tmp_path / 'model.onnx')
    assert artifact.spec.grid == (SIZE[0] // stride, SIZE[1] // stride)
    expected = Reference(model, artifact.spec, images[:1]).labels[0]
    assert (artifact.labels(images[0]) == expected).mean() > 0.999


@pytest.mark.parametrize('runtime', ['executorch', 'litert', 'coreml'])
@pytest.mark.slow
def test_in_the_other_runtimes(runtime, random_stats, images, tmp_path):
    need(runtime)
    model = random_stats(segmenter(32)).float()
    with torch.no_grad():
        done = deploy.export(
            model, Unfused(model), spec_of(runtime), tmp_path / f'model{backends.SUFFIXES[runtime]}', images
        )
    assert done.spec.result_shape == (3, SIZE[0] // 32, SIZE[1] // 32)


@pytest.mark.parametrize('runtime', ['onnx'])
def test_in_the_test_loop(runtime, random_stats, images, tmp_path):
    """An image larger than the file goes through in windows that begin at the logits' own cells."""
    need(runtime)
    from mmengine.config import Config

    from effseg.segmentors.artifact import artifact_segmentor

    model = random_stats(segmenter(32)).float()
    with torch.no_grad():
        deploy.export(model, Unfused(model), spec_of('onnx'), tmp_path / 'model.onnx', images)
    preprocessor = dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True)
    cfg = Config(dict(model=dict(data_preprocessor=preprocessor, test_cfg=dict(mode='whole'))))
    scorer = artifact_segmentor(cfg, str(tmp_path / 'model.onnx'), 'config').eval()
    assert tuple(scorer.test_cfg.stride) == (32, 64)
    large = torch.from_numpy(np.tile(images[0], (2, 2, 1))[:96, :160, ::-1].copy()).permute(2, 0, 1)
    (sample,) = scorer.predict(scorer.data_preprocessor(dict(inputs=[large], data_samples=None))['inputs'])
    assert sample.pred_sem_seg.data.shape == (1, 96, 160)
