"""Artifacts side by side with MMSegmentation's predict: size, load time, latency, memory."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .. import files
from ..deploy import label_map, load
from ..errors import ArtifactError
from ..timing import MB, peak_memory, time_in_turn


def compare_artifacts(
    paths: Sequence[str],
    picture: np.ndarray,
    runs: int,
    threads: int,
    predict: Callable[[np.ndarray], object] | None = None,
) -> None:
    """Prints one line per artifact, all of them run in turn in this process.

    Args:
        paths: artifacts of one image size.
        picture: (h, w, 3) uint8 RGB, resized to that size.
        runs: of each.
        threads: for ONNX Runtime, LiteRT and torch; ExecuTorch's Python runtime takes as many as there are cores.
        predict: MMSegmentation's on the same image, as the reference.

    Raises:
        ArtifactError: for a file that cannot be run, or one of another size than the first.
    """
    loaded, seconds, peaks = {}, {}, {}
    for path in paths:
        with peak_memory() as peaks[
            path
        ]:  # of loading and the first run: runtimes set their memory aside in the one or the other
            started = time.perf_counter()
            loaded[path] = load(path, threads)
            seconds[path] = time.perf_counter() - started
            loaded[path](np.zeros(loaded[path].spec.image_shape, np.uint8))
    specs = {artifact.spec.image_shape for artifact in loaded.values()}
    if len(specs) > 1:
        raise ArtifactError(f'the artifacts take images of {sorted(specs)}; only artifacts of one size can be compared')
    ((height, width, _),) = specs
    image = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    contestants = {path: (lambda artifact=artifact: _labels(artifact, image)) for path, artifact in loaded.items()}
    if predict:
        contestants = {'MMSegmentation predict': lambda: predict(image), **contestants}
    timings = time_in_turn(contestants, runs)
    print(f'image to labels, {height}x{width}, {threads} thread(s), {runs} runs in turn')
    slowest = next(iter(timings.values())).median
    for name, timing in timings.items():
        if name not in peaks:
            with peak_memory() as peaks[name]:
                contestants[name]()
        tail = statistics.quantiles(timing.seconds, n=10)[-1] if runs > 1 else timing.median
        file = f'  {files.size(Path(name)) / MB:6.1f} MB  load {seconds[name]:.2f} s' if name in loaded else ''
        print(
            f'  {Path(name).name:40s} median {1e3 * timing.median:7.1f} ms  p90 {1e3 * tail:7.1f} ms  '
            f'{slowest / timing.median:5.2f}x  {peaks[name]}{file}'
        )


def _labels(artifact, image: np.ndarray) -> np.ndarray:
    """The labels of the image's size, whichever of both the artifact returns."""
    result = artifact(image)
    return result if artifact.spec.output == 'labels' else label_map(result, image.shape[:2])
