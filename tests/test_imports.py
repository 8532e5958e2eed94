"""The house has one direction: who may import whom, read off the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'effseg'
# what each room may import of ours, in the order of the house; `errors`, `files` and `outputs` are open to all. A
# file's full name lets in that file alone: the offset table stands with the network, and both the fused network and
# the reading of weights take it
ALLOWED = {
    'models': {'models', 'checkpoint', 'fusion'},  # fuse() of a block returns the layers of fusion
    'checkpoint': {'checkpoint', 'models.attention_bias'},
    'fusion': {'fusion', 'models.attention_bias'},
    'deploy': {'deploy', 'fusion'},
    'segmentors': {'segmentors', 'deploy', 'fusion', 'timing'},
    'datasets': {'datasets'},
    'engine': {'engine', 'datasets', 'checkpoint', 'stack'},
    'apis': {
        'apis',
        'engine',
        'datasets',
        'segmentors',
        'deploy',
        'fusion',
        'checkpoint',
        'timing',
        'stack',
        'video',
        'demo',
    },
    'web': {'web', 'deploy'},
    'demo': {'demo'},
    'report': {
        'report',
        'apis',
        'engine',
        'datasets',
        'checkpoint',
        'fusion',
        'deploy',
        'segmentors',
        'timing',
        'stack',
    },
}
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


@pytest.mark.parametrize('part', ALLOWED)
def test_each_part_imports_only_what_stands_before_it(part):
    assert files(part)
    for path in files(part):
        ours = {name.removeprefix('effseg.') for name in imported(path) if name.startswith('effseg.')}
        allowed = ALLOWED[part] | {'errors', 'files', 'outputs', '__version__'}
        foreign = {name for name in ours if name not in allowed and name.split('.')[0] not in allowed}
        assert not foreign, f'{path.name} imports {foreign}'


@pytest.mark.parametrize('part', ['fusion', 'deploy', 'web'])
def test_inference_needs_no_training_stack(part):
    for path in files(part):
        assert not {name.split('.')[0] for name in imported(path)} & HOST, path.name
