"""Everything that the check can find: how grave it is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass

ERROR, WARNING = 'error', 'warning'
_REPLACE = 'replace the file, or delete the pair'
# kind: (severity, what to do); an error is what training would go wrong by
KINDS = {
    'config: number of classes': (ERROR, 'make model.decode_head.num_classes and metainfo agree'),
    'config: no class names': (
        ERROR,
        "name them in the data set: metainfo=dict(classes=('sky', ...), palette=[[110, 180, 230], ...])",
    ),
    'config: one class': (
        ERROR,
        'name the background as a class too: two classes in metainfo, decode_head.num_classes=2; for one sigmoid '
        'channel also out_channels=1 and loss_decode.use_sigmoid=True',
    ),
    'config: ignore_index': (WARNING, 'set ignore_index to the same value in data set, decode head and evaluator'),
    'folder: missing': (ERROR, 'set data_root (--cfg-options data_root=...) and data_prefix'),
    'folder: no list': (ERROR, "correct the data set's ann_file"),
    'folder: no images': (ERROR, 'set img_suffix'),
    'folder: no label maps': (ERROR, "name their folder as seg_map_path in the data set's data_prefix"),
    'folder: in two splits': (ERROR, 'give each split images of its own'),
    'image: missing': (ERROR, 'add the file, or delete the pair'),
    'image: other suffix': (ERROR, 'give all images one suffix, and set img_suffix to it'),
    'image: unreadable': (ERROR, 'correct its permissions or link'),
    'image: empty': (ERROR, _REPLACE),
    'image: not an image': (ERROR, _REPLACE),
    'image: huge': (ERROR, 'scale it down'),
    'image: damaged': (ERROR, _REPLACE),
    'image: too thin': (ERROR, 'delete the pair'),
    'image: smaller than the crop': (WARNING, 'lower crop_size, or raise the scale of RandomResize'),
    'image: more than 8 bits': (ERROR, 'convert it to 8 bits, with a scale that suits it'),
    'image: several frames': (WARNING, 'save the frame that was labelled'),
    'image: one color': (WARNING, _REPLACE),
    'image: twice': (WARNING, 'delete one of the pairs'),
    'image: in two splits': (ERROR, 'take it out of one of them'),
    'image: alike in two splits': (WARNING, 'take it out of one of them if it shows the same'),
    'label map: missing': (ERROR, 'add it, or delete its image'),
    'label map: without image': (WARNING, 'add the image, or set img_suffix and seg_map_suffix'),
    'label map: unreadable': (ERROR, 'correct its permissions or link'),
    'label map: empty': (ERROR, _REPLACE),
    'label map: not an image': (ERROR, _REPLACE),
    'label map: huge': (ERROR, 'scale it down, without interpolation'),
    'label map: damaged': (ERROR, _REPLACE),
    'label map: colours': (ERROR, 'translate its colors to class numbers and save them as an 8-bit greyscale PNG'),
    'label map: more than 8 bits': (ERROR, 'save it as an 8-bit greyscale PNG of class numbers'),
    'label map: lossy': (ERROR, 'export it again from the labelling tool as PNG'),
    'label map: out of range': (
        ERROR,
        'list all classes in metainfo, set ignore_index where the value means unlabelled, or correct the label map',
    ),
    'label map: nothing labelled': (WARNING, 'label it, or delete the pair'),
    'label map: palette in another order': (ERROR, 'save class numbers, not the order in which the colors came'),
    'pair: sizes differ': (ERROR, 'export both at one size; never scale a label map with interpolation'),
    'pair: turned by EXIF': (
        ERROR,
        'turn the pixels for good (jpegtran, or PIL.ImageOps.exif_transpose) and look at image and label map over each '
        'other',
    ),
    'labels: 0 and 255': (ERROR, 'write 1 where the label maps have 255, or name 255 nowhere as ignore_index'),
    'labels: grey levels': (ERROR, 'write the number of the class in the place of each grey level: 0, 1, 2 and so on'),
    'labels: nothing labelled': (ERROR, 'label something, or correct ignore_index'),
    'labels: reduce_zero_label': (ERROR, "leave reduce_zero_label out of the data set's config and of LoadAnnotations"),
    'labels: count from 1': (ERROR, "set reduce_zero_label=True in the data set's config"),
    'labels: one class alone': (ERROR, 'look whether the label maps were exported with all classes'),
    'labels: class never seen': (WARNING, 'label it somewhere, or leave it out of the classes'),
    'labels: class not in train': (WARNING, 'split the images anew, so that training sees every class'),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Attributes:
        kind: one of KINDS.
        severity: 'error' when training would go wrong, 'warning' when it is worth a look.
        path: the file or folder.
        message: what is wrong with it.
        remedy: what to do.
    """

    kind: str
    severity: str
    path: str
    message: str
    remedy: str


def few(values: Iterable, count: int = 5) -> str:
    """The first of several values, and how many more there are, for a message."""
    shown = [*map(str, values)]
    return ', '.join(shown[:count]) + (f' and {len(shown) - count} more' if len(shown) > count else '')


def finding(kind: str, path, message: str, remedy: str | None = None, severity: str | None = None) -> Finding:
    """A finding of a known kind, with the severity and the remedy of its kind unless others are given."""
    return Finding(kind, severity or KINDS[kind][0], str(path), message, remedy or KINDS[kind][1])
