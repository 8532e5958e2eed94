"""What every room's tests share: the tools, called in this process, on a data set and a network of a moment; and the
statistics, scales and norms of a trained network, which a fresh one lacks: fresh, half of the folding is a no-op."""

import gc
import importlib
import importlib.util
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import ROOT, TINY
from torch import nn

KEYS = Path(__file__).parents[2] / 'shared' / 'reference' / 'original_backbone_keys.json'

WITHOUT = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split('.')[0] in GONE else PathFinder.find_spec(name, path, target)
    find_distributions = PathFinder.find_distributions
sys.meta_path[:] = BuiltinImporter, FrozenImporter, Finder
"""


def pytest_configure(config):
    if 'gpu' not in config.getoption('markexpr').replace('not gpu', ''):
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # what is no test of a GPU is one of a CPU, wherever it runs
    if importlib.util.find_spec('yapf') and not hasattr(config, 'workerinput'):
        # its first import on a machine leaves a file for the next ones, which is empty for a moment: two workers that
        # begin together would read it then, so the process that starts them has it written
        importlib.import_module('yapf.yapflib.yapf_api')


def pytest_fixture_setup():
    seed()


def pytest_runtest_call():
    seed()


def seed() -> None:
    """Every test and every fixture draws the same numbers whatever ran before it in its process, so that what fails
    here fails everywhere, and alone."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def required(module: str):
    """Imports what an extra installs: a test without it is skipped where a user has none, and fails in CI, which
    installs all."""
    return importlib.import_module(module) if os.environ.get('CI') else pytest.importorskip(module)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draws every number that folding has to carry: BatchNorm statistics, affine norms, layer scales, biases, bias
    tables."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean=0.0, std=1.0):
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    for layer in module.modules():
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            normal(layer.weight, 1.0, 0.3)
            normal(layer.bias, 0.0, 0.3)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            normal(layer.running_mean, 0.0, 0.3)
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) * 1.5 + 0.3)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in = layer.weight[0].numel()
            normal(layer.weight, 0.0, fan_in**-0.5)
            if layer.bias is not None:
                normal(layer.bias, 0.0, 0.3)
    for name, parameter in module.named_parameters():
        if name.endswith(('.gamma', 'attention_biases')):
            normal(parameter, 0.0, 0.5)
    return module.double().eval()


@pytest.fixture(scope='session')
def random_stats():
    """The function that makes a fresh module look trained, in float64 and eval mode."""
    return randomise


@pytest.fixture(scope='session', autouse=True)
def quicker_stack():
    """Takes out of MMEngine what takes more time than a small training does: the layout of a config's text by yapf for
    every log and checkpoint, and the garbage collection over all imported modules for every data set.

    What runs in processes of its own has both.
    """
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec('yapf'):
            from yapf.yapflib import yapf_api

            patch.setattr(yapf_api, 'FormatCode', lambda text, **options: (text, False))
        yield


@pytest.fixture(scope='session')
def original_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the original's segmentation backbones, by model."""
    if not KEYS.is_file():
        if os.environ.get('CI'):
            pytest.fail(f'{KEYS} is missing')
        pytest.skip(f'{KEYS.name} is not at hand: the names of the original checkpoints are not checked')
    return json.loads(KEYS.read_text())


@dataclass(frozen=True)
class Outcome:
    """How a tool ended: its status, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def tool(capfd, monkeypatch) -> Callable[..., Outcome]:
    """Calls ``tools/NAME.py``, or the demo, with arguments, as the command line does."""

    def call(name: str, *arguments) -> Outcome:
        if name == 'demo':
            module = importlib.import_module('effseg.demo.dataset')
        else:
            spec = importlib.util.spec_from_file_location(f'effseg_tool_{name}', ROOT / 'tools' / f'{name}.py')
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        from mmengine.logging import MMLogger
        from mmseg.visualization import SegLocalVisualizer

        from effseg.apis import cli

        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        # loggers are named by the second, and those of an earlier test write to a stream that pytest has closed
        MMLogger._instance_dict.clear()
        SegLocalVisualizer._instance_dict.clear()  # which go on writing where the first one wrote
        monkeypatch.setattr(logging, 'raiseExceptions', False)
        capfd.readouterr()
        status = 0
        try:
            cli.run(module.main)
        except SystemExit as end:
            status = end.code
        printed = capfd.readouterr()
        return Outcome(status, printed.out, printed.err)

    return call


@pytest.fixture(scope='session')
def scenes(tmp_path_factory) -> Path:
    """The built-in data set, small; the configs find it."""
    from effseg.demo.dataset import write_demo_data

    root = tmp_path_factory.mktemp('built-in-scenes')
    write_demo_data(root, train=6, val=2, size=(48, 72))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DEMO_ROOT', str(root))
        yield root


@pytest.fixture(scope='session')
def segmentor(scenes):
    """The network of tiny.py, as it starts."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from effseg.engine.config import load_config

    init_default_scope('mmseg')
    torch.manual_seed(0)
    return MODELS.build(load_config(TINY).model)


@pytest.fixture(scope='session')
def checkpoint(segmentor, tmp_path_factory) -> Path:
    """Weights of that network, in a file."""
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save({'meta': {}, 'state_dict': segmentor.state_dict()}, path)
    return path


@pytest.fixture
def without(tmp_path):
    """Runs Python in a process where packages are as if they were not installed."""

    def run(gone: set[str], *arguments: str) -> subprocess.CompletedProcess:
        (tmp_path / 'sitecustomize.py').write_text(WITHOUT.replace('GONE', repr(gone)))
        search = {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **search}
        )

    return run
