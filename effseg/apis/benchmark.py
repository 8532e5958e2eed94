"""From a config to a benchmark: the model, an image for it, and logits to label."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from PIL import Image
from torch import Tensor, nn

from ..benchmarks.artifacts import compare_artifacts
from ..benchmarks.compare import compare, logits_of
from ..benchmarks.family import compare_family, shipped_models
from ..checkpoint.load import load_segmentor
from ..datasets.images import open_image, read_image
from ..demo.scenes import draw_scene
from ..engine.config import load_config
from ..errors import ConfigError, DataError
from ..fusion.segmentor import check_size
from ..stack import resources

STRIDE = 4


def benchmark(
    config: str,
    checkpoint: str | None = None,
    image: str | None = None,
    label_map: str | None = None,
    size: tuple[int, int] = (512, 512),
    runs: int = 10,
    threads: tuple[int, ...] = (1, 2),
    compiled: bool = False,
    cfg_options: dict | None = None,
) -> None:
    """Prints how the fused segmenter of a config compares with MMSegmentation's own.

    Args:
        config: path, or ``effseg::NAME.py``.
        checkpoint: trained weights; random ones when left out.
        image: a picture; a drawn scene when left out.
        label_map: a PNG of class numbers to make the logits of the label step from; when left out they are the model's,
            and with random weights those of the drawn scene's label map.
        size: (H, W) that the picture is resized to.
        runs, threads, compiled: see :func:`effseg.benchmarks.compare.compare`.
        cfg_options: overrides of the config.

    Raises:
        EffsegError: for a config, checkpoint or image that cannot be used.
    """
    from mmseg.registry import MODELS

    size = check_size(size)
    _check_counts(runs, threads)
    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    if checkpoint:
        load_segmentor(model, checkpoint)
    scene, truth = draw_scene(size, np.random.default_rng(0))
    picture = read_image(image) if image else scene
    label_logits = None
    if label_map or not checkpoint:
        labels = _read_labels(label_map) if label_map else truth
        labels = Image.fromarray(labels).resize(
            (-(-size[1] // STRIDE), -(-size[0] // STRIDE)), Image.Resampling.NEAREST
        )
        label_logits = logits_of(torch.from_numpy(np.array(labels)).long(), model.num_classes)
    print(
        f'{checkpoint or "random weights"}, {image or "a drawn scene"}, '
        f'labels of {label_map or ("the drawn scene" if not checkpoint else "the model")}'
    )
    compare(model, _normalised(model, picture, size), label_logits, runs, threads, compiled)


def benchmark_artifacts(
    paths: list[str],
    config: str | None = None,
    checkpoint: str | None = None,
    image: str | None = None,
    runs: int = 10,
    threads: tuple[int, ...] = (1, 2),
    cfg_options: dict | None = None,
) -> None:
    """Prints how exported files compare with each other, and with MMSegmentation's predict where a config is given.

    Args:
        paths: artifacts of one image size; one of ``tools/export.py --unfused`` shows what the fusion gains.
        config, checkpoint, cfg_options: of the reference, see :func:`benchmark`.
        image: a picture; a drawn scene when left out.
        runs, threads: see :func:`effseg.benchmarks.compare.compare`.

    Raises:
        EffsegError: for an artifact, config, checkpoint or image that cannot be used.
    """
    _check_counts(runs, threads)
    predict = None
    if config:
        from mmseg.registry import MODELS

        cfg = load_config(config, cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
        if checkpoint:
            load_segmentor(model, checkpoint)

        @torch.inference_mode()
        def predict(picture: np.ndarray) -> object:
            data = dict(inputs=[torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy())])
            return model.predict(model.data_preprocessor(data, False)['inputs'])

    picture = read_image(image) if image else draw_scene((512, 512), np.random.default_rng(0))[0]
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            compare_artifacts(paths, picture, runs, count, predict)
    finally:
        torch.set_num_threads(before)


def benchmark_family(size: tuple[int, int] = (512, 512), runs: int = 10, threads: tuple[int, ...] = (1, 2)) -> None:
    """Prints one line per shipped model, with random weights.

    Args:
        size: (H, W) of the image.
        runs, threads: see :func:`effseg.benchmarks.family.compare_family`.

    Raises:
        EffsegError: for a size that cannot be used.
    """
    size = check_size(size)
    _check_counts(runs, threads)
    compare_family(_shipped(), size, runs, threads)


def _check_counts(runs: int, threads: tuple[int, ...]) -> None:
    if runs < 1 or not threads or min(threads) < 1:
        raise ConfigError(f'{runs} runs on {list(threads)} threads were asked for; each takes a number of 1 or more')


def _shipped() -> Iterator[tuple[str, nn.Module]]:
    from mmseg.registry import MODELS

    for path in shipped_models(resources() / 'configs'):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of defaults that matter in training alone
            cfg = load_config(str(path))
            init_default_scope(cfg.get('default_scope', 'mmseg'))
            model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
        yield path.stem.removeprefix('fpn_').removesuffix('_ade20k'), model


def _read_labels(path: str) -> np.ndarray:
    """
    Raises:
        DataError: when the file is no 8-bit label map.
    """
    try:
        with open_image(path) as picture:
            labels = np.array(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{path} cannot be read as a label map: {error}') from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            f'{path} holds {labels.dtype} of shape {labels.shape}; 8-bit class numbers (H, W) were expected'
        )
    return labels


def _normalised(model: nn.Module, picture: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A picture (H, W, 3) RGB as the network sees it: (1, 3, H, W)."""
    resized = np.array(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    bgr = torch.from_numpy(resized[..., ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        return model.data_preprocessor(dict(inputs=[bgr]), False)['inputs']
