"""Predictions on images, folders, videos and cameras: overlays, label maps, and how much of each class there is."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..datasets.images import IMAGE_SUFFIXES, files_in, read_image
from ..errors import ConfigError, DataError, EffsegError, FuseError
from ..files import write
from ..outputs import OutputFolder
from .opening import Segmenter, open_segmenter
from .video import VIDEO_SUFFIXES, label_video

SHARES = 'shares.json'


@dataclass(frozen=True)
class Predictions:
    """What was written.

    Attributes:
        overlays: images and videos.
        shares: the JSON file with the share of the pixels of each class, by image or video.
        images: how many images and frames were labelled.
        seconds: for all of it, reading and writing included.
    """

    overlays: list[Path]
    shares: Path
    images: int
    seconds: float


def find_images(sources: Iterable[str]) -> list[Path]:
    """The image files among ``sources`` and in the folders among them.

    Raises:
        DataError: when a source does not exist, or none of them holds an image.
    """
    return _find(sources, IMAGE_SUFFIXES, 'image')


def predict(
    config: str,
    checkpoint: str,
    sources: list[str],
    out_dir: str,
    opacity: float = 0.5,
    cfg_options: dict | None = None,
    device: str | None = None,
    fused: bool = False,
    frames: int | None = None,
    frame_labels: bool = False,
    show: bool = False,
    precision: str = 'fp32',
    unknown_below: float | None = None,
) -> Predictions:
    """Writes ``NAME_overlay.jpg`` and ``NAME_labels.png`` (8-bit class numbers, with the palette) for every image,
    ``NAME_overlay.mp4`` for every video, and ``shares.json`` for all.

    Args:
        config, checkpoint, cfg_options, device, fused, precision, unknown_below: see
            :func:`effseg.apis.opening.open_segmenter`. What is unknown has no color, label 255 and a share.
        sources: image files, video files, folders of them, and the numbers of cameras. In folders, what an earlier call
            wrote into ``out_dir`` is passed over.
        out_dir: made if missing; files of an earlier call are replaced, files of others are not.
        opacity: of the colors over the image, 0 to 1.
        frames: at most so many of each video or camera.
        frame_labels: also a label map for every frame, in ``NAME_labels/``.
        show: a window with the overlay, for videos and cameras.
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f'opacity={opacity} must lie between 0 and 1')
    if frames is not None and frames < 1:
        raise ConfigError(f'frames={frames} must be 1 or more')
    cameras = [source for source in sources if source.isdecimal() and len(source) < 5 and not Path(source).exists()]
    others = [source for source in sources if source not in cameras]
    folder = OutputFolder(out_dir)
    ours = {folder.path / name for name in folder.written}  # overlays of an earlier call are no photos
    files = _find(others, IMAGE_SUFFIXES + VIDEO_SUFFIXES, 'image or video', ours) if others else []
    images = [file for file in files if file.suffix.lower() not in VIDEO_SUFFIXES]
    videos: list[Path | int] = [*(file for file in files if file.suffix.lower() in VIDEO_SUFFIXES), *map(int, cameras)]
    if not videos and (frames is not None or frame_labels or show):
        raise ConfigError(
            '--frames, --frame-labels and --show are for videos and cameras, and none is among the sources'
        )
    names: dict = {**output_names(files), **{camera: f'camera{camera}' for camera in map(int, cameras)}}
    kinds = ['overlay.mp4', 'overlay.mkv', *(['labels'] if frame_labels else [])]
    expected = [SHARES, *(f'{names[path]}_{kind}' for path in images for kind in ('overlay.jpg', 'labels.png'))]
    expected += [f'{names[video]}_{kind}' for video in videos for kind in kinds]
    folder.check(expected)
    segmenter = open_segmenter(
        config, checkpoint, fused, cfg_options, device, precision=precision, unknown_below=unknown_below
    )
    folder.claim(expected)
    out = folder.path
    overlays, failures, shares, count, started = [], [], {}, 0, time.perf_counter()
    try:
        for path in tqdm(images, unit=' images', disable=None):
            try:
                overlay, shares[str(path)] = _label_image(segmenter, path, out / names[path], opacity)
            except DataError as error:
                failures.append(str(error))
                continue
            overlays.append(overlay)
            count += 1
        for video in videos:
            result = label_video(segmenter, video, out / names[video], opacity, frames, frame_labels, show)
            overlays.append(result.overlay)
            shares[str(video)] = class_shares(result.counts, segmenter.classes)
            count += result.frames
    finally:
        write(out / SHARES, json.dumps(shares, indent=1) + '\n')
    if failures:
        raise DataError(f'{"; ".join(failures)}' + (f' ({count} others are in {out})' if count else ''))
    return Predictions(overlays, out / SHARES, count, time.perf_counter() - started)


def output_names(files: list[Path]) -> dict[Path, str]:
    """What each file's results are called: its stem, with suffix, folder or number where stems meet."""
    names, taken = {}, set()
    stems = Counter(file.stem for file in files)
    for file in files:
        for name in (
            file.stem if stems[file.stem] == 1 else '',
            f'{file.stem}_{file.suffix[1:]}',
            f'{file.parent.name}_{file.stem}_{file.suffix[1:]}',
            *(f'{file.stem}_{number}' for number in range(2, len(files) + 2)),
        ):
            if name and name not in taken:
                break
        taken.add(name)
        names[file] = name
    return names


def class_shares(counts: np.ndarray, classes: list[str]) -> dict[str, float]:
    """Share of the pixels, 0 to 1, of each class that is there, the largest first.

    Args:
        counts: by class, and at last of what is unknown.
        classes: names.
    """
    total, classes = max(int(counts.sum()), 1), [*classes, 'unknown']
    return {
        classes[index]: round(int(counts[index]) / total, 6)
        for index in np.argsort(-counts, kind='stable')
        if counts[index]
    }


def _label_image(segmenter: Segmenter, path: Path, stem: Path, opacity: float) -> tuple[Path, dict[str, float]]:
    image = read_image(path)
    try:
        labels = segmenter(image)
    except FuseError:  # of the network, not of this image
        raise
    except EffsegError as error:
        raise DataError(f'{path}: {error}') from error
    except Exception as error:  # the config's test pipeline is the user's: what it cannot take is named
        size = f'{image.shape[1]} x {image.shape[0]}'
        raise DataError(f'{path} ({size}) cannot go through the test pipeline: {error}') from error
    overlay = stem.with_name(f'{stem.name}_overlay.jpg')
    Image.fromarray(segmenter.overlay(image, labels, opacity)).save(overlay, quality=92)
    segmenter.label_image(labels).save(stem.with_name(f'{stem.name}_labels.png'))
    return overlay, class_shares(segmenter.count(labels), segmenter.classes)


def _find(sources: Iterable[str], suffixes: tuple[str, ...], what: str, ours: Set[Path] = frozenset()) -> list[Path]:
    sources = list(sources)
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            places = ((file, file.resolve()) for file in files_in(source, suffixes))
            found += (file for file, place in places if ours.isdisjoint([place, *place.parents]))
        elif source.is_file():
            found.append(source)
        else:
            raise DataError(f'no {what} or folder at {source}')
    if not found:
        raise DataError(f'no {what} in {", ".join(map(str, sources))}; looked for {", ".join(suffixes)}')
    return list(dict.fromkeys(found))
