"""What MediaPipe Tasks reads in a .tflite file besides the network: TensorFlow Lite's metadata, a flatbuffer that says
how an image is normalised and what the result means, and the names of the classes in a zip archive behind the network.

Tables and numbers of fields are those of ``metadata_schema.fbs`` and ``image_segmenter_metadata_schema.fbs`` of
MediaPipe 1.2. Its own writer comes with the whole of MediaPipe and an OpenCV that replaces the installed one.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import flatbuffers

from ..presets import labels_file

METADATA = 'TFLITE_METADATA'
LABELS = 'labels.txt'
SOFTMAX, RGB, TENSOR_AXIS_LABELS = 2, 1, 2
IMAGE_PROPERTIES, NORMALIZATION = 2, 1  # of the unions


def metadata(spec) -> bytes:
    """The flatbuffer of a file of logits, an :class:`effseg.deploy.spec.Spec` of the preset ``mediapipe``."""
    b = flatbuffers.Builder()
    properties = _table(b, 2, bytes_={0: RGB})
    content = _table(b, 2, {1: properties}, {0: IMAGE_PROPERTIES})
    # (value - mean) / std: what the file normalises itself arrives as it is
    norm = _table(b, 2, {0: _floats(b, [0.0] * 3), 1: _floats(b, [1.0] * 3)})
    unit = _table(b, 2, {1: norm}, {0: NORMALIZATION})
    image = _table(b, 7, {0: b.CreateString('image'), 3: content, 4: _vector(b, [unit])})
    names = _table(b, 5, {0: b.CreateString(LABELS)}, {2: TENSOR_AXIS_LABELS})
    result = _table(b, 7, {0: b.CreateString(spec.output), 6: _vector(b, [names])})
    custom = _table(b, 2, {0: b.CreateString('SEGMENTER_METADATA'), 1: b.CreateByteVector(_activation())})
    graph = _table(b, 10, {2: _vector(b, [image]), 3: _vector(b, [result]), 9: _vector(b, [custom])})
    model = _table(b, 8, {0: b.CreateString('ImageSegmenter'), 3: _vector(b, [graph]), 7: b.CreateString('1.5.0')})
    b.Finish(model, b'M001')
    return bytes(b.Output())


def append_labels(path: Path, spec) -> None:
    """Appends the names of the classes to a .tflite file as a zip archive, which LiteRT does not look at."""
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), labels_file(spec))


def _activation() -> bytes:
    """Options of the segmenter: confidences are the softmax of the result."""
    b = flatbuffers.Builder()
    b.Finish(_table(b, 2, bytes_={0: SOFTMAX}), b'V001')
    return bytes(b.Output())


def _table(b, fields: int, offsets: dict[int, int] | None = None, bytes_: dict[int, int] | None = None) -> int:
    """A table of so many fields: those that point elsewhere, and those of one byte, by number."""
    b.StartObject(fields)
    for number, offset in (offsets or {}).items():
        b.PrependUOffsetTRelativeSlot(number, offset, 0)
    for number, value in (bytes_ or {}).items():
        b.PrependUint8Slot(number, value, 0)
    return b.EndObject()


def _vector(b, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _floats(b, values: Sequence[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return b.EndVector()
