"""Folders that results are written into: only what an earlier call wrote there is replaced."""

import json
from collections.abc import Iterable
from pathlib import Path

from .errors import ConfigError
from .files import write

# the random part keeps files of others from having this name by chance
RECORD = 'effseg-files-7d41c0be93.json'


class OutputFolder:
    """A folder of results in which files of others are safe.

    A record in the folder lists what effseg wrote. A name that is there and not on the list belongs to somebody else.

    Args:
        folder: made by :meth:`claim` if missing.

    Attributes:
        path: the folder, absolute, symbolic links resolved.
        written: the names on the list.

    Raises:
        ConfigError: for a path that no folder can have.
    """

    def __init__(self, folder: str | Path):
        try:
            self.path = Path(folder).resolve()
        except (ValueError, RuntimeError) as error:  # a null character, or a loop of symbolic links
            raise ConfigError(f'{str(folder)!r} is no folder that can be written into: {error}') from error
        self.written = self._read()

    def check(self, names: Iterable[str]) -> None:
        """Refuses to touch files of others.

        Args:
            names: of files and folders, relative to this one.

        Raises:
            ConfigError: when one of them is there and was not written by effseg, or would be written elsewhere
                through a symbolic link.
        """
        for name in names:
            path = self.path / name
            if path.is_symlink() or path.parent.resolve() != path.parent:
                raise ConfigError(f'{path} leads elsewhere by a symbolic link; remove the link, or give another folder')
            if path.exists() and name not in self.written:
                raise ConfigError(
                    f'{path} is there and was not written by effseg: move it, or give a folder that is new or empty'
                )

    def claim(self, names: Iterable[str]) -> None:
        """Records names as effseg's, before they are written.

        Raises:
            ConfigError: see :meth:`check`.
        """
        names = list(names)
        self.check(names)
        self.path.mkdir(parents=True, exist_ok=True)
        self.written |= set(names)
        write(self.path / RECORD, json.dumps(sorted(self.written), indent=0) + '\n')

    def _read(self) -> set[str]:
        try:
            names = json.loads((self.path / RECORD).read_text(encoding='utf-8'))
            return {name for name in names if isinstance(name, str)}
        except (OSError, ValueError, TypeError, RecursionError):
            return set()  # nothing there is ours, then
