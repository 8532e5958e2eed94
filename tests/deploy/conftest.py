"""A two-block segmenter of three classes, real pictures, and runtimes that are skipped where a user has none."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from effseg.deploy.images import fit
from effseg.deploy.spec import Spec

CAMVID = Path(os.environ.get('CAMVID_ROOT') or Path(__file__).parents[3] / 'shared' / 'data' / 'camvid')
SIZE = (64, 96)
MODULES = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'executorch': ('executorch',),
    'coreml': ('coremltools',),
    'litert': ('litert_torch', 'ai_edge_litert', 'ai_edge_quantizer'),
}


def need(runtime: str) -> None:
    """Skips where a runtime is missing; fails in CI, which installs them all."""
    missing = [module for module in MODULES[runtime] if importlib.util.find_spec(module) is None]
    if missing and os.environ.get('CI'):
        pytest.fail(f'{missing} must be installed in CI')
    if missing:
        pytest.skip(f"needs pip install 'effseg[{runtime}]'")


@pytest.fixture(scope='session')
def model(random_stats):
    """MMSegmentation's model around two EfficientFormer blocks, one pooling and one attending, with lived-in
    statistics."""
    pytest.importorskip('mmseg')
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    dims = (8, 12, 16, 24)
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='EfficientFormer', arch=dict(depths=(1, 0, 0, 1), embed_dims=dims, num_vit=1), resolution=3
            ),
            neck=dict(type='FPN', in_channels=list(dims), out_channels=16, num_outs=4),
            decode_head=dict(
                type='FPNHead',
                in_channels=[16] * 4,
                in_index=[0, 1, 2, 3],
                feature_strides=[4, 8, 16, 32],
                channels=12,
                num_classes=3,
                norm_cfg=dict(type='BN'),
                align_corners=False,
            ),
            test_cfg=dict(mode='whole'),
        )
    )
    return random_stats(model).float()


@pytest.fixture(scope='session')
def fused(model):
    import effseg

    return effseg.fuse(model, size=SIZE).exportable()


@pytest.fixture(scope='session')
def images() -> list[np.ndarray]:
    """Six images of :data:`SIZE`: street scenes where they are at hand, drawn ones elsewhere."""
    from PIL import Image

    files = sorted((CAMVID / 'images' / 'val').glob('*'))[:6]
    if not files and os.environ.get('CI'):
        pytest.fail(f'no images at {CAMVID}')
    if files:
        pictures = [np.asarray(Image.open(file).convert('RGB')) for file in files]
    else:
        from effseg.demo.scenes import draw_scene

        pictures = [draw_scene((120, 160), np.random.default_rng(seed))[0] for seed in range(6)]
    return [fit(picture, SIZE, number, (124, 116, 104)) for number, picture in enumerate(pictures)]


@pytest.fixture
def make_spec():
    return spec_of


def spec_of(
    backend: str, output: str = 'logits', precision: str = 'fp32', size: tuple[int, int] = SIZE, classes: int = 3
) -> Spec:
    return Spec(
        backend=backend,
        height=size[0],
        width=size[1],
        output=output,
        precision=precision,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        classes=[f'class {i}' for i in range(classes)],
        palette=[(i, i, i) for i in range(classes)],
        checkpoint_sha256='0' * 64,
        effseg='0',
    )


@pytest.fixture(autouse=True)
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
