"""One file per runtime: ``export(network, spec, path, images, floats)``, ``load(path, threads)``, and
``in_torch(network, spec, path)``, the file as a torch module, where a phone's accelerator runs such files. Importing
them loads none.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from ...errors import ArtifactError, ConfigError, MissingRuntimeError, first_line
from ..quiet import quiet

SUFFIXES = {'onnx': '.onnx', 'executorch': '.pte', 'coreml': '.mlpackage', 'litert': '.tflite', 'torch': '.pt2'}


@dataclass(frozen=True)
class Delegation:
    """What a runtime's accelerated backend took of a graph.

    Attributes:
        backend: its name.
        delegates: the parts the graph was cut into; 1 is best.
        left: operators outside all of them, by name and count.
        elsewhere: operators that accelerators of phones would leave to the CPU, by accelerator, as the checks of their
            makers say; none under the name of one that takes the whole graph.
    """

    backend: str
    delegates: int
    left: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, int]] = field(default_factory=dict)

    def __str__(self):
        lines = [f'{self.backend}: {self.delegates} delegate(s); not delegated: {_counted(self.left)}']
        lines += [f'{name} would leave to the CPU: {_counted(left)}' for name, left in self.elsewhere.items()]
        return '\n'.join(lines)


def _counted(operators: dict[str, int]) -> str:
    return ', '.join(f'{name} x{count}' for name, count in sorted(operators.items())) or 'nothing'


@dataclass(frozen=True)
class Session:
    """A loaded artifact.

    Attributes:
        spec: the JSON inside the file, None where it holds none.
        shapes: of its input and its outputs as the file declares them, batch included.
        run: takes the array of the file's input and gives those of its outputs, batch included; see
            :mod:`effseg.deploy.interface`.
    """

    spec: str | None
    shapes: tuple[tuple[int, ...], ...]
    run: Callable[[np.ndarray], Sequence[np.ndarray]]


def backend(name: str) -> ModuleType:
    """Finds the module that exports and runs the files of a runtime.

    Raises:
        ConfigError: for a name that is no runtime's.
    """
    if name not in SUFFIXES:
        raise ConfigError(f'no runtime {name!r}; use one of {", ".join(SUFFIXES)}')
    return importlib.import_module(f'.{name}', __name__)


def backend_of(path: Path) -> ModuleType:
    """The module of the runtime that reads files of this name.

    Raises:
        ArtifactError: for a suffix that no runtime has.
    """
    for name, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return backend(name)
    raise ArtifactError(f'{path} is not an artifact; artifacts end in {", ".join(SUFFIXES.values())}')


def require(extra: str, *modules: str) -> None:
    """Imports a runtime's modules.

    Raises:
        MissingRuntimeError: naming the extra to install.
    """
    for module in modules:
        try:
            with quiet():  # coremltools warns of everything that it lacks off macOS
                importlib.import_module(module)
        except ImportError as error:
            raise MissingRuntimeError(
                f'{module} cannot be imported ({first_line(error)}); install the runtime with: '
                f"pip install 'effseg[{extra}]'"
            ) from error
