"""What only a GPU shows. The same bodies run on the CPU, in small, so that they are known to run at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
from ade20k import write_ade20k
from networks import TINY, segmenter

from effseg.benchmark.throughput import compare_on_device, time_loading
from effseg.errors import ConfigError
from effseg.fusion.labels import Resize, label_map, near_ties

ROOT = Path(__file__).parents[2]
L1 = str(ROOT / 'configs/fpn_effformer_l1_ade20k.py')
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU here')
CUDA = pytest.param('cuda', marks=[pytest.mark.gpu, NO_GPU])
ON_BOTH = pytest.mark.parametrize('device', ['cpu', CUDA])
pytestmark = pytest.mark.medium


def batch_of(count: int, side: int) -> dict:
    """Images of two halves, and their labels, as a loader gives them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, side, side, dtype=torch.long)
    labels[:, :, side // 2 :] = 1
    images = [torch.randint(0, 60, (3, side, side), dtype=torch.uint8) + 150 * labels.byte() for _ in range(count)]
    return dict(inputs=images, data_samples=[SegDataSample(gt_sem_seg=PixelData(data=labels)) for _ in images])


@ON_BOTH
def test_a_step_in_mixed_precision_and_channels_last(device):
    from mmengine.registry import OPTIM_WRAPPERS

    side = 512 if device == 'cuda' else 64
    losses = {}
    for kind in ('OptimWrapper', 'AmpOptimWrapper' if device == 'cuda' else 'CPUAmpOptimWrapper'):
        torch.manual_seed(0)
        model = segmenter(resolution=3).to(device, memory_format=torch.channels_last).train()
        model.data_preprocessor.size = (side, side)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        wrapper = OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer))
        torch.manual_seed(0)
        batch = batch_of(4, side)
        torch.manual_seed(0)
        losses[kind] = [float(model.train_step(batch, wrapper)['loss']) for _ in range(8)]
        convs = [module.weight for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convs)
        assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in convs)
    exact, mixed = losses.values()
    assert mixed[0] == pytest.approx(exact[0], rel=0.02) and mixed[0] != exact[0]
    assert mixed[-1] < 0.9 * mixed[0] and exact[-1] < 0.9 * exact[0]


def normalise_together(rank: int, world: int, device: str, folder: str) -> None:
    """A SyncBatchNorm that sees its process's share of a batch beside a BatchNorm that sees the whole."""
    if device == 'cuda':  # on a CPU it is a BatchNorm, and refuses to be more
        place = f'file://{folder}/join'
        torch.distributed.init_process_group('nccl', init_method=place, rank=rank, world_size=world)
    where = f'cuda:{rank}' if device == 'cuda' else 'cpu'
    torch.manual_seed(0)
    batch = torch.randn(2 * world, 4, 9, 9) * 3 + 1
    whole = batch.clone().requires_grad_()
    share = batch[2 * rank : 2 * rank + 2].to(where).requires_grad_()
    norm, shared = torch.nn.BatchNorm2d(4), torch.nn.SyncBatchNorm(4).to(where)
    (norm(whole) ** 3).sum().backward()
    (shared(share) ** 3).sum().backward()
    close = dict(rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shared.running_var.cpu(), norm.running_var, **close)
    torch.testing.assert_close(shared.running_mean.cpu(), norm.running_mean, **close)
    torch.testing.assert_close(share.grad.cpu(), whole.grad[2 * rank : 2 * rank + 2], **close)
    if device == 'cuda':
        torch.distributed.destroy_process_group()


@ON_BOTH
def test_sync_bn_normalises_by_the_whole_batch(device, tmp_path):
    if device == 'cpu':
        return normalise_together(0, 1, device, str(tmp_path))
    world = torch.cuda.device_count()
    torch.multiprocessing.spawn(normalise_together, (world, device, str(tmp_path)), nprocs=world)


@pytest.mark.slow
@ON_BOTH
def test_resumes_bit_equal_with_deterministic_kernels(device, scenes, tmp_path):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = {**os.environ, 'CUBLAS_WORKSPACE_CONFIG': ':4096:8', 'PYTHONPATH': paths}
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''

    def train(name, *options, more=()):
        command = [sys.executable, ROOT / 'tools/train.py', TINY, '--work-dir', tmp_path / name, '--no-data-check']
        settings = ['--cfg-options', 'randomness.deterministic=True', 'val_cfg=None', 'val_dataloader=None']
        settings += ['val_evaluator=None', 'default_hooks.checkpoint.save_best=None', *options]
        done = subprocess.run([*map(str, command), *more, *settings], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    train('whole')
    train('cut', 'train_cfg.max_iters=4')
    train('cut', more=['--resume'])
    first, second = (torch.load(tmp_path / name / 'iter_8.pth', weights_only=True) for name in ('whole', 'cut'))
    assert all(torch.equal(value, second['state_dict'][key]) for key, value in first['state_dict'].items())


@ON_BOTH
def test_labels_are_those_of_resized_logits(device):
    logits = torch.randn(2, 150, 32, 40).to(device)
    resized = torch.nn.functional.interpolate(logits, size=(128, 160), mode='bilinear')
    differ = label_map(logits, [Resize(128, 160)]) != resized.argmax(1)
    assert not (differ & ~near_ties(resized, 1e-5)).any()


def check_rows(rows, expected: int, exact: float = 0.999) -> None:
    """
    Args:
        exact: how many labels of float32 have to be predict's; on a GPU, whose convs round to TF32 and differ from one
            batch to another, fewer near-ties of random weights are alike.
    """
    assert len(rows) == expected
    for row in rows:
        assert row['rate'] > 0 and (row['peak'] is None or row['peak'] >= 0)
        stock = next(one for one in rows if (one['precision'], one['batch']) == (row['precision'], row['batch']))
        assert stock['network'] == 'MMSegmentation predict'
        # a coarser precision may exchange labels that were nearly ties, in the fused network as in the other
        assert row['agreement'] > (exact if row['precision'] == 'fp32' else stock['agreement'] - 0.05), row


@ON_BOTH
def test_fused_beside_stock_in_every_precision(device, scenes, capsys):
    config, size, batches, runs = (L1, (512, 512), (1, 8), 20) if device == 'cuda' else (TINY, (64, 64), (1, 2), 1)
    rows = compare_on_device(config, device=device, size=size, batches=batches, runs=runs)
    check_rows(rows, 12, exact=0.99 if device == 'cuda' else 0.999)
    printed = capsys.readouterr().out
    assert printed.count('images/s') == 12 and (device == 'cpu' or torch.cuda.get_device_name() in printed)
    print(printed)


@pytest.mark.slow
@ON_BOTH
def test_fused_under_compile(device, scenes):
    config, size, batches, precision = (L1, (512, 512), (1, 8), 'fp16')
    if device == 'cpu':
        config, size, batches, precision = TINY, (32, 32), (1,), 'fp32'
    rows = compare_on_device(config, None, device, [precision], batches, size, runs=3, compiled=True)
    check_rows(rows, 3 * len(batches))


@ON_BOTH
def test_loading_of_data_like_ade20k(device, tmp_path, monkeypatch):
    monkeypatch.setenv('ADE20K_ROOT', str(tmp_path))
    options = {'model.backbone.init_cfg': None}
    if device == 'cuda':
        write_ade20k(tmp_path, train=64, size=(512, 683))
        rate, shape = time_loading(L1, device, batches=50, cfg_options=options)
        assert shape[1:] == (3, 512, 512) and rate > 1
        return
    write_ade20k(tmp_path, train=4)
    options |= {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False}
    options |= {'train_dataloader.batch_size': 2, 'model.data_preprocessor.size': (128, 128)}
    options |= {'train_dataloader.dataset.pipeline.2.scale': (512, 128)}
    options |= {'train_dataloader.dataset.pipeline.3.crop_size': (128, 128)}
    rate, shape = time_loading(L1, device, batches=2, cfg_options=options)
    assert shape == (2, 3, 128, 128) and rate > 0
    with pytest.raises(ConfigError, match='1 or more'):
        time_loading(L1, device, batches=0, cfg_options=options)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match='--device cuda cannot be used'):
            time_loading(L1, 'cuda', cfg_options=options)


def test_a_batch_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match='--batch 0 8 came'):
        compare_on_device(TINY, device='cpu', batches=(0, 8))
