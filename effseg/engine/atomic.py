"""Files that are there whole or not at all, also after the machine lost its power, and a folder for one process."""

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from mmengine.fileio import LocalBackend, register_backend

from ..errors import ConfigError, DiskError
from ..files import partial_of, write


class AtomicBackend(LocalBackend):
    """Local files that are there whole or not at all, also after the machine lost its power."""

    def __init__(self):
        super().__init__()
        self._waiting: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file, see :func:`effseg.files.write`.

        Raises:
            DiskError: when it cannot be written; what was there before is then as it was.
        """
        path = Path(filepath)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, obj, durable=True)
        except OSError as error:
            reason, remedy = error.strerror or error, 'see to it'
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
                reason, remedy = f'it needs {len(obj)} bytes, {free} are free ({reason})', 'make room'
            raise DiskError(
                f'{path} was not written: {reason}. Earlier checkpoints are untouched: {remedy} and run again with '
                '--resume'
            ) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """As :meth:`put`."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        """Deletes a file, or, inside :meth:`removals_last`, remembers to."""
        if self._waiting is None:
            super().remove(filepath)
        else:
            self._waiting.append(str(filepath))

    @contextlib.contextmanager
    def removals_last(self) -> Iterator[list[str]]:
        """Postpones deletions inside to the end, and drops them where there is an error. Gives the list of them."""
        waiting: list[str] = []
        self._waiting = waiting
        try:
            yield waiting
        finally:
            self._waiting = None
        for path in waiting:
            if os.path.isfile(path):
                super().remove(path)


register_backend('effseg_atomic', AtomicBackend, force=True)


def link(source: Path, target: Path) -> None:
    """A second name for a file, put in place whole."""
    partial = partial_of(target)
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:  # a file system without links
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    partial.unlink(missing_ok=True)  # two names of one file: replacing one by the other does nothing


def lock(work_dir: Path):
    """Takes a folder for this process; it is free again when the file that is returned is closed or the process ends.

    Raises:
        ConfigError: when another process has it.
    """
    if fcntl is None:
        return None
    file = (work_dir / '.lock').open('a+')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return file  # a file system without locks
        file.seek(0)
        raise ConfigError(
            f'{work_dir} belongs to a training that runs already ({file.read().strip()}): give another --work-dir, or '
            'wait for its end'
        ) from error
    file.truncate(0)
    file.write(f'host {socket.gethostname()}, process {os.getpid()}')
    file.flush()
    return file
