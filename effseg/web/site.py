"""A static folder from an ONNX artifact."""

import functools
import http.server
import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import __version__
from ..deploy import load
from ..errors import ArtifactError, ConfigError
from ..files import digest
from ..outputs import OutputFolder
from . import runtime

PAGE = ('index.html', 'page.mjs', 'worker.mjs', 'labels.mjs')
MODEL, SPEC = 'model.onnx', 'spec.json'
FILES = (*PAGE, MODEL, SPEC, *(f'ort/{name}' for name in runtime.FILES))


def write_site(artifact: str, out: str, package: str | None = None, unknown_below: float | None = None) -> Path:
    """Writes the page, the model and its runtime; returns the folder.

    Args:
        artifact: an .onnx file that tools/export.py wrote.
        out: the folder: new, empty, or of an earlier call, whose files are replaced one by one. Other files in it stay.
        package: a copy of onnxruntime-web's archive; npm fetches it when left out.
        unknown_below: pixels whose class has a smaller probability have no color, until a slider says otherwise.

    Raises:
        EffsegError: for a file that is no ONNX artifact, a folder with other things in it, or a runtime that cannot be
            had.
    """
    path, folder = Path(artifact), Path(out)
    if path.suffix != '.onnx':
        raise ArtifactError(f'{path} came; browsers run .onnx files: tools/export.py CONFIG CHECKPOINT --to onnx')
    spec = load(path).spec
    if spec.preset != 'raw':
        raise ArtifactError(f'{path} is for {spec.preset}; the page runs files that were exported without --for')
    if spec.output == 'logits' and (spec.align_corners or spec.threshold is not None):
        raise ArtifactError(
            f'{path} returns logits of a sigmoid head or with align_corners, which the page does not turn into labels; '
            'export it with --output labels'
        )
    if unknown_below is not None and not (spec.confident and 0 < unknown_below < 1):
        raise ConfigError(
            f'--unknown-below {unknown_below} must lie between 0 and 1, and takes a file of --output labels+confidence'
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f'{folder} is a file; give a folder that is new or empty')
    site = OutputFolder(folder)
    if not site.written and site.path.exists() and any(site.path.iterdir()):
        raise ConfigError(f'{folder} is there and holds other things than a page; give a folder that is new or empty')
    site.check(FILES)
    archive = runtime.package(package)
    site.claim(FILES)
    (site.path / 'ort').mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.effseg-', dir=site.path) as scratch:
        draft = Path(scratch)
        for name in PAGE:
            (draft / name).write_bytes((resources.files('effseg.web') / 'page' / name).read_bytes())
        (draft / 'ort').mkdir()
        runtime.unpack(archive, draft / 'ort')
        shutil.copyfile(path, draft / MODEL)
        (draft / SPEC).write_text(_described(spec, path, unknown_below))
        for name in FILES:
            os.replace(draft / name, site.path / name)
    return folder


def _described(spec, path: Path, unknown_below: float | None) -> str:
    return json.dumps(
        {
            **spec.as_dict(),
            'name': path.stem,
            'artifact_sha256': digest(path),
            'bytes': path.stat().st_size,
            'page': __version__,
            'unknown_below': unknown_below,
        },
        indent=1,
        sort_keys=True,
    )


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves :data:`FILES` of a folder, and nothing else that is in it, with the headers that let WebAssembly use more
    than one thread."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        '.mjs': 'text/javascript',
        '.wasm': 'application/wasm',
        '.onnx': 'application/octet-stream',
    }

    def send_head(self):
        """The file that is asked for, opened; or None, and the error is sent."""
        try:
            name = unquote(urlsplit(self.path).path, errors='strict').lstrip('/') or PAGE[0]
        except ValueError:
            name = '\0'
        if '\0' in name:
            return self.send_error(400)
        file = Path(self.directory).resolve() / name
        if name not in FILES or file.resolve() != file:  # a symbolic link may lead out of the folder
            return self.send_error(404)
        return super().send_head()

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
