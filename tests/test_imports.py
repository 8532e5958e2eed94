"""The house has one direction: who may import whom, read off the source."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'effseg'
# what each part may import of ours; `errors` is open to all
ALLOWED = {
    'fuse': {'fuse'},
    'models': {'models', 'fuse'},
    'deploy': {'deploy', 'fuse'},
    'datasets': {'datasets'},
    'evaluation': {'evaluation', 'deploy', 'fuse', 'models', 'datasets', 'engine', 'stack'},
    'engine': {'engine', 'datasets', 'models', 'fuse', 'deploy', 'evaluation', 'stack'},
    'web': {'web', 'deploy'},
    'report': {'report', 'engine', 'datasets', 'models', 'fuse', 'deploy', 'evaluation', 'stack'},
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
            base = '.'.join(package[:len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            names |= {f'{module}.{alias.name}' for alias in node.names} if module == 'effseg' else {module}
    return names


def files(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob('*.py'))


@pytest.mark.parametrize('part', ALLOWED)
def test_each_part_imports_only_what_stands_before_it(part):
    assert files(part)
    for path in files(part):
        ours = {name.split('.')[1] for name in imported(path) if name.startswith('effseg.')} - {'errors', '__version__'}
        assert ours <= ALLOWED[part], f'{path.name} imports {ours - ALLOWED[part]}'


@pytest.mark.parametrize('part', ['fuse', 'deploy', 'web'])
def test_inference_needs_no_training_stack(part):
    for path in files(part):
        assert not {name.split('.')[0] for name in imported(path)} & HOST, path.name
