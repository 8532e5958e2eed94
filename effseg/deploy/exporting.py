"""Writing an artifact, and keeping it only if it computes what the trained model computes."""

import dataclasses
import functools
import linecache
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from .. import files
from ..errors import ArtifactError, ConfigError, DataError, EffsegError, ParityError
from . import parity, presets
from .accelerator import Accelerated, accelerated, check_file
from .artifact import load
from .backends import SUFFIXES, Delegation, backend
from .quantize import attempts, quality, survived, unlike
from .reference import Reference
from .spec import Spec, beside, read_beside, seal, write_beside

WEIGHTS_ALONE = 'INT8 OF WEIGHTS ALONE: the maps stay in float'


@dataclass(frozen=True)
class Export:
    """What an export did.

    Attributes:
        path: the artifact.
        spec: of the artifact.
        parity: the numbers of its proof.
        accelerated: of its proof in half precision; None of int8, which CPUs and NPUs run, and of
            runtimes that no phone's accelerator runs.
        interpreted: whether the proof evaluated the file's program in torch, since its runtime does not run here.
        inaccuracy: what of its aim the file misses, and was kept all the same; None where it misses nothing.
        calibrated: how many images chose the ranges of int8.
        floats: layers that int8 leaves in float: the norms, and where it was seen to hurt.
        unlike: how the images that int8 was calibrated on differ from those it was compared on; None where they do not.
        delegation: what its runtime accelerates.
        megabytes: its size, 1 MB = 10^6 bytes.
        seconds: from the network to the proven file.
    """

    path: Path
    spec: Spec
    parity: parity.Parity
    accelerated: Accelerated | None
    interpreted: bool
    inaccuracy: str | None
    delegation: Delegation
    calibrated: int
    floats: tuple[str, ...]
    unlike: str | None
    megabytes: float
    seconds: float

    def __str__(self):
        proof = f'{self.parity}'
        if self.interpreted:
            proof += '\ninterpreted in torch, not run: Core ML runs on macOS only. There the same command compares'
        if self.accelerated:
            proof += f'\n{self.accelerated}'
        if self.inaccuracy:
            proof += f'\nINACCURATE, kept because you said so: {self.inaccuracy}'
        elif self.accelerated and self.accelerated.shortfall:
            proof += f'\nWARNING, run it on CPUs alone: {self.accelerated.shortfall}'
        if self.spec.precision == 'int8':
            proof = f'kept in float, as measured: {", ".join(self.floats) or "nothing"}\n{proof}'
            if not self.calibrated:
                proof = f'{getattr(backend(self.spec.backend), "UNCALIBRATED", WEIGHTS_ALONE)}\n{proof}'
        if self.unlike:
            proof += f'\nWARNING, calibrated on other images than it was compared on: {self.unlike}'
        return (
            f'{self.path}  {self.spec.backend} {self.spec.precision} {self.spec.output} '
            f'{self.spec.height}x{self.spec.width} {self.spec.fit} for {self.spec.preset}  {self.megabytes:.1f} MB  '
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
    keep_inaccurate: bool = False,
    proven: bool = False,
) -> Export:
    """Writes ``network`` as an artifact and proves it against ``model``. Nothing is left behind by an export that
    fails.

    What is to be fp16 or int8 is written and proved in fp32 first: rounding would hide that another network was
    converted, or with another mean.

    Args:
        model: the trained MMSegmentation model, unfused, with its data preprocessor.
        network: what is exported; usually ``effseg.fuse(model, size).exportable()``. Has ``logits(x)``.
        spec: of the artifact; its ``grid`` is measured.
        path: where to, with the runtime's suffix; the folder, where the spec's preset has one.
        images: (H, W, 3) uint8 RGB of the spec's size, real ones, to compare on.
        calibration: likewise, to choose the ranges of int8 on; without any, int8 is of weights alone, or the
            ranges are found in every run (ExecuTorch).
        masks: (H, W) uint8 labels of the first ``images``, to score both networks on.
        keep_inaccurate: keep fp16 and int8 that miss their aim (:func:`effseg.deploy.parity.inaccuracy`).
        proven: the fp32 file of the same network and runtime passed on the same images, and is not made again.

    Raises:
        ConfigError: for a combination that the runtime has not, and a head of other classes than the spec's.
        DataError: without images to compare on.
        MissingRuntimeError: naming the extra to install.
        ParityError: when the artifact does not reach the threshold of its precision.
    """
    out, writer, started = Path(path), backend(spec.backend), time.perf_counter()
    path = presets.artifact_path(spec, out)
    _check(path, writer, spec, images, calibration)
    presets.check_place(spec, out, again=_written_for(path, spec.preset))
    path.parent.mkdir(parents=True, exist_ok=True)
    reference = Reference(model, spec, images, masks)
    spec = dataclasses.replace(spec, grid=reference.grid)
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        drafts = _Drafts(writer, network, spec, reference, Path(folder), path.name)
        if spec.precision != 'fp32' and not proven:
            parity.judge(drafts.write('fp32').proof, 'fp32')
        draft = drafts.best(calibration, images)
        drafts.judge(draft, keep_inaccurate)
        half = drafts.in_half(draft)
        missed = parity.inaccuracy(draft.proof, spec.precision)
        if half and spec.precision != 'fp32':
            half.judge(keep_inaccurate)
            missed = missed or half.shortfall
        calibrated = 0 if spec.backend == 'coreml' else len(calibration)
        done = Export(
            path=path,
            spec=spec,
            parity=draft.proof,
            accelerated=half,
            interpreted=not drafts.run_here,
            inaccuracy=missed,
            delegation=draft.delegation,
            calibrated=calibrated,
            floats=draft.floats,
            unlike=unlike(network, spec, calibration, images) if calibrated and spec.precision == 'int8' else None,
            megabytes=files.size(draft.path) / 1e6,
            seconds=time.perf_counter() - started,
        )
        _keep(done, draft.path, out)
    return done


@dataclass(frozen=True)
class _Draft:
    """A file that may be kept."""

    path: Path
    proof: parity.Parity
    delegation: Delegation
    floats: tuple[str, ...]  # layers that int8 leaves in float


class _Drafts:
    """Writes files of one network and proves them, in a folder where none is kept.

    Args:
        writer: of :mod:`effseg.deploy.backends`.
        network, spec: see :func:`export`; the spec's precision is that of the file to be kept.
        reference: what the files are proved against.
        folder: empty.
        name: of the files.

    Attributes:
        run_here: whether this machine has what runs the files; otherwise they are interpreted.
    """

    def __init__(
        self, writer: ModuleType, network: nn.Module, spec: Spec, reference: Reference, folder: Path, name: str
    ):
        self.writer, self.network, self.spec, self.reference = writer, network.eval(), spec, reference
        self.folder, self.name = folder, name
        self.run_here = getattr(writer, 'runs_here', lambda spec: True)(spec)

    def write(self, precision: str, calibration: Sequence[np.ndarray] = (), floats: tuple[str, ...] = ()) -> _Draft:
        """Writes a file and proves it."""
        spec = dataclasses.replace(self.spec, precision=precision)
        path = Path(tempfile.mkdtemp(dir=self.folder), self.name)
        delegation = _convert(self.writer, self.network, spec, path, list(calibration), floats)
        seal(path)
        return _Draft(path, parity.compare(self._opened(path), self.reference, spec), delegation, floats)

    def best(self, calibration: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> _Draft:
        """The file, of int8 the best of several: more and more layers stay in float until one survives."""
        drafts: list[_Draft] = []
        for floats in attempts(self.network, self.spec, calibration or images):
            drafts.append(self.write(self.spec.precision, calibration, floats))
            if self.spec.precision != 'int8' or survived(drafts[-1].proof):
                break
        return max(drafts, key=lambda draft: quality(draft.proof))

    def judge(self, draft: _Draft, keep_inaccurate: bool) -> None:
        """Refuses a file that does not compute what the model does, or what the network does in its precision."""
        try:
            parity.judge(draft.proof, self.spec.precision, keep_inaccurate)
        except ParityError:
            if self.spec.precision == 'fp16' and (half := self.in_half(draft)) and half.overflow:
                half.judge()  # names the layer
            raise
        if self.spec.precision in ('fp16', 'bf16'):
            check_file(self._opened(draft.path), self.network, self.reference, self.spec)

    def in_half(self, draft: _Draft) -> Accelerated | None:
        """The figures of a file on an fp16 accelerator; None of int8, and where no such device runs it."""
        if not hasattr(self.writer, 'in_torch') or self.spec.precision not in ('fp32', *self.writer.HALF):
            return None
        return accelerated(self.writer.in_torch(self.network, self.spec, draft.path), self.reference, self.spec)

    def _opened(self, path: Path) -> Callable[[np.ndarray], Any]:
        if self.run_here:
            return load(path)
        return functools.partial(self.writer.in_torch(self.network, self.spec, path).run, spec=self.spec)


def _written_for(path: Path, preset: str) -> bool:
    """Whether an earlier export for the same library lies at a path, unchanged."""
    try:
        earlier = read_beside(path)
    except (ArtifactError, OSError):
        return False
    return earlier is not None and earlier.preset == preset


def _convert(writer: ModuleType, network: nn.Module, *arguments: Any) -> Delegation:
    """Writes a file. Raises ArtifactError for a network that the runtime's converter does not take, naming the
    operator and the module."""
    try:
        return writer.export(network, *arguments)
    except (EffsegError, OSError, MemoryError):
        raise
    except Exception as error:  # converters share no base below it
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) and len(chain) < 8:
            chain.append(cause)
        operators = re.findall(r'(?:aten|prims)[.:]+[a-z_0-9]+', '\n'.join(str(one) for one in chain))
        where, place = f', operator {operators[0]}' if operators else '', ''
        frames = [pair for one in chain for pair in traceback.walk_tb(one.__traceback__)]
        for frame, line in frames:  # the last one is the innermost module whose forward was running
            owner = frame.f_locals.get('self')
            if isinstance(owner, nn.Module) and not type(owner).__module__.startswith('torch.'):
                code = linecache.getline(frame.f_code.co_filename, line).strip()
                place = f', in {type(owner).__name__}.{frame.f_code.co_name}: {code}'
        where += place
        first = next((line for line in str(chain[-1]).splitlines() if line.strip()), '')
        raise ArtifactError(
            f'{writer.__name__.rpartition(".")[2]} cannot convert this network{where}: {type(chain[-1]).__name__}: '
            f'{first[:300]}. No file was written; try --unfused, or another runtime'
        ) from error


def _check(
    path: Path, writer: ModuleType, spec: Spec, images: Sequence[np.ndarray], calibration: Sequence[np.ndarray]
) -> None:
    delegates = {None: writer.PRECISIONS, **getattr(writer, 'DELEGATES', {})}
    if spec.precision not in delegates[spec.delegate]:
        why = getattr(writer, 'MISSING', {}).get(spec.precision) if spec.delegate is None else None
        owner = f'{spec.backend}, --backend {spec.delegate}' if spec.delegate else spec.backend
        raise ConfigError(
            f'--precision {spec.precision} does not exist for {owner}{f" ({why})" if why else ""}; use one of '
            f'{", ".join(delegates[spec.delegate])}'
        )
    if path.suffix != SUFFIXES[spec.backend]:
        raise ConfigError(f'{path} must end in {SUFFIXES[spec.backend]} to be read by {spec.backend}')
    package = path.suffix == '.mlpackage' and (path / 'Manifest.json').is_file()
    for place in (beside(path), *([] if package else [path])):
        if place.is_dir():
            raise ConfigError(f'{place} is a folder of yours, which would be deleted: give another name')
    if not len(images):
        raise DataError('there is no image to compare the artifact with its source on; without one no file is written')
    for image in (*images, *calibration):
        if image.shape != spec.image_shape or image.dtype != np.uint8:
            raise DataError(f'an image of {image.dtype} {image.shape} came where uint8 {spec.image_shape} was expected')


def _keep(done: Export, draft: Path, out: Path) -> None:
    """Puts a proven file and its spec in their places, beside what its preset wants in ``out``."""
    numbers = dict(
        dataclasses.asdict(done.parity),
        calibrated=done.calibrated,
        calibration_unlike=done.unlike,
        inaccuracy=done.inaccuracy,
        fp16_accelerator=done.accelerated and done.accelerated.as_dict(),
    )
    write_beside(beside(draft), done.spec, draft, numbers)
    presets.write_beside(done.spec, out)
    _replace(draft, done.path)
    _replace(beside(draft), beside(done.path))


def _replace(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    try:
        source.replace(target)
    except OSError as error:
        raise ArtifactError(f'{target} cannot be written: {error.strerror}') from error
