"""Files that are there whole or not at all, and what identifies them: digest and size."""

import hashlib
import os
from pathlib import Path

from .errors import ConfigError


def write(path: Path, content: bytes | str) -> None:
    """Writes a file beside its place and moves it there: who reads it sees the old content or the new, never a part.

    Args:
        path: of the file, in a folder that exists.
        content: text is written as UTF-8; bytes of a file's name that are none as ``\\udcXX``.

    Raises:
        OSError: when it cannot be written; what was there before is then as it was.
    """
    # the process in the name: two that write the same file do not write into each other's
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        partial.write_bytes(content.encode(errors='backslashreplace') if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
