"""The attention of a fused network, with its bias expanded for one grid."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.attention_bias import attention_bias, resize_table
from .folding import Affine
from .layers import Layer, activate, fixed


class HeadMix(Layer):
    """A conv of one tap over the heads of attention maps (talking heads): (N * heads, q, k) -> (N * heads, q, k).

    In torch the product with a matrix, which is the same, takes a fraction of a conv's time. ONNX Runtime fills the
    channels of a conv up to sixteen, twice what the heads are; LiteRT's GPU delegate takes no product whose first
    factor is a constant. So the portable form is the conv, and ONNX asks for the other.

    Args:
        weight: (heads, heads, 1, 1).
        bias: (heads,) or None.

    Attributes:
        as_product: whether the portable form is the product as well.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.weight, self.bias = fixed(weight), None if bias is None else fixed(bias)
        self.as_product = False

    def forward(self, x: Tensor) -> Tensor:
        heads = len(self.weight)
        maps = x.reshape(-1, heads, *x.shape[1:])
        if self.portable and not self.as_product:
            return F.conv2d(maps, self.weight, self.bias).reshape(x.shape)
        weight = self.weight.reshape(1, heads, heads)
        y = torch.bmm(weight if len(maps) == 1 else weight.expand(len(maps), -1, -1), maps.flatten(2))
        return (y if self.bias is None else self.plus(y, self.bias[:, None])).reshape(x.shape)


class Attention(Layer):
    """Multi-head attention on a map, with a bias per head, query and key.

    ``proj(act(upsample(mix_out(softmax(mix_in(q k) + bias)) v + local(v))))``; every part but q, k, v and proj is
    optional.

    Args:
        query: gives (N, heads * d, H_q, W_q); the scale of the logits is part of its weights.
        key: gives (N, heads * d, H, W).
        value: gives (N, heads * e, H, W).
        proj: the output layer.
        table: of offsets (heads, R_h * R_w).
        grid: (H, W) of the keys that the bias is stored for; for another it is expanded from the table.
        resolution: (R_h, R_w) of the table.
        bias_resize: see :mod:`effseg.models.attention_bias`.
        query_stride: distance of the queries on the keys' grid.
        before: a layer in front of query, key and value, such as a strided conv; with one, the result is upsampled
            bilinearly to the size of the input.
        local: (N, heads * e, H, W) -> (N, heads * e, H_q, W_q), added to the attended values.
        mix_in: a 1 x 1 conv over the heads of the logits (talking heads). Its bias is left out: it adds the same to all
            keys, which does not change a softmax.
        mix_out: the same over the heads of the probabilities.
        act: activation in front of ``proj``.

    Attributes:
        expand_when_run: expand the bias from the table even at ``grid``: for a file whose runtime does so once, when it
            loads the file, which is smaller for it. Without a table the bias is what is stored.
    """

    def __init__(
        self,
        query: Layer,
        key: Layer,
        value: Layer,
        proj: Layer,
        table: Tensor,
        grid: Sequence[int],
        resolution: Sequence[int],
        bias_resize: str,
        query_stride: int = 1,
        before: Layer | None = None,
        local: Layer | None = None,
        mix_in: Affine | None = None,
        mix_out: Affine | None = None,
        act: str = 'none',
    ):
        super().__init__()
        self.query, self.key, self.value, self.proj = query, key, value, proj
        self.heads, self.grid, self.resolution = len(table), (grid[0], grid[1]), (resolution[0], resolution[1])
        self.bias_resize, self.query_stride, self.act = bias_resize, query_stride, act
        self.before, self.local = before, local
        self.mix_in = None if mix_in is None else HeadMix(mix_in.weight)
        self.mix_out = None if mix_out is None else HeadMix(*mix_out)
        self.expand_when_run = False
        table = table.detach().double()
        if mix_in is not None:  # what is added before a linear map of the heads can be added behind it
            table = mix_in.weight[:, :, 0, 0] @ table
        self.table: Any = fixed(table)
        self.bias = fixed(self._expanded(self.grid))

    def strip(self) -> None:
        """Drops, in all layers inside, what only other sizes take; of the offset table it keeps the built size's."""
        super().strip()
        if self.bias_resize == 'matrix':  # the bias has no table
            self.table = None
            return
        table = resize_table(self.table, self.resolution, self.grid, self.bias_resize)
        self.table, self.resolution = nn.Parameter(table, requires_grad=False), self.grid

    def _expanded(self, grid: tuple[int, int]) -> Tensor:
        return attention_bias(self.table, self.resolution, grid, self.bias_resize, self.query_stride)

    def forward(self, x: Tensor) -> Tensor:
        source = x if self.before is None else self.before(x)
        batch, grid = x.shape[0], (source.shape[2], source.shape[3])
        query, value = self.query(source), self.value(source)
        size = query.shape[2:]
        q, k, v = (
            y.reshape(batch * self.heads, y.shape[1] // self.heads, y.shape[2] * y.shape[3])
            for y in (query, self.key(source), value)
        )
        logits = torch.bmm(q.transpose(1, 2), k)
        if self.mix_in is not None:
            logits = self.mix_in(logits)
        stored = grid == self.grid and not (self.expand_when_run and self.table is not None)
        bias = self.bias if stored else self._expanded(grid)
        if not self.portable:
            logits.unflatten(0, (batch, self.heads)).add_(bias)
        elif batch > 1:
            logits = (logits.unflatten(0, (batch, self.heads)) + bias).flatten(0, 1)
        else:
            logits = logits + bias
        attended = logits.softmax(-1)
        if self.mix_out is not None:
            attended = self.mix_out(attended)
        y = torch.bmm(attended, v.transpose(1, 2)).transpose(1, 2).reshape(batch, value.shape[1], *size)
        if self.local is not None:
            y = y + self.local(value)
        if self.before is not None:
            y = F.interpolate(y, size=x.shape[2:], mode='bilinear')
        return self.proj(activate(y, self.act, self.portable))
