"""The fit: a photo of any size through a file of one size. The file here is a function of each pixel, or of each cell,
so that what every pixel of the photo must become is known."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effseg.deploy.fit import content_of, fill_of, labels_of, middles, starts, to_image
from effseg.deploy.spec import FITS

from .conftest import spec_of

SIZE = (64, 96)
# landscape, portrait, a line, one pixel, smaller than the file, larger, odd
PHOTOS = [(64, 96), (100, 230), (230, 100), (1, 300), (300, 1), (1, 1), (20, 30), (300, 500), (61, 97), (65, 96)]


class File:
    """A file whose label is the red value of a pixel over 64, and which keeps the images that it saw."""

    def __init__(self, fit, output='labels', classes=4, size=SIZE, **others):
        self.spec = spec_of('onnx', output, size=size, classes=classes, fit=fit, **others)
        self.seen = []

    def __call__(self, image):
        assert image.shape == self.spec.image_shape and image.dtype == np.uint8
        self.seen.append(image)
        if self.spec.output == 'labels':
            return (image[..., 0] // 64).astype(np.int32)
        pooled = F.adaptive_avg_pool2d(torch.tensor(image[..., 0])[None].float(), self.spec.grid)[0].numpy()
        centers = np.array([32, 96, 160, 224], np.float32)[: self.spec.channels]
        return -np.abs(pooled - centers[:, None, None])

    def labels(self, photo):
        return labels_of(photo, self.spec, self)


def quarters(size, low=20, high=200) -> np.ndarray:
    """A photo with one corner of another color, which lies in another quarter of it."""
    photo = np.full((*size, 3), low, np.uint8)
    photo[: (size[0] + 1) // 2, : (size[1] + 1) // 2] = high
    return photo


@pytest.mark.parametrize('output', ['labels', 'logits'])
@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('size', PHOTOS)
def test_labels_lie_where_the_photo_shows_them(size, fit, output):
    labels = File(fit, output).labels(quarters(size))
    assert labels.shape == size and labels.dtype == np.int32
    expected = quarters(size)[..., 0] // 64
    # the resize mixes the two colors over a pixel of the image, the grid over a cell of 4
    smear = [4 * max(1, side / own) if output == 'logits' or fit != 'windows' else 0 for side, own in zip(size, SIZE)]
    if fit == 'letterbox':
        smear = [4 * max(1, *(side / own for side, own in zip(size, SIZE)))] * 2
    rows, columns = (np.abs(np.arange(side) + 0.5 - (side + 1) // 2) > margin for side, margin in zip(size, smear))
    certain = rows[:, None] & columns
    np.testing.assert_array_equal(labels[certain], expected[certain])
    assert fit != 'windows' or output == 'logits' or np.array_equal(labels, expected)


@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('output', ['labels', 'logits'])
def test_a_photo_of_the_files_size_is_its_image(fit, output):
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    file = File(fit, output)
    labels = file.labels(photo)
    assert len(file.seen) == 1 and np.array_equal(file.seen[0], photo)
    if output == 'labels':
        return np.testing.assert_array_equal(labels, photo[..., 0] // 64)
    resized = F.interpolate(torch.from_numpy(file(photo))[None], SIZE, mode='bilinear')[0]
    top = resized.topk(2, 0).values
    decided = (top[0] - top[1] > 1e-3).numpy()
    assert decided.mean() > 0.9
    np.testing.assert_array_equal(labels[decided], resized.argmax(0).numpy()[decided])


def test_letterbox_keeps_proportions_and_fills_with_the_mean():
    file = File('letterbox')
    for size, content in [((200, 100), (64, 32)), ((10, 30), (32, 96)), ((1, 1), (64, 64)), ((1, 5000), (1, 96))]:
        assert content_of(size, file.spec) == content
        file.labels(np.full((*size, 3), 255, np.uint8))
        image = file.seen[-1]
        assert (image[: content[0], : content[1]] == 255).all()
        outside = np.ones(SIZE, bool)
        outside[: content[0], : content[1]] = False
        assert (image[outside] == (124, 116, 104)).all() and fill_of(file.spec) == (124, 116, 104)
    assert content_of((200, 100), dataclasses.replace(file.spec, fit='stretch')) == SIZE


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(200, 100), (33, 95), (1, 300), (100, 1)])
def test_padding_decides_nothing(size, align_corners):
    """Whatever the file says of the padding: of the logits beyond the photo none is mixed in."""
    file = File('letterbox', 'logits', align_corners=align_corners)
    height, width = content_of(size, file.spec)

    def shouting(image):
        logits = file(image)
        down, across = np.arange(16), np.arange(24)  # the pixels that the cells' centers lie on
        down, across = (down * 63 / 15, across * 95 / 23) if align_corners else (down * 4 + 1.5, across * 4 + 1.5)
        logits[3, 1:][down[1:] > height - 1], logits[3, :, 1:][:, across[1:] > width - 1] = 1e9, 1e9
        return logits

    assert (labels_of(np.full((*size, 3), 20, np.uint8), file.spec, shouting) < 3).all()


def test_a_photo_is_resized_without_aliases():
    """Stripes narrower than a pixel of the image become their mean."""
    photo = np.zeros((640, 960, 3), np.uint8)
    photo[::2] = 255
    assert np.abs(to_image(photo, SIZE, File('stretch').spec).astype(int) - 127).max() < 16


@pytest.mark.parametrize('length', [1, 63, 64, 65, 100, 128, 500])
@pytest.mark.parametrize('window, alignment', [(64, 1), (64, 4), (64, 32), (64, 64), (512, 32)])
def test_windows_cover_a_photo_and_share_a_quarter(length, window, alignment):
    begin = starts(length, window, alignment)
    kept = middles(length, window, begin)
    assert begin[0] == 0 and all(start % alignment == 0 for start in begin)
    assert begin[-1] + window >= length and (begin[-1] == 0 or begin[-1] < length)
    assert kept[0][0] == 0 and kept[-1][1] == length
    assert [end for _, end in kept[:-1]] == [start for start, _ in kept[1:]]
    for first, second, (_, end) in zip(begin, begin[1:], kept):
        overlap = first + window - second
        assert overlap >= (0 if alignment > window // 4 else window // 4)
        assert second + overlap // 2 == end or second + (overlap + 1) // 2 == end


class Disagreeing(File):
    """Every other window favors the other class, as windows that are rounded differently do in the extreme."""

    def __call__(self, image):
        super().__call__(image)
        value = 1.0 if len(self.seen) % 2 else -1.0
        return np.stack([np.full(self.spec.grid, value, np.float32), np.zeros(self.spec.grid, np.float32)])


def logits_of(file, photo, monkeypatch) -> np.ndarray:
    """What the labels of a photo are decided by, at each cell."""
    from effseg.deploy import fit

    lines = []

    def keep(logits, rows, columns, threshold):
        lines.append(logits[0, rows.before])
        return decide(logits, rows, columns, threshold)

    decide = fit.decide
    monkeypatch.setattr(fit, 'decide', keep)
    file.labels(photo)
    return np.concatenate(lines)


@pytest.mark.parametrize('size', [(64, 400), (400, 96)])
def test_windows_fade_into_each_other(size, monkeypatch):
    """No two neighbouring cells differ by more than the fade takes: averaged evenly they would by 1, cut by 2."""
    file = Disagreeing('windows', 'logits', classes=2)
    logits = logits_of(file, np.zeros((*size, 3), np.uint8), monkeypatch)
    assert len(file.seen) > 3 and np.ptp(logits) > 1.9
    assert max(np.abs(np.diff(logits, axis=0)).max(initial=0), np.abs(np.diff(logits, axis=1)).max(initial=0)) < 0.7


def test_labels_line_by_line_are_those_of_the_whole():
    """Logits of one grid, cut into windows that agree: the seams between what is decided at once must not show."""
    cells = np.random.default_rng(0).integers(0, 256, (80, 56), dtype=np.uint8)
    photo = np.kron(cells, np.ones((4, 4), np.uint8))[..., None].repeat(3, 2)
    small, whole = File('windows', 'logits'), File('windows', 'logits', size=(320, 224))
    expected = whole.labels(photo)
    assert len(whole.seen) == 1 and len(np.unique(expected)) == 4
    assert (small.labels(photo) == expected).mean() > 0.9999 and len(small.seen) == 7 * 3


@pytest.mark.parametrize('changes', [dict(align_corners=True), dict(grid=(1, 1)), dict(grid=(7, 5)), dict(grid=(2, 3))])
def test_logits_that_share_no_grid_go_in_windows_as_well(changes):
    file = File('windows', 'logits', **changes)
    labels = file.labels(np.full((200, 300, 3), 200, np.uint8))
    assert labels.shape == (200, 300) and (labels == 3).all()


def test_a_threshold_decides_under_every_fit():
    for fit in FITS:
        file = File(fit, 'logits', classes=2, threshold=0.3)
        labels = labels_of(
            quarters((100, 200)), file.spec, lambda image: (image[None, ::4, ::4, 0] - np.float32(100)) / 9
        )
        assert labels[10, 10] == 1 and labels[90, 190] == 0 and labels.shape == (100, 200)


@pytest.mark.parametrize(
    'fit, size, resized', [('stretch', (150, 70), (150, 70)), ('letterbox', (160, 120), (160, 240))]
)
def test_results_come_back_as_torch_resizes_them(fit, size, resized):
    """A photo is as large as its part of what torch makes of the whole image."""
    logits = np.random.default_rng(0).standard_normal((4, 16, 24)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(logits)[None], resized, mode='bilinear')[0, :, : size[0], : size[1]]
    photo = np.zeros((*size, 3), np.uint8)
    # the cells at the padding are mixed with it in torch's
    inside = [side - 8 if fit == 'letterbox' else side for side in size]
    found = labels_of(photo, File(fit, 'logits').spec, lambda image: logits)
    np.testing.assert_array_equal(*(labels[: inside[0], : inside[1]] for labels in (found, expected.argmax(0).numpy())))
    labels = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.int32)
    expected = F.interpolate(torch.from_numpy(labels)[None, None].float(), resized, mode='nearest-exact')[0, 0]
    found = labels_of(photo, File(fit).spec, lambda image: labels)
    np.testing.assert_array_equal(found, expected[: size[0], : size[1]].numpy())
