"""From a config and a checkpoint to a proven artifact."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import __version__, deploy, files
from ..deploy import presets
from ..deploy.backends import SUFFIXES, backend
from ..deploy.exporting import Export
from ..deploy.program import Unfused
from ..deploy.reference import check_classes
from ..deploy.spec import PRECISIONS, Spec, normalisation
from ..engine.optim import check_bfloat16
from ..errors import ConfigError
from ..fusion.segmentor import check_model, threshold_of
from ..fusion.segmentor import fuse as fuse_model
from ..fusion.trained import Decoder, deciding_head, freeze_random_bases
from .export_all import Exports, write_all
from .export_images import ExportImages
from .opening import open_segmenter

PROOF_IMAGES = 30


@dataclasses.dataclass(frozen=True)
class Options:
    """What the files of a checkpoint are to be.

    Attributes:
        size: (height, width) of the image, multiples of 32; the config's crop when left out.
        output: one of :data:`~effseg.deploy.spec.OUTPUTS`; the preset's when left out, of raw files labels.
        fit: ``'letterbox'``, ``'stretch'`` or ``'windows'``: how a photo of another size goes through the file, see
            :mod:`effseg.deploy.fit`. The preset's when left out, of raw files letterbox.
        preset: the library that the file is for, see :mod:`effseg.deploy.presets`.
        delegate: ``'coreml'`` for a file of ExecuTorch that Core ML computes, in the place of XNNPACK.
        fuse: False exports the network as it was trained, for comparison.
        images: files and folders to compare and calibrate on, instead of the config's data sets.
        proof_images: how many to compare on; more where a class that occurs in the data would not be seen.
        calibration: how many training images, through the validation pipeline, choose the ranges of int8; with 0, or
            where the config's training data are missing, int8 is of weights alone, or of ranges found in every run.
        keep_inaccurate: write fp16 and int8 that cost more accuracy than they may, and say so.
        cfg_options: overrides of the config.
    """

    size: tuple[int, int] | None = None
    output: str | None = None
    fit: str | None = None
    preset: str = 'raw'
    delegate: str | None = None
    fuse: bool = True
    images: list[str] | None = None
    proof_images: int = PROOF_IMAGES
    calibration: int = 64
    keep_inaccurate: bool = False
    cfg_options: dict | None = None


def export(
    config: str,
    checkpoint: str,
    to: str | None = None,
    precision: str = 'fp32',
    path: str | None = None,
    **options: Any,
) -> Export:
    """Writes the fused segmenter of a checkpoint as an artifact, runs it, and keeps it if it computes the same.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights.
        to: the runtime: ``'onnx'``, ``'executorch'``, ``'coreml'``, ``'litert'`` or ``'torch'``; the preset's when
            left out.
        precision: one of :data:`~effseg.deploy.spec.PRECISIONS`, as far as the runtime has it.
        path: of the artifact; beside the checkpoint when left out.
        options: see :class:`Options`.

    Raises:
        EffsegError: for anything that cannot be used, and for an artifact that does not compute what its source does.
    """
    to, asked = _settled(to, options)
    backend(to)
    if precision not in PRECISIONS:
        raise ConfigError(f'precision={precision!r} is unknown; use one of {", ".join(PRECISIONS)}')
    model, spec, images = _opened(config, checkpoint, to, precision, asked)
    _ = images.proof  # what is missing is said before anything is fused
    write = _writer(model, spec, images, asked)
    return write(to, precision, path or _name(Path(checkpoint), spec, to, precision))


def export_all(
    config: str,
    checkpoint: str,
    to: str | None = 'all',
    precision: str = 'all',
    folder: str | None = None,
    **options: Any,
) -> Exports:
    """Writes every artifact that can be had of a checkpoint, which is opened and fused once; one that fails is a row of
    what is returned, and not the end.

    Args:
        config, checkpoint, options: as in :func:`export`.
        to, precision: ``'all'``, or one of those of :func:`export`.
        folder: for the artifacts; that of the checkpoint when left out.

    Raises:
        EffsegError: for a checkpoint or images that cannot be used.
    """
    to, asked = _settled(to, options)
    runtimes = tuple(SUFFIXES) if to == 'all' else (to,)
    precisions = PRECISIONS if precision == 'all' else (precision,)
    model, spec, images = _opened(config, checkpoint, runtimes[0], precisions[0], asked)
    write = _writer(model, spec, images, asked)
    weights = Path(folder or Path(checkpoint).parent, Path(checkpoint).name)
    return write_all(
        lambda to, precision: write(to, precision, _name(weights, spec, to, precision)), runtimes, precisions
    )


def _settled(to: str | None, options: dict) -> tuple[str, Options]:
    """The runtime and the options, where they are left out those of the preset."""
    asked = Options(**options)
    for name in ('proof_images', 'calibration'):
        if getattr(asked, name) < 0:
            raise ConfigError(f'{name}={getattr(asked, name)} must be 0 or more')
    to, output, fit = presets.settle(asked.preset, to, asked.output, asked.fit)
    return to, dataclasses.replace(asked, output=output, fit=fit)


def _name(checkpoint: Path, spec: Spec, to: str, precision: str) -> Path:
    """Beside a checkpoint: of a file, or of the folder that a library expects."""
    stem = checkpoint.with_suffix('')
    if presets.PRESETS[spec.preset].place:
        return stem.with_name(f'{stem.name}_{spec.preset}')
    kind = [] if spec.preset == 'raw' else [spec.preset]
    return stem.with_name('_'.join([stem.name, *kind, *filter(None, [spec.delegate]), precision]) + SUFFIXES[to])


def _opened(config: str, checkpoint: str, to: str, precision: str, asked: Options) -> tuple[Any, Spec, ExportImages]:
    """The trained model, the spec of its file, and the images that the file is proven on."""
    model: Any = open_segmenter(config, checkpoint, cfg_options=asked.cfg_options, device='cpu').trained
    check_model(model)
    preprocessor = model.cfg.model.data_preprocessor
    if not preprocessor.get('bgr_to_rgb'):
        raise ConfigError(
            'the model was trained on BGR images; artifacts take RGB, so data_preprocessor.bgr_to_rgb must be True'
        )
    mean, std = normalisation(preprocessor)
    height, width = asked.size or preprocessor.get('size') or (512, 512)
    assert asked.output and asked.fit  # settled
    spec = Spec(
        backend=to,
        height=height,
        width=width,
        output=asked.output,
        precision=precision,
        mean=mean,
        std=std,
        classes=model.dataset_meta['classes'],
        palette=model.dataset_meta['palette'],
        checkpoint_sha256=files.digest(Path(checkpoint)),
        effseg=__version__,
        align_corners=bool(deciding_head(model).align_corners),
        threshold=threshold_of(model),
        fit=asked.fit,
        preset=asked.preset,
        delegate=asked.delegate,
    )
    check_classes(model, spec)
    return model, spec, ExportImages(model.cfg, spec, asked.images, asked.proof_images, asked.calibration)


def _writer(model: Any, spec: Spec, images: ExportImages, asked: Options) -> Callable[[str, str, str | Path], Export]:
    """What writes a runtime's file of a precision to a path."""
    shape = (spec.height, spec.width)
    if frozen := freeze_random_bases(model, lambda model: Decoder(model)(model.backbone(torch.zeros(1, 3, *shape)))):
        print(f'{frozen} matrix decomposition(s): random bases, drawn for every image in training, frozen in the file')
    if asked.fuse:
        fused = fuse_model(model, size=shape)
        print('\n'.join(fused.parts))
    network = fused.exportable() if asked.fuse else Unfused(model)

    proven: set[str] = set()  # runtimes whose fp32 file passed

    @torch.no_grad()
    def write(to: str, precision: str, path: str | Path) -> Export:
        if precision == 'bf16' and to == 'torch':
            check_bfloat16()
        own = dataclasses.replace(spec, backend=to, precision=precision)
        proof, masks = images.proof
        calibration = images.calibration if precision == 'int8' else []
        done = deploy.export(model, network, own, path, proof, calibration, masks, asked.keep_inaccurate, to in proven)
        if precision == 'fp32':
            proven.add(to)
        return done

    return write
