"""Large images window by window: the labels of one piece where a network sees no further than the margin."""

import pytest
import torch
from torch import nn

from effseg.deploy.fit import ALIGNMENT
from effseg.fusion.labels import Crop, Resize
from effseg.segmentors.windows import WINDOW, at_size, is_large, label_in_windows, pieces


@pytest.mark.parametrize(
    'length, window',
    [(1, 1024), (1024, 1024), (1025, 1024), (1056, 1024), (8000, 1024), (6016, 512), (100, 32), (33, 32)],
)
def test_pieces_keep_every_pixel_once(length, window):
    found = pieces(length, window)
    assert (
        [kept[2] for kept in found[1:]] == [kept[3] for kept in found[:-1]]
        and found[0][2] == 0
        and found[-1][3] == length
    )
    for start, end, keep_start, keep_end in found:
        assert 0 <= start <= keep_start < keep_end <= end <= length and end - start <= window
        assert window < 256 or start % ALIGNMENT == 0
        assert keep_start == 0 or keep_start - start >= window // 8
        assert keep_end == length or end - keep_end >= window // 8


@pytest.mark.parametrize('size', [(1056, 64), (1025, 1030), (64, 3001)])
def test_windows_give_what_one_piece_gives(size):
    torch.manual_seed(0)
    conv, seen = nn.Conv2d(3, 5, 4, 4), []

    def label(x):
        seen.append(max(x.shape[2:]))
        logits = conv(nn.functional.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)))
        return logits.argmax(1).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : x.shape[2], : x.shape[3]]

    image = torch.randn(1, 3, *size)
    assert torch.equal(label_in_windows(image, label), label(image))
    assert max(seen[:-1]) <= WINDOW[0] and len(seen) > 2


def test_labels_follow_the_steps_of_their_logits():
    labels = torch.arange(24).reshape(1, 4, 6)
    assert torch.equal(at_size(labels, [Resize(4, 6), Crop(1, 2, 2, 3)]), labels[:, 1:3, 2:5])
    expected = nn.functional.interpolate(labels[None].float(), (7, 5), mode='nearest-exact')[0].long()
    assert torch.equal(at_size(labels, [Resize(7, 5)]), expected)


def test_what_is_large():
    assert is_large((100, 100), (6000, 8000)) and not is_large((1024, 2048))
