"""The tools, called in this process, on a data set and a network of a moment."""

import importlib.util
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TINY = str(Path(__file__).with_name('tiny.py'))


@dataclass(frozen=True)
class Outcome:
    """How a tool ended: its status, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def tool(capfd, monkeypatch) -> Callable[..., Outcome]:
    """Calls ``tools/NAME.py`` with arguments, as the command line does."""

    def call(name: str, *arguments) -> Outcome:
        spec = importlib.util.spec_from_file_location(f'effseg_tool_{name}', ROOT / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        from effseg.apis import cli

        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        # the logger of an earlier test writes to a stream that pytest has closed
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

    # one place for all folders of tests that take this fixture over, each of which makes it anew
    root = tmp_path_factory.getbasetemp() / 'built-in-scenes'
    if not root.exists():
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
