"""Exported files beside each other, and beside MMSegmentation's predict."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from .. import deploy, files
from ..apis.opening import open_segmenter
from ..datasets.images import read_image
from ..demo.scenes import draw_scene
from ..errors import ArtifactError
from ..timing import MB, peak_memory, time_in_turn
from .measure import check_counts, normalised, thread_counts


def compare_artifacts(
    paths: Sequence[str],
    config: str | None = None,
    checkpoint: str | None = None,
    image: str | None = None,
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    cfg_options: dict | None = None,
) -> None:
    """Prints how exported files compare with each other, and with MMSegmentation's predict where a config is given.

    Args:
        paths: artifacts of one image size; one of ``tools/export.py --unfused`` shows what the fusion gains.
        config, checkpoint, cfg_options: of the reference, see :func:`compare_fused`.
        image: a file, resized to the artifacts' size; a drawn scene when left out.
        runs: of each.
        threads: for ONNX Runtime, LiteRT and torch; ExecuTorch's Python runtime takes as many as there are cores.

    Raises:
        EffsegError: for an artifact, config, checkpoint or image that cannot be used, and artifacts of several sizes.
    """
    check_counts(runs, threads)
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained if config else None
    pixels = read_image(image) if image else draw_scene((512, 512), np.random.default_rng(0))[0]
    for count in thread_counts(threads):
        loaded, seconds, peaks = {}, {}, {}
        for path in paths:
            # of loading and the first run: runtimes set their memory aside in the one or the other
            with peak_memory() as peaks[path]:
                started = time.perf_counter()
                loaded[path] = deploy.load(path, count)
                seconds[path] = time.perf_counter() - started
                loaded[path](np.zeros(loaded[path].spec.image_shape, np.uint8))
        specs = {artifact.spec.image_shape for artifact in loaded.values()}
        if len(specs) > 1:
            raise ArtifactError(
                f'the artifacts take images of {sorted(specs)}; only artifacts of one size can be compared'
            )
        ((height, width, _),) = specs
        resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        contestants: dict[str, Callable[[], object]] = {}
        if model is not None:
            contestants['MMSegmentation predict'] = partial(_predict, model, resized)
        contestants |= {path: partial(artifact.labels, resized) for path, artifact in loaded.items()}
        timings = time_in_turn(contestants, runs)
        print(f'image to labels, {height}x{width}, {count} thread(s), {runs} runs in turn')
        first = next(iter(timings.values())).median
        for name, timing in timings.items():
            if name not in peaks:
                with peak_memory() as peaks[name]:
                    contestants[name]()
            tail = statistics.quantiles(timing.seconds, n=10)[-1] if runs > 1 else timing.median
            of_file = f'  {files.size(Path(name)) / MB:6.1f} MB  load {seconds[name]:.2f} s' if name in loaded else ''
            print(
                f'  {Path(name).name:40s} median {1e3 * timing.median:7.1f} ms  p90 {1e3 * tail:7.1f} ms  '
                f'{first / timing.median:5.2f}x  {peaks[name]}{of_file}'
            )


def _predict(model: nn.Module, image: np.ndarray) -> object:
    """MMSegmentation's own way from an image (H, W, 3) RGB to its label map."""
    with torch.inference_mode():
        return model.predict(normalised(model, image, image.shape[:2]))
