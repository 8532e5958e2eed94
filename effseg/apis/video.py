"""Videos and cameras, frame by frame; ffmpeg, where it is installed, writes the result and carries the sound over."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..files import check_name
from .opening import Segmenter

VIDEO_SUFFIXES = ('.mp4', '.mov', '.m4v', '.mkv', '.avi', '.webm')
MP4 = ('.mp4', '.mov', '.m4v')  # their sound fits into .mp4 as it is; Matroska takes any
TIMED_FRAMES = 5  # a camera's video runs at the rate that its first frames were labelled at


@dataclass(frozen=True)
class VideoResult:
    """What was written.

    Attributes:
        overlay: the video.
        frames: how many.
        counts: (classes + 1,) pixels of each class in all of them, and of what is unknown.
    """

    overlay: Path
    frames: int
    counts: np.ndarray


def label_video(
    segmenter: Segmenter,
    source: Path | int,
    stem: Path,
    opacity: float,
    frames: int | None = None,
    frame_labels: bool = False,
    show: bool = False,
) -> VideoResult:
    """Writes the overlay of a video or camera as ``STEM_overlay.mp4`` (.mkv where the sound takes it).

    Ctrl-C ends a camera, and the video so far is kept.

    Args:
        segmenter: the segmenter.
        source: a file, or the number of a camera.
        stem: of the results.
        opacity: of the colors, 0 to 1.
        frames: at most so many.
        frame_labels: also ``STEM_labels/000000.png`` and on.
        show: in a window; q closes it.

    Raises:
        DataError: for a source without frames, or a video that cannot be written.
    """
    # absolute: OpenCV and ffmpeg take what starts with a name and a colon, such as http:/host/x.mp4, for an address
    source, stem = source if isinstance(source, int) else source.absolute(), stem.absolute()
    camera = isinstance(source, int)
    check_name(stem)
    if not camera:
        check_name(str(source))
    capture = cv2.VideoCapture(source if camera else str(source))
    try:
        if not capture.isOpened():
            raise DataError(f'no camera {source} that opens' if camera else f'{source} cannot be read as a video')
        total = 0 if camera else max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        stream = islice(_frames(capture), frames)
        bar = tqdm(
            total=min(total, frames or total) or None,
            unit=' images',
            desc=f'camera {source}' if isinstance(source, int) else source.name,
            disable=None,
        )
        counts = np.zeros(len(segmenter.classes) + 1, dtype=np.int64)
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = 0.0 if camera else (rate if 0 < rate < 1000 else 25.0)
        writer = _Writer(stem, None if isinstance(source, int) else source, rate, frames)
        folder = stem.with_name(f'{stem.name}_labels')
        for earlier in folder.glob(f'{"[0-9]" * 6}.png') if frame_labels else ():  # of a longer video, say
            earlier.unlink()
        with writer, bar, contextlib.suppress(*([KeyboardInterrupt] if camera else [])):
            for number, image in enumerate(stream):
                labels = segmenter(image)
                overlay = segmenter.overlay(image, labels, opacity)
                writer.add(overlay)
                counts += segmenter.count(labels)
                if frame_labels:
                    folder.mkdir(exist_ok=True)
                    segmenter.label_image(labels).save(folder / f'{number:06d}.png')
                bar.update()
                if show and _closed(overlay):
                    break
    finally:
        capture.release()
    if not writer.frames:
        raise DataError(f'{source} holds no frame that can be read')
    return VideoResult(writer.path, writer.frames, counts)


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield np.ascontiguousarray(frame[..., ::-1])


def _closed(overlay: np.ndarray) -> bool:
    try:
        cv2.imshow('effseg', overlay[..., ::-1])
        return cv2.waitKey(1) == ord('q')
    except cv2.error as error:
        raise ConfigError(
            '--show needs a display and an OpenCV with windows (opencv-python, not -headless); leave it out'
        ) from error


class _Writer:
    """A video that appears under its name when it is whole."""

    def __init__(self, stem: Path, source: Path | None, rate: float, most: int | None):
        self.ffmpeg = shutil.which('ffmpeg')
        fits_mp4 = source is None or source.suffix.lower() in MP4 or not self.ffmpeg
        self.path = stem.with_name(f'{stem.name}_overlay.{"mp4" if fits_mp4 else "mkv"}')
        self.partial = self.path.with_name(f'.{os.getpid()}.{self.path.name}')
        self.source, self.rate, self.frames, self.most = source, rate, 0, most
        self.waiting: list[np.ndarray] = []
        self.started = time.perf_counter()
        self.process: Any = None
        self.writer: Any = None

    def __enter__(self) -> '_Writer':
        return self

    def add(self, frame: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB."""
        self.frames += 1
        self.waiting.append(frame)
        if not self.rate and self.frames >= TIMED_FRAMES:
            self.rate = self._measured()
        if self.rate:
            self._flush()

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None and self.frames:
                self.rate = self.rate or self._measured()
                self._flush()
                self._close()
                os.replace(self.partial, self.path)
                if self.source is not None and not self.ffmpeg:
                    print(f'{self.path} has no sound: ffmpeg, which carries it over, is not installed')
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
            self.partial.unlink(missing_ok=True)

    def _measured(self) -> float:
        return max(self.frames / (time.perf_counter() - self.started), 1.0)

    def _flush(self) -> None:
        for frame in self.waiting:
            if self.process is None and self.writer is None:
                self._open(*frame.shape[:2])
            if self.process is not None:
                try:
                    self.process.stdin.write(frame.tobytes())
                except BrokenPipeError:
                    self._close()
            else:
                self.writer.write(frame[..., ::-1])
        self.waiting = []

    def _open(self, height: int, width: int) -> None:
        if not self.ffmpeg:
            self.writer = cv2.VideoWriter(
                str(self.partial), cv2.VideoWriter.fourcc(*'mp4v'), self.rate, (width, height)
            )
            if not self.writer.isOpened():
                raise DataError(f'OpenCV cannot write {self.path}; install ffmpeg')
            return
        command = [self.ffmpeg, *f'-y -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{height}'.split()]
        command += ['-r', f'{self.rate:g}', '-i', '-']
        if self.source is not None:
            command += ['-protocol_whitelist', 'file', '-i', f'file:{self.source}']
            command += '-map 0:v:0 -map 1:a? -c:a copy'.split()
            command += ['-t', f'{self.most / self.rate:g}'] if self.most else []  # the sound as well
        # players take 4:2:0 alone, which takes even sides
        command += '-c:v libx264 -crf 20 -pix_fmt yuv420p -vf pad=ceil(iw/2)*2:ceil(ih/2)*2'.split()
        command += ['-movflags', '+faststart'] if self.path.suffix == '.mp4' else []
        command.append(f'file:{self.partial}')
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.errors)

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.release()
            return
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        if self.process.wait():
            self.errors.seek(0)
            lines = self.errors.read().decode(errors='replace').strip().splitlines() or ['no reason given']
            raise DataError(f'ffmpeg cannot write {self.path}: {lines[-1]}')
