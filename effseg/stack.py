"""Which MMSegmentation is installed, and what it needs to find configs by name.

Two lines of it give the same import names (mmseg, mmengine, mmcv): the official one (mmsegmentation) and the maintained
one (onedl-mmsegmentation). effseg runs on either, and on neither when both are installed over each other.
"""

import contextlib
import importlib
import importlib.util
import io
import sys
import warnings
from importlib import metadata
from pathlib import Path

from .errors import StackError, first_line

LINES = {
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
}
INSTALL = "pip install 'effseg[mmseg]'"
NETWORKS = ('torch', 'timm')  # what ours take, and a file of one does not


def distributions() -> dict[str, list[str]]:
    """The installed distributions behind each import name of the stack, as 'name version'."""
    return {
        module: [f'{name} {version}' for name in names if (version := version_of(name))]
        for module, names in LINES.items()
    }


def installed() -> bool:
    """Whether any MMSegmentation is there to import, with what our networks take; says nothing of its health.

    Raises:
        StackError: when MMEngine, which is imported already, asks for our networks where they miss a package.
    """
    if not all(importlib.util.find_spec(module) for module in LINES):
        return False
    if 'mmengine' in sys.modules:
        require_packages(*NETWORKS)
    return all(importlib.util.find_spec(module) for module in NETWORKS)


def require() -> None:
    """Makes sure that a usable MMSegmentation is there.

    Raises:
        StackError: when there is none, two over each other, or one that does not import; with the command that fixes
            it.
    """
    found = distributions()
    missing = [module for module in LINES if not importlib.util.find_spec(module)]
    if missing:
        raise StackError(
            f'MMSegmentation is not installed ({", ".join(missing)} cannot be imported). Install it with: {INSTALL}'
        )
    require_packages(*NETWORKS)
    _refuse_two(found)
    for module in ('mmcv', 'mmengine', 'mmseg', 'mmseg.datasets', 'mmseg.apis'):
        try:
            _import_quietly(module)
        except (ImportError, AssertionError) as error:
            versions = ', '.join(name for names in found.values() for name in names)
            raise StackError(
                f'the installed MMSegmentation ({versions}) does not import: {module} says '
                f'{first_line(error)!r}. {_fix(found)}'
            ) from error


def require_packages(*modules: str) -> None:
    """Makes sure of what the extra ``train`` installs, which running an exported file does not take.

    Raises:
        StackError: naming what is missing, and the command that installs it.
    """
    if missing := [module for module in modules if not importlib.util.find_spec(module)]:
        raise StackError(
            f'{" and ".join(missing)} cannot be imported, which all but running exported files takes. Install with: '
            f"pip install 'effseg[train]', or with MMSegmentation: {INSTALL}"
        )


def prepare() -> None:
    """Makes ``_base_ = 'effseg::...'`` and ``_base_ = 'mmseg::...'`` resolve in configs read from now on.

    MMEngine knows the packages that may be named so from a fixed table, which lacks effseg and, on the maintained line,
    looks mmseg up under the other line's name.

    Raises:
        StackError: when two stacks are installed over each other.
    """
    _refuse_two(distributions())
    _import_quietly('mmcv.cnn')
    from mmengine.config import Config

    if getattr(Config._get_cfg_path, 'effseg', False):
        return
    resolve = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str):
        package, _, name = cfg_path.partition('::')
        root = config_root(package) if name else None
        if root is None or not (root / name).is_file():
            return resolve(cfg_path, filename)
        # our types live in MMSegmentation's registries: both packages' configs are of its scope
        return str(root / name), 'mmseg'

    get_cfg_path.effseg = True  # type: ignore[attr-defined]
    Config._get_cfg_path = staticmethod(get_cfg_path)


def config_root(package: str) -> Path | None:
    """The folder that ``package::`` stands for, None for packages that are not ours to resolve."""
    if package == 'effseg':
        return resources() / 'configs'
    spec = importlib.util.find_spec('mmseg') if package == 'mmseg' else None
    return Path(spec.origin).parent / '.mim' / 'configs' if spec and spec.origin else None


def resources() -> Path:
    """The folder that holds configs/ and tools/: inside the installed package, or the checkout it is run from."""
    package = Path(__file__).parent
    return package / '.mim' if (package / '.mim').is_dir() else package.parent


def _import_quietly(module: str) -> None:
    """Imports without what the stack says of optional parts that nobody asked for."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        importlib.import_module(module)


def _refuse_two(found: dict[str, list[str]]) -> None:
    if any(len(names) > 1 for names in found.values()):
        names = ', '.join(name for group in found.values() for name in group)
        raise StackError(
            f'two MMSegmentation stacks are installed over each other ({names}); they own the same import names. '
            f'{_fix(found)}'
        )


def _fix(found: dict[str, list[str]]) -> str:
    names = ' '.join(name.split()[0] for group in found.values() for name in group)
    return f'Fix it with: pip uninstall -y {names} && {INSTALL}'


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, None without one."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
