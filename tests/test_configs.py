"""Every shipped config is whole, short, and builds."""

import subprocess
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import nn

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
MMSEG_CONFIGS = Path(mmseg.__file__).parent / '.mim/configs'
ADE20K = [path for path in CONFIGS if 'ade20k' in path.name]
# arch: (channels, published mIoU)
PUBLISHED = {
    'l1': ([48, 96, 224, 448], '38.9'),
    'l3': ([64, 128, 320, 512], '43.5'),
    'l7': ([96, 192, 384, 768], '45.1'),
}


def read(path: Path) -> Config:
    init_default_scope('mmseg')
    return Config.fromfile(str(path))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
class TestEveryConfig:
    def test_is_short_and_complete_in_itself(self, path):
        text = path.read_text()
        assert len(text.splitlines()) <= 25
        assert 'mmseg::' not in text

    def test_names_its_data_root_once(self, path):
        cfg = read(path)
        roots = {cfg[f'{split}_dataloader'].dataset.data_root for split in ('train', 'val', 'test')}
        assert roots == {cfg.data_root}

    def test_ignores_one_label_everywhere(self, path):
        cfg = read(path)
        ignored = {
            cfg.model.decode_head.get('ignore_index', 255),
            cfg.model.data_preprocessor.seg_pad_val,
            cfg.test_evaluator.get('ignore_index', 255),
            cfg.val_evaluator.get('ignore_index', 255),
        }
        ignored |= {step.get('ignore_index', 255) for step in cfg.train_pipeline if step.type == 'RandomCrop'}
        assert len(ignored) == 1

    @pytest.mark.medium
    def test_builds_and_runs(self, path):
        cfg = read(path)
        cfg.model.backbone.pop('init_cfg', None)
        with torch.device('meta'):  # shapes alone
            model = MODELS.build(cfg.model)
        synced = any(isinstance(layer, nn.SyncBatchNorm) for layer in model.modules())
        assert synced == ('ade20k' in path.name)  # the form of several GPUs
        model = revert_sync_batchnorm(model).eval()  # what MMEngine does in a single process
        with torch.no_grad():
            logits = model(torch.zeros(1, 3, 64, 96, device='meta'), mode='tensor')
        stride = 8 if path.name.startswith('evit') else 4
        assert logits.shape == (1, cfg.model.decode_head.num_classes, 64 // stride, 96 // stride)

    def test_classes_fit_the_head(self, path):
        cfg = read(path)
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, lazy_init=True, pipeline=[]))
        assert len(dataset.metainfo['classes']) == cfg.model.decode_head.num_classes
        assert len(dataset.metainfo['palette']) == cfg.model.decode_head.num_classes


@pytest.mark.parametrize('arch', PUBLISHED)
def test_ade20k_follows_the_reference_recipe(arch):
    path = ROOT / f'configs/fpn_effformer_{arch}_ade20k.py'
    cfg, (channels, published) = read(path), PUBLISHED[arch]
    assert f'Published: {published} mIoU' in path.read_text()
    assert cfg.model.neck.in_channels == channels
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-4, weight_decay=1e-4)
    assert cfg.param_scheduler == [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False)]
    assert cfg.train_dataloader.batch_size == 4 and cfg.train_cfg.max_iters == 40000
    assert cfg.model.backbone.init_cfg.checkpoint == f'timm/efficientformer_{arch}.snap_dist_in1k'


@pytest.mark.parametrize(
    'arch, channels, drop_path_rate, published',
    [
        ('s0', [32, 48, 96, 176], 0.0, '33.4 mIoU, by PaddleSeg'),
        ('s1', [32, 48, 120, 224], 0.0, 'no mIoU'),
        ('s2', [32, 64, 144, 288], 0.02, '42.4 mIoU'),
        ('l', [40, 80, 192, 384], 0.1, '45.2 mIoU'),
    ],
)
def test_ade20k_of_the_second_generation_follows_its_recipe(arch, channels, drop_path_rate, published):
    path = ROOT / f'configs/fpn_effformerv2_{arch}_ade20k.py'
    cfg = read(path)
    assert f'Published: {published}' in path.read_text()
    assert cfg.model.neck.in_channels == channels
    assert (
        cfg.model.backbone.type == 'EfficientFormerV2'
        and cfg.model.backbone.get('drop_path_rate', 0.0) == drop_path_rate
    )
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-4, weight_decay=1e-4)
    assert cfg.param_scheduler == [dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=0, end=40000, by_epoch=False)]
    assert cfg.train_dataloader.batch_size == 4 and cfg.train_cfg.max_iters == 40000
    # the BatchNorms are trained, and made SyncBN by MMEngine where there are several processes
    assert not cfg.model.backbone.get('norm_eval') and cfg.sync_bn == 'torch'
    assert cfg.model.backbone.init_cfg.checkpoint == f'timm/efficientformerv2_{arch}.snap_dist_in1k'


@pytest.mark.parametrize(
    'name, channels',
    [
        ('effformer_l1', [48, 96, 224, 448]),
        ('effformer_l3', [64, 128, 320, 512]),
        ('effformer_l7', [96, 192, 384, 768]),
        ('effformerv2_s0', [32, 48, 96, 176]),
        ('effformerv2_s1', [32, 48, 120, 224]),
        ('effformerv2_s2', [32, 64, 144, 288]),
        ('effformerv2_l', [40, 80, 192, 384]),
    ],
)
def test_ade20k_with_the_all_mlp_head_follows_segformer(name, channels):
    path = ROOT / f'configs/mlp_{name}_ade20k.py'
    cfg, semantic_fpn = read(path), read(ROOT / f'configs/fpn_{name}_ade20k.py')
    theirs = Config.fromfile(str(MMSEG_CONFIGS / 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'))
    assert 'Published: no mIoU' in path.read_text()
    assert cfg.model.neck is None
    assert cfg.model.backbone == semantic_fpn.model.backbone
    expected = dict(theirs.model.decode_head, in_channels=channels, act_cfg=None)
    assert cfg.model.decode_head == expected
    assert cfg.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.items() <= theirs.optim_wrapper.paramwise_cfg.custom_keys.items()
    assert cfg.param_scheduler == theirs.param_scheduler
    assert cfg.train_cfg.max_iters == theirs.train_cfg.max_iters == 160000
    assert cfg.train_dataloader.batch_size * 4 == theirs.train_dataloader.batch_size * 8  # GPUs


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('dwmlp_*')), ids=lambda path: path.stem)
def test_the_depthwise_head_is_all_that_differs_from_the_all_mlp_head(path):
    cfg, plain = read(path), read(path.with_name(path.name.removeprefix('dw')))
    head = dict(plain.model.decode_head, type='DepthwiseSegformerHead', channels=128)
    assert cfg.model == dict(plain.model, decode_head=head)
    assert {key for key in cfg if cfg[key] != plain[key]} == {'model'}


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('evit_*')), ids=lambda path: path.stem)
def test_the_head_is_all_that_differs_with_efficientvits(path):
    cfg, plain = read(path), read(path.with_name(path.name.replace('evit_', 'mlp_')))
    head, other = cfg.model.decode_head, plain.model.decode_head
    assert (head.type, head.width, head.channels) == ('EfficientViTHead', 96, 384)
    assert head.in_channels == other.in_channels[1:] and head.in_index == other.in_index[1:]
    for key in ('num_classes', 'norm_cfg', 'loss_decode', 'align_corners'):
        assert head[key] == other[key]
    assert cfg.model == dict(plain.model, decode_head=head)
    assert {key for key in cfg if cfg[key] != plain[key]} == {'model'}


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_mmsegmentation_takes_our_config(tool, tmp_path):
    """Its own command-line tools, in a process of their own, get as far as the missing data."""
    script = Path(mmseg.__file__).parent / '.mim/tools' / f'{tool}.py'
    arguments = [str(ROOT / 'configs/fpn_effformer_l1_ade20k.py'), *(['none.pth'] if tool == 'test' else [])]
    result = subprocess.run(
        [
            sys.executable,
            str(script),
            *arguments,
            '--work-dir',
            str(tmp_path),
            '--cfg-options',
            'model.backbone.init_cfg=None',
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert 'EfficientFormer' in result.stdout + result.stderr  # the dumped config or model
    assert 'ADEChallengeData2016' in result.stderr
