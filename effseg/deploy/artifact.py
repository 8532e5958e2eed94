"""Running an artifact: one image in, logits or labels out; or a photo of any size in, its labels out."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, ConfigError, DataError
from .backends import Session, backend_of
from .fit import confident_of, labels_of
from .interface import given, input_port, output_ports, taken
from .spec import Spec, check_seal, lost_seal, read_beside


class Artifact:
    """An exported segmenter that is ready to run. Made by :func:`load`."""

    def __init__(self, path: Path, spec: Spec, session: Session):
        self.path = path
        self.spec = spec
        self._run = session.run

    def __call__(self, image: np.ndarray) -> Any:
        """
        Args:
            image: (H, W, 3) uint8 RGB of the artifact's size (``spec.height``, ``spec.width``), not normalised.

        Returns:
            Logits (channels, h, w) float32, of the size ``spec.grid``, or labels (H, W) int32, or these and their
            confidence (H, W) float32, as ``spec.output`` says.

        Raises:
            DataError: for an image of another shape or type.
        """
        if not isinstance(image, np.ndarray) or image.shape != self.spec.image_shape or image.dtype != np.uint8:
            came = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
            raise DataError(
                f'{self.path.name} takes a uint8 RGB array of shape {self.spec.image_shape} (height, width, 3) and '
                f'got {came}; labels() takes photos of any size'
            )
        return taken(self._run(given(image, self.spec)), self.spec)

    def labels(self, photo: np.ndarray, fit: str | None = None) -> np.ndarray:
        """The class of every pixel of a photo, whichever of logits and labels the file returns: (h, w) int32.

        Args:
            photo: (h, w, 3) uint8 RGB of any size, not normalised.
            fit: another one than the file's: see :mod:`effseg.deploy.fit`.

        Raises:
            DataError: for an array of another kind.
        """
        return labels_of(photo, self._fitted(photo, fit), self)

    def confident(self, photo: np.ndarray, fit: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The class of every pixel of a photo, and its probability: the softmax or sigmoid of the logits.

        Args:
            photo, fit: as in :meth:`labels`.

        Returns:
            (h, w) int32 and (h, w) float32, 0 to 1.

        Raises:
            ConfigError: for a file that returns labels alone.
            DataError: for an array of another kind.
        """
        if self.spec.output == 'labels':
            raise ConfigError(
                f'{self.path.name} returns labels alone, which have no confidence; export it with --output '
                'labels+confidence, or logits'
            )
        return confident_of(photo, self._fitted(photo, fit), self)

    def _fitted(self, photo: np.ndarray, fit: str | None) -> Spec:
        """The spec with the fit that a photo goes by. Raises DataError for what is no photo."""
        shape = np.shape(photo)
        if len(shape) != 3 or shape[2] != 3 or not min(shape) or getattr(photo, 'dtype', None) != np.uint8:
            came = f'{photo.dtype} {shape}' if isinstance(photo, np.ndarray) else type(photo).__name__
            raise DataError(
                f"a photo is a uint8 RGB array of shape (height, width, 3), and {came} came; Pillow's "
                ".convert('RGB') makes it of grey, transparent and other images"
            )
        return self.spec if fit is None else dataclasses.replace(self.spec, fit=fit)


def load(path: str | Path, threads: int | None = None) -> Artifact:
    """Opens an artifact: .onnx, .pte, .tflite or .pt2, and on macOS .mlpackage.

    Args:
        path: of the file.
        threads: for the runtimes that can be told; None is the runtime's own choice.

    Raises:
        ArtifactError: when there is no such file, it is cut or foreign, or its spec contradicts it.
        MissingRuntimeError: when its runtime is not installed; names the extra.
    """
    path = Path(path)
    if not path.is_file() and not (path.is_dir() and path.suffix == '.mlpackage'):
        raise ArtifactError(f'no artifact at {path}')
    backend = backend_of(path)
    expected = read_beside(path)
    sealed = expected is not None or check_seal(path)
    session = backend.load(path, threads)
    if session.spec is None:
        raise ArtifactError(
            f'{path} runs, and was not written by effseg: it does not say what it expects and returns. Export with '
            'tools/export.py'
        )
    spec = Spec.from_json(session.spec, str(path))
    if not sealed and lost_seal(session.spec):
        raise ArtifactError(f'{path} has lost the digest inside it; it is corrupted, copy it again')
    if expected is not None and expected != spec:
        raise ArtifactError(
            f'{path} and the spec beside it contradict each other; copy both files again or delete the spec'
        )
    _check_shapes(path, spec, session)
    return Artifact(path, spec, session)


def _check_shapes(path: Path, spec: Spec, session: Session) -> None:
    wanted = tuple(port.shape for port in (input_port(spec), *output_ports(spec)))
    if session.shapes != wanted:
        raise ArtifactError(
            f'{path} takes {session.shapes[0]} and returns {session.shapes[1:]}; its spec says {wanted[0]} and '
            f'{wanted[1:]}. One of them was exchanged; export the model again'
        )
