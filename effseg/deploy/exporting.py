"""Writing an artifact, and keeping it only if it computes what the trained model computes."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from .. import files
from ..errors import ArtifactError, ConfigError, DataError
from . import parity
from .artifact import load
from .backends import SUFFIXES, Delegation, backend
from .program import Unfused
from .quantize import attempts, quality, survived
from .spec import Spec, beside, write_beside


@dataclass(frozen=True)
class Export:
    """What an export did.

    Attributes:
        path: the artifact.
        spec: of the artifact.
        parity: the numbers of its proof; None where the runtime cannot run on this machine.
        floats: layers that int8 leaves in float: the norms, and where it was seen to hurt.
        delegation: what its runtime accelerates.
        megabytes: its size, 1 MB = 10^6 bytes.
        seconds: from the network to the proven file.
    """

    path: Path
    spec: Spec
    parity: parity.Parity | None
    delegation: Delegation
    floats: tuple[str, ...]
    megabytes: float
    seconds: float

    def __str__(self):
        proof = (
            self.parity or 'converted, not run: this runtime runs on macOS only. Run the same command there to compare'
        )
        if self.spec.precision == 'int8':
            proof = f'kept in float, as measured: {", ".join(self.floats) or "nothing"}\n{proof}'
        return (
            f'{self.path}  {self.spec.backend} {self.spec.precision} {self.spec.output} '
            f'{self.spec.height}x{self.spec.width}  {self.megabytes:.1f} MB  '
            f'{self.seconds:.0f} s\n{self.delegation}\n{proof}'
        )


def export(
    model: nn.Module,
    network: nn.Module,
    spec: Spec,
    path: str | Path,
    images: Sequence[np.ndarray],
    calibration: Sequence[np.ndarray] = (),
    masks: Sequence[np.ndarray] = (),
) -> Export:
    """Writes ``network`` as an artifact and proves it against ``model``. Nothing is left behind by an export that
    fails.

    Args:
        model: the trained MMSegmentation model, unfused.
        network: what is exported; usually ``effseg.fuse(model, size).exportable()``. Has ``logits(x)``.
        spec: of the artifact.
        path: where to, with the runtime's suffix.
        images: (H, W, 3) uint8 RGB of the spec's size, real ones, to compare on.
        calibration: likewise, to choose the ranges of int8 on.
        masks: (H, W) uint8 labels of the first ``images``, to score both networks on.

    Raises:
        ConfigError: for a combination that the runtime has not.
        DataError: without images to compare on, or to calibrate on where the precision takes them.
        MissingRuntimeError: naming the extra to install.
        ParityError: when the artifact does not reach the threshold of its precision.
    """
    path, writer, started = Path(path), backend(spec.backend), time.perf_counter()
    _check(path, writer.PRECISIONS, spec, images, calibration)
    path.parent.mkdir(parents=True, exist_ok=True)
    runs_here = getattr(writer, 'runs_here', lambda: True)()
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        best: tuple[Path, parity.Parity | None, Delegation, tuple[str, ...]] | None = None
        for number, floats in enumerate(attempts(network.eval(), spec, calibration)):
            draft = Path(folder) / str(number) / path.name
            draft.parent.mkdir()
            delegation = writer.export(network, spec, draft, list(calibration), floats)
            proof = parity.compare(load(draft), Unfused(model), spec, images, masks) if runs_here else None
            if best is None or proof is None or best[1] is None or quality(proof) > quality(best[1]):
                best = draft, proof, delegation, floats
            if proof is None or spec.precision != 'int8' or survived(proof):
                break
        assert best is not None  # there is at least one attempt
        draft, proof, delegation, floats = best
        if proof:
            parity.judge(proof, spec.precision)
        write_beside(beside(draft), spec, draft, proof.as_dict() if proof else {})
        _replace(draft, path)
        _replace(beside(draft), beside(path))
    return Export(path, spec, proof, delegation, floats, files.size(path) / 1e6, time.perf_counter() - started)


def _check(
    path: Path, precisions: Sequence[str], spec: Spec, images: Sequence[np.ndarray], calibration: Sequence[np.ndarray]
) -> None:
    if spec.precision not in precisions:
        raise ConfigError(
            f'--precision {spec.precision} does not exist for {spec.backend}; use one of {", ".join(precisions)}'
        )
    if path.suffix != SUFFIXES[spec.backend]:
        raise ConfigError(f'{path} must end in {SUFFIXES[spec.backend]} to be read by {spec.backend}')
    if path.is_dir() and not (path.suffix == '.mlpackage' and (path / 'Manifest.json').is_file()):
        raise ConfigError(f'{path} is a folder of yours, which would be deleted: give another name')
    if not len(images):
        raise DataError('there is no image to compare the artifact with its source on; without one no file is written')
    if spec.precision == 'int8' and not len(calibration):
        raise DataError('int8 takes images to calibrate on: --calibration N with N of 1 or more')
    for image in (*images, *calibration):
        if image.shape != spec.image_shape or image.dtype != np.uint8:
            raise DataError(f'an image of {image.dtype} {image.shape} came where uint8 {spec.image_shape} was expected')


def _replace(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    try:
        source.replace(target)
    except OSError as error:
        raise ArtifactError(f'{target} cannot be written: {error.strerror}') from error
