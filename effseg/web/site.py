"""A static folder from an ONNX artifact."""

import functools
import http.server
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from .. import __version__
from ..deploy import load
from ..errors import ArtifactError, ConfigError
from ..files import digest
from . import runtime

PAGE = ('index.html', 'page.mjs', 'worker.mjs', 'labels.mjs')
MARK = 'spec.json'  # a folder that holds it was written here, and may be replaced


def write_site(artifact: str, out: str, package: str | None = None) -> Path:
    """Writes the page, the model and its runtime. A site of an earlier call is replaced, any other folder is not.

    Args:
        artifact: an .onnx file that tools/export.py wrote.
        out: the folder.
        package: a copy of onnxruntime-web's archive; npm fetches it when left out.

    Returns:
        The folder.

    Raises:
        EffsegError: for a file that is no ONNX artifact, a folder with other things in it, or a runtime that cannot be
            had.
    """
    path, folder = Path(artifact), Path(out)
    if path.suffix != '.onnx':
        raise ArtifactError(f'{path} came; browsers run .onnx files: tools/export.py CONFIG CHECKPOINT --to onnx')
    spec = load(path).spec
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir()) and not (folder / MARK).is_file()):
        raise ConfigError(f'{folder} is there and holds other things than a page; give a folder that is new or empty')
    archive = runtime.package(package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        draft.chmod(0o755)
        for name in PAGE:
            (draft / name).write_bytes((resources.files('effseg.web') / 'page' / name).read_bytes())
        (draft / 'ort').mkdir()
        runtime.unpack(archive, draft / 'ort')
        shutil.copyfile(path, draft / 'model.onnx')
        (draft / MARK).write_text(_described(spec, path))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _described(spec, path: Path) -> str:
    import json

    return json.dumps(
        {
            **json.loads(spec.to_json()),
            'name': path.stem,
            'artifact_sha256': digest(path),
            'bytes': path.stat().st_size,
            'page': __version__,
        },
        indent=1,
        sort_keys=True,
    )


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a site with the headers that let WebAssembly use more than one thread."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        '.mjs': 'text/javascript',
        '.wasm': 'application/wasm',
        '.onnx': 'application/octet-stream',
    }

    def end_headers(self) -> None:
        self.send_header('Cross-Origin-Opener-Policy', 'same-origin')
        self.send_header('Cross-Origin-Embedder-Policy', 'require-corp')
        self.send_header('Cache-Control', 'no-cache')
        super().end_headers()

    def log_message(self, *message) -> None:
        """Quiet: the terminal shows the address."""


def server(folder: Path, host: str = '127.0.0.1', port: int = 8000) -> http.server.ThreadingHTTPServer:
    """A server of a site, to be run by ``serve_forever``.

    Args:
        folder: from :func:`write_site`.
        host: ``'0.0.0.0'`` lets other machines in.
        port: 0 takes a free one.

    Raises:
        ConfigError: when the address cannot be used.
    """
    try:
        return http.server.ThreadingHTTPServer((host, port), functools.partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise ConfigError(f'{host}:{port} cannot be served on: {error}; give another --port') from error
