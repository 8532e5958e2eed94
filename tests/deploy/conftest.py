"""A two-block segmenter of three classes, real images, and runtimes that are skipped where a user has none."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import MEAN, STD, segmenter

from effseg.deploy import backends, exporting
from effseg.deploy.artifact import Artifact
from effseg.deploy.images import fit
from effseg.deploy.interface import axes
from effseg.deploy.program import Program
from effseg.deploy.spec import Spec

CAMVID = Path(os.environ.get('CAMVID_ROOT') or Path(__file__).parents[3] / 'shared' / 'data' / 'camvid')
SIZE = (64, 96)
MODULES = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'executorch': ('executorch',),
    'coreml': ('coremltools',),
    'litert': ('litert_torch', 'ai_edge_litert', 'ai_edge_quantizer'),
    'torch': ('torch.export.pt2_archive',),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """int8 of ExecuTorch and LiteRT, minutes of conversion, is left to the slow tier."""
    for item in items:
        if getattr(item.cls, 'slow_int8', False) and 'labels-int8' in item.name:
            item.add_marker(pytest.mark.slow)


def need(runtime: str) -> None:
    """Skips where a runtime is missing; fails in CI, which installs them all."""
    missing = [module for module in MODULES[runtime] if importlib.util.find_spec(module) is None]
    if missing and os.environ.get('CI'):
        pytest.fail(f'{missing} must be installed in CI')
    if missing:
        pytest.skip(f"needs pip install 'effseg[{runtime}]'")


@pytest.fixture(scope='session')
def model(random_stats):
    """A model of three classes with lived-in statistics."""
    return random_stats(segmenter(resolution=3)).float()


@pytest.fixture(scope='session')
def binary(random_stats, images):
    """A model of two classes and one logit, whose threshold divides the first image in halves, its fused form, and what
    a spec says of it."""
    import effseg

    model = random_stats(segmenter(head=dict(num_classes=2, out_channels=1), resolution=3)).float()
    with torch.no_grad():
        network = effseg.fuse(model, size=SIZE).exportable()
        pixels = (torch.from_numpy(images[0])[None].float() - torch.tensor(MEAN)) / torch.tensor(STD)
        middle = network.logits(pixels.permute(0, 3, 1, 2).contiguous()).sigmoid().median()
    model.decode_head.threshold = float(middle)
    return model, network, dict(classes=2, threshold=float(middle))


@pytest.fixture(scope='session')
def fused(model):
    import effseg

    return effseg.fuse(model, size=SIZE).exportable()


@pytest.fixture(scope='session')
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    """Drawn landscapes of :data:`SIZE` and their masks, eight classes."""
    from effseg.demo.scenes import draw_scene

    rng = np.random.default_rng(0)
    return [draw_scene(SIZE, rng) for _ in range(24)]


@pytest.fixture(scope='session')
def trained(scenes):
    """A model that has learnt the eight classes of the scenes: its labels are regions, not noise."""
    return learn(segmenter(channels=24, classes=8, resolution=3), scenes)


def learn(model: torch.nn.Module, scenes: list[tuple[np.ndarray, np.ndarray]]) -> torch.nn.Module:
    """Trains a model of eight classes for some seconds, by masks of a quarter of the image.

    On one thread, as the tests run: what sabotage does to a class depends on whether the model has learnt it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.train()
    pixels = torch.stack([torch.from_numpy(image) for image, _ in scenes]).permute(0, 3, 1, 2).float()
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    truth = torch.stack([torch.from_numpy(mask[2::4, 2::4].astype(np.int64)) for _, mask in scenes])
    weights = 1 / (torch.bincount(truth[truth < 8], minlength=8) / truth.numel()).sqrt()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=80)
    for _ in range(80):
        chosen = torch.randperm(len(scenes))[:8]
        logits = model.decode_head(model.extract_feat(pixels[chosen]))
        logits = torch.nn.functional.interpolate(logits, truth.shape[1:], mode='bilinear')  # of the stride 8 too
        loss = torch.nn.functional.cross_entropy(logits, truth[chosen], weights, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope='session')
def images() -> list[np.ndarray]:
    """Six images of :data:`SIZE`: street scenes where they are at hand, drawn ones elsewhere."""
    from PIL import Image

    files = sorted((CAMVID / 'images' / 'val').glob('*'))[:6]
    if not files and os.environ.get('CI'):
        pytest.fail(f'no images at {CAMVID}')
    if files:
        found = [np.asarray(Image.open(file).convert('RGB')) for file in files]
    else:
        from effseg.demo.scenes import draw_scene

        found = [draw_scene((120, 160), np.random.default_rng(seed))[0] for seed in range(6)]
    return [fit(image, SIZE, number, (124, 116, 104)) for number, image in enumerate(found)]


@pytest.fixture
def make_spec():
    return spec_of


def spec_of(
    backend: str,
    output: str = 'logits',
    precision: str = 'fp32',
    size: tuple[int, int] = SIZE,
    classes: int = 3,
    **others,
) -> Spec:
    return Spec(
        backend=backend,
        height=size[0],
        width=size[1],
        output=output,
        precision=precision,
        mean=MEAN,
        std=STD,
        classes=[f'class {i}' for i in range(classes)],
        palette=[(i, i, i) for i in range(classes)],
        checkpoint_sha256='0' * 64,
        effseg='0',
        **others,
    )


@pytest.fixture
def in_torch(monkeypatch):
    """Runtimes are played by torch. ``changes`` is what becomes of a network in the file of a precision."""
    changes = {}

    def export(network, spec, path, images, floats=()):
        path.write_text(spec.to_json())
        network = changes.get(spec.precision, lambda network: network)(network)
        files[path] = Program(network, spec, axes(spec)).eval()
        return backends.Delegation('torch', 1)

    def load(path):
        program = files[path]

        @torch.no_grad()
        def run(array):
            results = program(torch.from_numpy(array))
            return [result.numpy() for result in (results if isinstance(results, tuple) else [results])]

        return Artifact(path, program.spec, backends.Session(None, ((), ()), run))

    files = {}
    for name in ('onnx', 'litert', 'executorch'):
        monkeypatch.setattr(backends.backend(name), 'export', export)
    # of ONNX it reads the file
    monkeypatch.setattr(backends.backend('onnx'), 'in_torch', lambda network, spec, path: files[path])
    monkeypatch.setattr(exporting, 'load', load)
    return changes


@pytest.fixture(autouse=True)
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
