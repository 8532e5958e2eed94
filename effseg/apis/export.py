"""From a config and a checkpoint to a proven artifact."""

from pathlib import Path

import numpy as np
import torch

from .. import __version__, deploy, files
from ..datasets.images import read_image
from ..deploy.backends import SUFFIXES, backend
from ..deploy.exporting import Export, Unfused
from ..deploy.images import fit, fit_mask
from ..deploy.spec import PRECISIONS, Spec
from ..errors import ConfigError, DataError
from ..fusion.segmentor import fuse as fuse_model
from .opening import open_segmenter
from .predict import find_images

PROOF_IMAGES = 30


def export(
    config: str,
    checkpoint: str,
    to: str,
    size: tuple[int, int] | None = None,
    output: str = 'labels',
    precision: str = 'fp32',
    calibration: int = 64,
    images: list[str] | None = None,
    proof_images: int = PROOF_IMAGES,
    fuse: bool = True,
    path: str | None = None,
    cfg_options: dict | None = None,
) -> Export:
    """Writes the fused segmenter of a checkpoint as an artifact, runs it, and keeps it if it computes the same.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights.
        to: the runtime: ``'onnx'``, ``'executorch'``, ``'coreml'`` or ``'litert'``.
        size: (height, width) of the image, multiples of 32; the config's crop when left out.
        output: ``'labels'`` or ``'logits'``.
        precision: ``'fp32'``, ``'fp16'`` or ``'int8'``.
        calibration: how many training images, through the validation pipeline, choose the ranges of int8.
        images: files and folders to compare and calibrate on, instead of the config's data sets.
        proof_images: how many to compare on.
        fuse: False exports the network as it was trained, for comparison.
        path: of the artifact; beside the checkpoint when left out.
        cfg_options: overrides of the config.

    Raises:
        EffsegError: for anything that cannot be used, and for an artifact that does not compute what its source does.
    """
    backend(to)
    if precision not in PRECISIONS:
        raise ConfigError(f'precision={precision!r} is unknown; use one of {", ".join(PRECISIONS)}')
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained
    spec = _spec(model, checkpoint, to, size, output, precision)
    shape = (spec.height, spec.width)
    proof, masks = _images(model.cfg, 'val_dataloader', images, proof_images, shape, spec.mean)
    ranges = (
        _images(model.cfg, 'train_dataloader', images, calibration, shape, spec.mean)[0] if precision == 'int8' else []
    )
    network = fuse_model(model, size=shape).exportable() if fuse else Unfused(model)
    path = path or Path(checkpoint).with_suffix('').as_posix() + f'_{precision}{SUFFIXES[to]}'
    with torch.no_grad():
        return deploy.export(model, network, spec, path, proof, ranges, masks)


def _spec(model, checkpoint: str, to: str, size: tuple[int, int] | None, output: str, precision: str) -> Spec:
    preprocessor = model.cfg.model.data_preprocessor
    if not preprocessor.get('bgr_to_rgb'):
        raise ConfigError(
            'the model was trained on BGR images; artifacts take RGB, so data_preprocessor.bgr_to_rgb must be True'
        )
    height, width = size or preprocessor.get('size') or (512, 512)
    return Spec(
        backend=to,
        height=height,
        width=width,
        output=output,
        precision=precision,
        mean=preprocessor.mean,
        std=preprocessor.std,
        classes=model.dataset_meta['classes'],
        palette=model.dataset_meta['palette'],
        checkpoint_sha256=files.digest(Path(checkpoint)),
        effseg=__version__,
    )


def _images(
    cfg, loader: str, sources: list[str] | None, count: int, size: tuple[int, int], fill: tuple[float, ...]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Real images of the artifact's size at three sizes of content, and their masks: from files, which have none, or
    spread over a data set of the config, through its test pipeline."""
    if sources:
        files = find_images(sources)[: max(count, 0)]
        return [fit(read_image(file), size, number, fill) for number, file in enumerate(files)], []
    from mmseg.registry import DATASETS

    data = dict(
        cfg[loader].dataset,
        pipeline=cfg.test_pipeline if 'test_pipeline' in cfg else cfg.test_dataloader.dataset.pipeline,
    )
    try:
        dataset = DATASETS.build(data)
        chosen = (
            np.linspace(0, len(dataset) - 1, min(max(count, 0), len(dataset))).round().astype(int)
            if len(dataset)
            else []
        )
        samples = [dataset[index] for index in chosen]
    except (OSError, ValueError) as error:
        raise DataError(
            f"the config's {loader} gives no images ({error}); put the data where the config says or name a folder of "
            'pictures with --images'
        ) from error
    pictures = [sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1] for sample in samples]
    masks = [
        fit_mask(sample['data_samples'].gt_sem_seg.data[0].numpy().astype(np.uint8), picture.shape[:2], size, number)
        for number, (sample, picture) in enumerate(zip(samples, pictures))
        if 'gt_sem_seg' in sample['data_samples']
    ]
    return [fit(picture, size, number, fill) for number, picture in enumerate(pictures)], masks if len(masks) == len(
        pictures
    ) else []
