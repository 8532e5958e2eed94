"""onnxruntime-web: fetched once from the npm registry by npm, checked, and kept."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ..errors import ArtifactError, DiskError, MissingRuntimeError

VERSION = '1.30.0'
SHA256 = 'd2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71'
# the first pair runs on CPUs, the second on WebGPU; a browser loads one of them
FILES = (
    'ort.wasm.bundle.min.mjs',
    'ort-wasm-simd-threaded.wasm',
    'ort-wasm-simd-threaded.mjs',
    'ort.webgpu.bundle.min.mjs',
    'ort-wasm-simd-threaded.asyncify.wasm',
    'ort-wasm-simd-threaded.asyncify.mjs',
)


def cache() -> Path:
    """Where the package is kept: ``$XDG_CACHE_HOME/effseg``, or ``~/.cache/effseg``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'effseg'


def package(given: str | None = None) -> Path:
    """The package's archive.

    Args:
        given: a copy of it, where the registry cannot be reached.

    Raises:
        MissingRuntimeError: when it is not there and npm cannot fetch it.
        ArtifactError: when it is not the archive of :data:`VERSION`.
    """
    name = f'onnxruntime-web-{VERSION}.tgz'
    path = Path(given) if given else cache() / name
    if given and not path.is_file():
        raise MissingRuntimeError(f'no file at {path}; {name} was expected')
    if not path.is_file():
        _fetch(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ArtifactError(
            f'{path} is not onnxruntime-web {VERSION} as published; '
            f'{"give another file" if given else "delete it and try again"}'
        )
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Writes :data:`FILES` into a folder."""
    with tarfile.open(archive) as content:
        for name in FILES:
            source = content.extractfile(f'package/dist/{name}')
            assert source is not None  # a file, since the archive's digest is the published one's
            with source, (folder / name).open('wb') as target:
                shutil.copyfileobj(source, target)


def _fetch(path: Path) -> None:
    npm = shutil.which('npm')
    remedy = (
        'run this once on a machine with npm and a network, or give the file of '
        f'`npm pack onnxruntime-web@{VERSION}` with --runtime'
    )
    if not npm:
        raise MissingRuntimeError(
            f'the page takes onnxruntime-web {VERSION}, which npm fetches, and there is no npm; {remedy}'
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f'{path.parent} cannot be made: {error.strerror}') from error
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            subprocess.run(
                [npm, 'pack', '--silent', f'onnxruntime-web@{VERSION}'],
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
                timeout=600,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            lines = [
                line
                for line in str(error.stderr or 'no answer').splitlines()
                if 'error' in line.lower() or 'answer' in line
            ]
            raise MissingRuntimeError(
                f'npm could not fetch onnxruntime-web {VERSION} ({(lines or ["no reason given"])[0].strip()}); {remedy}'
            ) from error
        os.replace(Path(folder) / path.name, path)
