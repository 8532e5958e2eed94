"""Files that are there whole or not at all, and what identifies them: digest and size."""

import hashlib
import os
from pathlib import Path

from .errors import ConfigError

PARTIAL = '.partial'  # what a file ends in that is being written


def write(path: Path, content: bytes | str, durable: bool = False) -> None:
    """Writes a file beside its place and moves it there: who reads it sees the old content or the new, never a part.

    Args:
        path: of the file, in a folder that exists.
        content: text is written as UTF-8; bytes of a file's name that are none as ``\\udcXX``.
        durable: so also after the machine lost its power, which takes as long as the disk does.

    Raises:
        OSError: when it cannot be written; what was there before is then as it was.
    """
    partial = partial_of(path)
    try:
        with partial.open('wb') as file:
            file.write(content.encode(errors='backslashreplace') if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
        if durable and os.name != 'nt':  # where folders cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Where a file is written before it is moved to its place; two processes that write the same one have two."""
    return path.with_name(f'{path.name}.{os.getpid()}{PARTIAL}')


def check_name(path: str | Path) -> None:
    """Refuses a name that is not UTF-8, at which OpenCV's Python ends the process by a segmentation fault.

    Raises:
        ConfigError: for a name of bytes that are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f'{str(path)!a} is not UTF-8, which OpenCV takes alone; give another name') from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex; of a folder such as an ``.mlpackage``, of its files and their names in order."""
    sha = hashlib.sha256()
    for file in files_of(path):
        if file != path:
            sha.update(file.relative_to(path).as_posix().encode())
        with file.open('rb') as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in order."""
    return sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
