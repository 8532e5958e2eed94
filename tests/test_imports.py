"""The house has one direction: who may import whom, read off the source."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'effseg'
# the rooms in the order of the house: one imports what stands above it
ROOMS = (
    'models',
    'checkpoint',
    'fusion',
    'deploy',
    'segmentors',
    'datasets',
    'engine',
    'distillation',
    'apis',
    'demo',
    'report',
    'web',
    'slimming',
    'benchmark',
    'hub',
)
# single files beside the rooms that all of them may import
SHARED = {'errors', 'files', 'outputs', 'stack', 'timing', '__version__'}
# the imports from below: fuse() of a block returns the layers of fusion, and a backbone loads its ImageNet weights
UPWARDS = {('models', 'fusion'), ('models', 'checkpoint')}
HOST = {'mmseg', 'mmengine', 'mmcv', 'timm'}


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, ours as 'effseg.part'."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(PACKAGE.parent).parts[:-1]
            base = '.'.join(package[: len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            names |= {f'{module}.{alias.name}' for alias in node.names} if module == 'effseg' else {module}
    return names


def files(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob('*.py'))


def allowed(room: str) -> set[str]:
    """What a room's docstring says that it may import: rooms, or single files of one."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / '__init__.py').read_text()))
    (sentence,) = re.findall(r'May import: (.*?)\.$', text, flags=re.DOTALL | re.MULTILINE)
    return set(re.findall('``(.*?)``', sentence))


def test_every_room_is_in_the_order():
    assert {path.parent.name for path in PACKAGE.glob('*/__init__.py')} == set(ROOMS)


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_what_its_docstring_says(room):
    may, used = allowed(room), set()
    for path in files(room):
        ours = {name.removeprefix('effseg.') for name in imported(path) if name.startswith('effseg.')}
        for name in ours:
            if name.split('.')[0] in SHARED | {room}:
                continue
            by = name if name in may else name.split('.')[0]
            assert by in may, f'{path.name} imports {name}, which the docstring of {room} does not allow'
            used.add(by)
    assert used == may, f'the docstring of {room} allows {may - used}, which nothing needs'


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_what_stands_above_it(room):
    for name in allowed(room):
        above = name == 'models.attention_bias' or (name in ROOMS and ROOMS.index(name) < ROOMS.index(room))
        assert above or (room, name) in UPWARDS, f'{room} imports {name}, which stands below it'


@pytest.mark.parametrize('part', ['fusion', 'deploy', 'web'])
def test_inference_needs_no_training_stack(part):
    for path in files(part):
        assert not {name.split('.')[0] for name in imported(path)} & HOST, path.name
