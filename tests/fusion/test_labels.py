"""The label map without full-size logits against resizing the logits and taking the largest."""

import pytest
import torch
import torch.nn.functional as F

from effseg.fusion import labels as label_step
from effseg.fusion.labels import Crop, Resize, axes, label_map, near_ties

STEPS = {
    'up': [Resize(96, 128)],
    'odd': [Resize(75, 130)],
    'same': [Resize(24, 32)],
    'down': [Resize(11, 9)],
    'mmseg': [Resize(96, 128), Crop(0, 0, 96, 115), Resize(150, 211)],
    'padded on all sides': [Resize(96, 128), Crop(3, 5, 80, 111), Resize(150, 211)],
    'up and down': [Resize(96, 128), Crop(0, 0, 90, 120), Resize(17, 23)],
    'down and up': [Resize(10, 12), Resize(60, 61)],
    'mixed': [Resize(96, 20), Resize(40, 90)],
    'one pixel': [Resize(1, 1)],
    'identity last': [Resize(96, 128), Resize(96, 128)],
}


def regions(height=24, width=32, classes=20, batch=2, noise=0.5, seed=0, dtype=torch.float64):
    """Logits of a segmented scene: regions around random centres, noise on top."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(batch, 9, 2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    position = torch.stack([rows, columns], -1).reshape(1, -1, 2).float()
    region = torch.cdist(position, centres).argmin(-1).reshape(batch, height, width)
    ids = torch.randint(classes, (9,), generator=generator)[region]
    logits = F.avg_pool2d(F.one_hot(ids, classes).permute(0, 3, 1, 2).double(), 3, 1, 1) * 8
    return (logits + noise * torch.randn(logits.shape, generator=generator)).to(dtype)


def full_size(logits, steps, align_corners=False):
    for step in steps:
        if isinstance(step, Crop):
            logits = logits[:, :, step.top : step.top + step.height, step.left : step.left + step.width]
        else:
            logits = F.interpolate(logits, size=tuple(step), mode='bilinear', align_corners=align_corners)
    return logits


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('steps', STEPS.values(), ids=STEPS)
def test_equal_to_the_full_computation(steps, align_corners):
    for logits in (
        regions(),
        regions(noise=0),
        regions(classes=2),
        regions(noise=20),
        regions(1, 1),
        regions(1, 7),
        torch.randn(1, 20, 24, 32, generator=torch.Generator().manual_seed(0)).double(),
    ):
        if logits.shape[2] == 1 and any(isinstance(step, Crop) for step in steps):
            logits = F.interpolate(logits, size=(24, 32))
        resized = full_size(logits, steps, align_corners)
        labels = label_map(logits, steps, align_corners)
        assert labels.dtype == torch.int64 and labels.shape == resized[:, 0].shape
        wrong = (labels != resized.argmax(1)) & ~near_ties(resized, 1e-10)
        assert not wrong.any()


@pytest.mark.parametrize('steps', STEPS.values(), ids=STEPS)
def test_single_precision_differs_at_near_ties_only(steps):
    logits = regions(dtype=torch.float32)
    resized = full_size(logits, steps)
    differ = label_map(logits, steps) != resized.argmax(1)
    assert not (differ & ~near_ties(resized, 1e-4)).any()
    assert differ.sum() <= 2


@pytest.mark.parametrize('at_once', [1, 3, 20])
@pytest.mark.parametrize('steps', STEPS.values(), ids=STEPS)
def test_a_gpu_resizes_some_classes_at_a_time(steps, at_once, monkeypatch):
    logits = regions(dtype=torch.float32)
    largest = len(logits) * max(step.height * step.width for step in steps)
    monkeypatch.setattr(label_step, 'GPU_CHUNK', at_once * largest)
    assert torch.equal(label_step._by_classes(logits, steps, False), full_size(logits, steps).argmax(1))
    equal = torch.zeros_like(logits)  # the first of equals
    assert not label_step._by_classes(equal, steps, False).any()


def test_memory_format_does_not_matter():
    logits, steps = regions(), STEPS['mmseg']
    assert torch.equal(label_map(logits, steps), label_map(logits.contiguous(memory_format=torch.channels_last), steps))


@pytest.mark.parametrize('steps', [STEPS['mmseg'], STEPS['down']])
def test_one_class_is_compared_with_the_threshold(steps):
    logits = regions(classes=1, noise=2) - 7
    expected = (full_size(logits, steps).sigmoid() > 0.3)[:, 0]
    assert (
        torch.equal(label_map(logits, steps, threshold=0.3).bool(), expected) and expected.any() and not expected.all()
    )


def test_equal_classes_give_the_lower_number():
    logits = torch.zeros(1, 5, 6, 6)
    logits[:, 3:] = 1
    assert (label_map(logits, [Resize(24, 24)]) == 3).all()
    logits[:, 3:, :, 3:] = 0
    logits[:, 1:3, :, 3:] = 2  # a seam between the pairs (3, 4) and (1, 2)
    assert set(label_map(logits, [Resize(24, 24)]).unique().tolist()) == {1, 3}


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('steps', STEPS.values(), ids=STEPS)
def test_axes_are_the_resizes(steps, align_corners):
    x = torch.randn(1, 1, 24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, columns = axes((24, 32), steps, x.dtype, x.device, align_corners)
    mixed = columns.mix(rows.mix(x, 2), 3)
    torch.testing.assert_close(mixed, full_size(x, steps, align_corners), rtol=1e-9, atol=1e-9)
    for axis in (rows, columns):
        assert (axis.weights >= 0).all()
        torch.testing.assert_close(axis.weights.sum(1), torch.ones(len(axis.start)).double())
        assert int(axis.windows.counts.sum()) == len(axis.start)


def test_little_memory():
    """The largest tensor made on the way stays a fraction of one full-size class map."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.numbers = max(self.numbers, tensor.numel())
            return out

    logits = regions(48, 64, classes=150, batch=1, dtype=torch.float32)
    for steps, values in (([Resize(750, 1000)], logits), ([Resize(750, 1000)], torch.randn_like(logits))):
        with Largest() as largest:
            label_map(values, steps)
        assert largest.numbers <= 2 * (1 << 20) + logits.numel()  # full size would be 112 million
