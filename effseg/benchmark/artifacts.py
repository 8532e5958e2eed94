"""Exported files beside each other, and beside MMSegmentation's predict."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import deploy, files
from ..apis.opening import open_segmenter
from ..datasets.images import read_image
from ..demo.scenes import draw_scene
from ..deploy import Artifact
from ..deploy.fit import content_of, to_image
from ..errors import ArtifactError, MissingRuntimeError
from ..timing import MB, peak_memory, time_in_turn
from .engines import difference, open_in
from .measure import check_counts, normalised, thread_counts


def compare_artifacts(
    paths: Sequence[str],
    config: str | None = None,
    checkpoint: str | None = None,
    image: str | None = None,
    runs: int = 10,
    threads: Sequence[int] = (1, 2),
    cfg_options: dict | None = None,
    engines: Sequence[str] = (),
) -> None:
    """Prints how exported files compare with each other, and with MMSegmentation's predict where a config is given.

    Args:
        paths: artifacts of one image size; one of ``tools/export.py --unfused`` shows what the fusion gains.
        config, checkpoint, cfg_options: of the reference, see :func:`compare_fused`.
        image: a file, which goes through each by its fit; a drawn scene of the artifacts' size when left out.
        runs: of each.
        engines: of :mod:`effseg.benchmark.engines`, each of which runs every .onnx file as well.
        threads: each of these thread counts in turn.
    """
    check_counts(runs, threads)
    if engines and not any(path.endswith('.onnx') for path in paths):
        raise ArtifactError(f'--engines run .onnx files, and none is among {", ".join(paths)}')
    model = open_segmenter(config, checkpoint, cfg_options=cfg_options, device='cpu').trained if config else None
    with tempfile.TemporaryDirectory() as scratch:
        for count in thread_counts(threads):
            loaded = {path: _load(partial(deploy.load, path, count)) for path in paths}
            kinds = {(one.artifact.spec.image_shape, one.artifact.spec.fit) for one in loaded.values()}
            if len(kinds) > 1:
                raise ArtifactError(
                    f'the artifacts take images of {sorted(kinds)}; only artifacts of one size and fit can be compared'
                )
            spec = loaded[paths[0]].artifact.spec
            photo = read_image(image) if image else draw_scene(spec.image_shape[:2], np.random.default_rng(0))[0]
            shown = f'{photo.shape[0]}x{photo.shape[1]} by {spec.fit} of {spec.height}x{spec.width}'
            print(f'photo to labels, {shown}, {count} thread(s), {runs} runs in turn')
            seen = to_image(photo, content_of(photo.shape[:2], spec), spec)
            differences = _load_engines(loaded, engines, Path(scratch), count, seen)
            # MMSegmentation's predict takes the pixels that the files see
            _compare(loaded, model, photo, photo if spec.fit == 'windows' else seen, runs, differences)
            loaded.clear()  # ExecuTorch changes its threads only while no file is open


@dataclass(frozen=True)
class _Loaded:
    artifact: Artifact
    seconds: float
    peak: peak_memory


def _load(opened: Callable[[], Artifact]) -> _Loaded:
    with peak_memory() as peak:  # of loading and the first run: runtimes set their memory aside in the one or the other
        started = time.perf_counter()
        artifact = opened()
        seconds = time.perf_counter() - started
        artifact(np.zeros(artifact.spec.image_shape, np.uint8))
    return _Loaded(artifact, seconds, peak)


def _load_engines(
    loaded: dict[str, _Loaded], engines: Sequence[str], scratch: Path, threads: int, image: np.ndarray
) -> dict[str, str]:
    """Adds to ``loaded`` the ONNX files in other engines; says what each differs by, and prints what does not run."""
    said = {}
    for path in [path for path in loaded if path.endswith('.onnx')]:
        own = loaded[path].artifact
        for engine in engines:
            name = f'{path} in {engine}'
            folder = scratch / f'{list(loaded).index(path)}'  # two files may have one name
            folder.mkdir(exist_ok=True)
            try:
                loaded[name] = _load(partial(open_in, engine, own, folder, threads))
            except (ArtifactError, MissingRuntimeError) as error:
                print(f'  {Path(name).name:46s} does not run: {error}')
                continue
            agreement, largest = difference(loaded[name].artifact, own, image)
            said[name] = f'  same label {100 * agreement:.3f} %' + (f', logits within {largest:.1e}' if largest else '')
    return said


def _compare(
    loaded: dict[str, _Loaded],
    model: nn.Module | None,
    photo: np.ndarray,
    seen: np.ndarray,
    runs: int,
    notes: dict[str, str],
) -> None:
    contestants: dict[str, Callable[[], object]] = {}
    if model is not None:
        contestants['MMSegmentation predict'] = partial(_predict, model, seen)
    contestants |= {name: partial(one.artifact.labels, photo) for name, one in loaded.items()}
    timings = time_in_turn(contestants, runs)
    first = next(iter(timings.values())).median
    for name, timing in timings.items():
        tail = statistics.quantiles(timing.seconds, n=10)[-1] if runs > 1 else timing.median
        if name in loaded:
            peak, of_file = loaded[name].peak, f'  load {loaded[name].seconds:.2f} s'
            if Path(name).exists():
                of_file = f'  {files.size(Path(name)) / MB:6.1f} MB{of_file}'
        else:
            with peak_memory() as peak:
                contestants[name]()
            of_file = ''
        print(
            f'  {Path(name).name:46s} median {1e3 * timing.median:7.1f} ms  p90 {1e3 * tail:7.1f} ms  '
            f'{first / timing.median:5.2f}x  {peak}{of_file}{notes.get(name, "")}'
        )


def _predict(model: nn.Module, image: np.ndarray) -> object:
    """MMSegmentation's own way from an image (H, W, 3) RGB to its label map."""
    with torch.inference_mode():
        return model.predict(normalised(model, image, image.shape[:2]))
