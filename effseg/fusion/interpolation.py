"""Bilinear resizes and crops of one axis, in a row, as one band of weights."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Stretches of a source that consecutive positions read alike.

    Attributes:
        first: (W,) the first source position of each.
        spans: (W,) how many source positions each has.
        of: (L,) the window of each position.
        counts: (W,) how many positions read each.
    """

    first: Tensor
    spans: Tensor
    of: Tensor
    counts: Tensor


@dataclass
class Axis:
    """Output position p is ``sum over k of weights[p, k] * source[start[p] + k]``.

    Consecutive positions that read the same stretch of the source form a *window*.

    Attributes:
        start: (L,) int64, the first source position with a weight.
        weights: (L, K), not negative, each row summing to one; K is the longest stretch.
        length: of the source.
    """

    start: Tensor
    weights: Tensor
    length: int

    @classmethod
    def identity(cls, length: int, dtype: torch.dtype, device: torch.device) -> 'Axis':
        """The axis as it is."""
        return cls(torch.arange(length, device=device), torch.ones(length, 1, dtype=dtype, device=device), length)

    def __getitem__(self, part: slice) -> 'Axis':
        return Axis(self.start[part], self.weights[part], self.length)

    def then(self, following: 'Axis') -> 'Axis':
        """Composes two interpolations into one: this one, then ``following`` on its result."""
        first, count = following.start, following.weights.shape[1]
        sources = [(first + k).clamp(max=len(self.start) - 1) for k in range(count)]
        start = self.start[first]
        offsets = [self.start[source] - start for source in sources]
        longest = max(int(offset.max()) for offset in offsets) + self.weights.shape[1]
        weights = self.weights.new_zeros(len(start), longest)
        for k, (source, offset) in enumerate(zip(sources, offsets)):
            for j in range(self.weights.shape[1]):
                weights.scatter_add_(
                    1, (offset + j)[:, None], (following.weights[:, k] * self.weights[source, j])[:, None]
                )
        return Axis(start, weights, self.length)._trimmed()

    def _trimmed(self) -> 'Axis':
        """Without weights of zero at either end, which would make windows larger than they are."""
        used = self.weights > 0
        position = torch.arange(used.shape[1], device=used.device)
        lead = torch.where(used, position, used.shape[1]).amin(1)
        last = torch.where(used, position, -1).amax(1)
        longest = int((last - lead).max()) + 1
        take = (lead[:, None] + torch.arange(longest, device=used.device)).clamp(max=used.shape[1] - 1)
        weights = self.weights.gather(1, take)
        weights = weights.masked_fill(torch.arange(longest, device=used.device) > (last - lead)[:, None], 0)
        return Axis(self.start + lead, weights, self.length)

    @cached_property
    def windows(self) -> Windows:
        """The windows, in order."""
        places = torch.arange(1, self.weights.shape[1] + 1, device=self.start.device)
        reach = ((self.weights > 0) * places).amax(1)
        begins = torch.ones_like(self.start, dtype=torch.bool)
        begins[1:] = (self.start[1:] != self.start[:-1]) | (reach[1:] != reach[:-1])
        window = begins.long().cumsum(0) - 1
        return Windows(self.start[begins], reach[begins], window, window.bincount())

    def members(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """All positions of each of ``windows`` (M,): the index into ``windows`` and the position, one after the
        other."""
        every = self.windows.counts
        counts = every.index_select(0, windows)
        owner = torch.arange(len(windows), device=windows.device).repeat_interleave(counts)
        shift = (every.cumsum(0) - every).index_select(0, windows) - (counts.cumsum(0) - counts)
        return owner, shift.index_select(0, owner) + torch.arange(len(owner), device=windows.device)

    def sources(self, windows: Tensor, count: int) -> Tensor:
        """Gives the positions on the source axis that each of ``windows`` (M,) reads: (M, count); a window that reads
        fewer repeats its last."""
        first = self.windows.first.index_select(0, windows)[:, None]
        last = first + self.windows.spans.index_select(0, windows)[:, None] - 1
        return torch.minimum(first + torch.arange(count, device=windows.device), last)

    def over_windows(self, values: Tensor, axis: int, combine) -> Tensor:
        """``combine`` (such as ``torch.minimum``) of all values that each window reads, in place of the source axis."""
        first, spans, *_ = self.windows
        result = values.index_select(axis, first)
        for k in range(1, int(spans.max())):
            result = combine(result, values.index_select(axis, torch.minimum(first + k, first + spans - 1)))
        return result

    def mix(self, values: Tensor, axis: int) -> Tensor:
        """The weighted sums along ``axis`` of ``values``."""
        shape = [-1 if position == axis else 1 for position in range(values.dim())]
        result: Any = 0
        for k in range(self.weights.shape[1]):
            source = (self.start + k).clamp(max=self.length - 1)
            result = result + values.index_select(axis, source) * self.weights[:, k].reshape(shape)
        return result


def resize_axis(source: int, target: int, dtype: torch.dtype, device: torch.device, align_corners: bool) -> Axis:
    """One axis of torch's bilinear ``interpolate`` to a given size, its positions computed in the same precision."""
    position = torch.arange(target, dtype=dtype, device=device)
    if align_corners:
        scale = torch.tensor((source - 1) / (target - 1) if target > 1 else 0.0, dtype=dtype, device=device)
        position = position * scale
    else:
        scale = torch.tensor(source, dtype=dtype, device=device) / target
        position = (scale * (position + 0.5) - 0.5).clamp(min=0)
    start = position.long().clamp(max=source - 1)
    share = (position - start).clamp(0, 1)
    share = torch.where(start < source - 1, share, 0)
    return Axis(start, torch.stack([1 - share, share], 1), source)
