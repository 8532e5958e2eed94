"""What the package and its tools import is what setup.py declares."""

import re
import runpy
import sys

import pytest
from test_imports import PACKAGE, imported

ROOT = PACKAGE.parent
# where a distribution is not called what is imported
DISTRIBUTIONS = {
    'PIL': 'pillow',
    'yaml': 'pyyaml',
    'cv2': 'opencv-python',
    'mmcv': 'onedl-mmcv',
    'mmengine': 'onedl-mmengine',
    'mmseg': 'onedl-mmsegmentation',
}
# what a distribution needs to run and our code doesn't import
SILENT = {'onnxscript', 'cattrs'}
# the files that an extra is for; the others must do without it
EXTRAS = {
    'onnx': 'effseg/deploy/backends/onnx.py',
    'executorch': 'effseg/deploy/backends/executorch.py',
    'coreml': 'effseg/deploy/backends/coreml.py',
    'litert': 'effseg/deploy/backends/litert',
    'torch': 'effseg/deploy/backends/torch.py',
    'engines': 'effseg/benchmark/engines.py',
    'report': 'effseg/report',
    'train': 'effseg',
    'mmseg': 'effseg',
}
RUNNING = ('__init__', 'artifact', 'host', 'images', 'interface', 'presets', 'spec', 'quiet', 'backends/__init__')


def names(requirements: list[str]) -> set[str]:
    return {re.match(r'[\w-]+', requirement)[0].lower().replace('_', '-') for requirement in requirements}


@pytest.fixture(scope='module')
def declared():
    """The arguments that setup.py calls setup() with."""
    import setuptools

    with pytest.MonkeyPatch.context() as patch:
        calls = []
        patch.setattr(setuptools, 'setup', lambda **arguments: calls.append(arguments))
        runpy.run_path(str(ROOT / 'setup.py'))
    return calls[0]


def wanted(path) -> set[str]:
    """The distributions that a file imports, at its head or inside a function."""
    modules = {name.partition('.')[0] for name in imported(path)} - {'effseg', ''} - set(sys.stdlib_module_names)
    return {DISTRIBUTIONS.get(module, module.lower().replace('_', '-')) for module in modules}


FILES = sorted([*PACKAGE.rglob('*.py'), *(ROOT / 'tools').glob('*.py')])


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_is_declared(path, declared):
    place = str(path.relative_to(ROOT))
    allowed = names(declared['install_requires'])
    for extra, part in EXTRAS.items():
        if place.startswith(part):
            allowed |= names(declared['extras_require'][extra])
    assert wanted(path) <= allowed


def test_running_a_file_takes_its_runtime_alone(declared):
    base = names(declared['install_requires'])
    for path in (*(PACKAGE / 'web').glob('*.py'), *(PACKAGE / f'deploy/{name}.py' for name in RUNNING)):
        assert wanted(path) <= base, path.name
    assert not names(declared['extras_require']['onnx']) & names(declared['extras_require']['train'])
    assert set(declared['extras_require']['train']) <= set(declared['extras_require']['mmseg'])


def test_every_requirement_is_imported(declared):
    required = names(declared['install_requires']) | set().union(
        *(names(declared['extras_require'][extra]) for extra in EXTRAS)
    )
    assert required - SILENT == set().union(*map(wanted, FILES))


def test_the_extra_all_holds_every_runtime(declared):
    extras = declared['extras_require']
    assert set(extras['all']) == {
        line for extra in ('onnx', 'executorch', 'coreml', 'litert', 'torch') for line in extras[extra]
    }
    assert set(extras['all']) | set(extras['report']) <= set(extras['test'])
