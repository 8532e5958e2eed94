"""One level of Semantic FPN as convs straight from the backbone's maps.

MMSegmentation's FPN has neither norms nor activations. At level i the head's first conv H therefore sees a linear chain,

    P_i = L_i x_i + up2(P_i+1),    y_i = H * (F * P_i),

lateral 1 x 1 conv L, nearest upsampling, 3 x 3 convs F and H. With K = H o F, one 5 x 5 kernel, and r a level above i,

    y_i = sum over j from i to r - 1 of (K o L_j) * up(x_j)  +  K * up(P_r),

and a kernel behind nearest upsampling is a transposed conv of the small map: fewer multiplications the coarser the map.

Two things happen at the border of the image only, and are corrected there, exactly:

- H pads F's output with zeros, where the composed kernel sees F continued to a ring of pixels around the image. What H
  takes from the ring's top line is a 5-tap conv along the first line of P_i, likewise at the other sides; the ring's four
  corners, counted in a row and a column, are added back once.
- Biases pass through padded convs. Their sum is one number per channel up to two pixels from the border; there it
  depends on the distances to the sides alone.
"""
from collections.abc import Sequence as Many

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import Affine, after_upsampling, compose
from .layer import Layer, activate, empty
from .layers import Conv

REACH = 2  # pixels that the 5 x 5 kernel sees to each side


def cost(inputs: Many[int], middle: int, out: int) -> int:
    """Multiplications per pixel of the level in collapsed form.

    Args:
        inputs: channels of the maps from the level's own upwards, each half the size of the one before.
        middle: channels of P_r, half the size of the last of ``inputs``.
        out: channels of the result.
    """
    total = 25 * inputs[0]
    for steps, channels in enumerate([*inputs[1:], middle], 1):
        total += (4 + 2 ** steps) ** 2 * channels / 4 ** steps
    return total * out


class Upsampled(Layer):
    """Nearest upsampling and a 5 x 5 conv, as one transposed conv without a bias.

    Args:
        in_channels: of the small map.
        out_channels: of the result.
        factor: of the upsampling.
    """
    ARGS = ('in_channels', 'out_channels', 'factor')

    def __init__(self, in_channels: int, out_channels: int, factor: int):
        super().__init__()
        self.in_channels, self.out_channels, self.factor = in_channels, out_channels, factor
        self.weight = empty(in_channels, out_channels, 4 + factor, 4 + factor)

    @classmethod
    def of(cls, kernel: Tensor, factor: int) -> 'Upsampled':
        """The layer for a 5 x 5 kernel (out, in, 5, 5) behind the upsampling."""
        layer = cls(kernel.shape[1], kernel.shape[0], factor).to(kernel.device)
        layer.weight.copy_(after_upsampling(kernel, factor))
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, None, self.factor, REACH)


class Ring(Layer):
    """What H takes from the ring around F's output: along each side a 5-tap conv of P_i's line there.

    Lines are (N, 4, C, L): top, bottom, left, right, the shorter two filled up with zeros.

    Args:
        channels: of P_i.
        out_channels: of H.
    """
    ARGS = ('channels', 'out_channels')

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels
        self.sides = empty(4 * out_channels, channels, 1, 5)
        self.corners = empty(4 * out_channels, channels, 1, 1)

    @classmethod
    def of(cls, head: Tensor, output: Tensor) -> 'Ring':
        """The correction for the kernels H (out, f, 3, 3) and F (f, f, 3, 3)."""
        layer = cls(head.shape[1], head.shape[0]).to(head.device)
        near, far = slice(0, 1), slice(2, 3)  # H's taps that reach over a side; F's that reach back are the opposite ones
        sides = [compose(head[:, :, near], output[:, :, far]),
                 compose(head[:, :, far], output[:, :, near]),
                 compose(head[..., near], output[..., far]).transpose(2, 3),
                 compose(head[..., far], output[..., near]).transpose(2, 3)]
        corners = [head[:, :, row, column] @ output[:, :, 2 - row, 2 - column] for row in (0, 2) for column in (0, 2)]
        layer.sides.copy_(torch.cat(sides))
        layer.corners.copy_(torch.cat(corners)[:, :, None, None])
        return layer

    def forward(self, lines: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """
        Args:
            lines: (N, 4, C, L) of P_i.
            grid: (H, W) of P_i.

        Returns:
            What is to be subtracted from the first and last line (N, out, 1, W) and column (N, out, H, 1).
        """
        height, width = grid
        batch = len(lines)
        sides = F.conv2d(lines.reshape(batch, 4 * self.channels, 1, -1), self.sides, padding=(0, REACH), groups=4)
        sides = sides.reshape(batch, 4, self.out_channels, -1)
        ends = torch.cat([lines[:, line, :, end:end + 1] for line in (0, 1) for end in (0, width - 1)], 1)[..., None]
        ends = F.conv2d(ends, self.corners, groups=4).reshape(batch, 4, self.out_channels, 1)
        rows = []
        for line in (0, 1):
            first, last = ends[:, 2 * line], ends[:, 2 * line + 1]
            inner = sides[:, line, :, 1:width - 1]
            row = torch.cat([sides[:, line, :, :1] - first, inner, sides[:, line, :, width - 1:width] - last], 2)
            rows.append(row[:, :, None])
        return [*rows, sides[:, 2, :, :height, None], sides[:, 3, :, :height, None]]


    def portable_form(self, strips: Many[Tensor]) -> list[Tensor]:
        """:meth:`forward` of :func:`strips`, in operations of rank 4 that runtimes execute natively."""
        top, bottom, left, right = strips
        lines = (top[:, :, :1], bottom[:, :, -1:], left[..., :1], right[..., -1:])
        kernels, corners = self._per_side(self.sides), self._per_side(self.corners)
        rows = []
        for line, kernel, first, last in zip(lines, kernels, corners[::2], corners[1::2]):
            side = F.conv2d(line, kernel, padding=(0, REACH))
            rows.append(torch.cat([side[..., :1] - F.conv2d(line[..., :1], first), side[..., 1:-1],
                                   side[..., -1:] - F.conv2d(line[..., -1:], last)], 3))
        columns = [F.conv2d(line, kernel.transpose(2, 3).contiguous(), padding=(REACH, 0)) for line, kernel in zip(lines[2:], kernels[2:])]
        return [*rows, *columns]

    def _per_side(self, kernels: Tensor) -> list[Tensor]:
        return [kernels[side * self.out_channels:(side + 1) * self.out_channels] for side in range(4)]


def strips(x: Tensor) -> list[Tensor]:
    """The first and last two lines (N, C, 2, W) and columns (N, C, H, 2) of a map (N, C, H, W): two, since runtimes lose
    track of the layout of maps with a side of one."""
    return [x[:, :, :2], x[:, :, -2:], x[..., :2], x[..., -2:]]


def doubled(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2 H, 2 W), every pixel copied, by a depthwise conv: runtimes do not repeat natively."""
    copies = torch.ones(4 * x.shape[1], 1, 1, 1, dtype=x.dtype, device=x.device)
    return F.pixel_shuffle(F.conv2d(x, copies, groups=x.shape[1]), 2)


def side_lines(x: Tensor) -> Tensor:
    """The first and last line and column of a map (N, C, H, W) as (N, 4, C, L), L = max(H, W)."""
    length = max(x.shape[2:])
    lines = (x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1])
    return torch.stack([F.pad(line, (0, length - line.shape[2])) if line.shape[2] < length else line for line in lines], 1)


class CollapsedLevel(Layer):
    """The head's first conv and activation at one level, from the backbone's maps and P_r.

    Args:
        own: 5 x 5 conv of the level's own map, with the bias of the inside of the image.
        above: one per further map, then one for P_r.
        ring: the border's correction.
        grid: (H, W) of the level that the border's biases are stored for; at least 4 x 4.
        act: activation behind the level.
    """
    ARGS = ('own', 'above', 'ring', 'grid', 'act')

    def __init__(self, own: Conv, above: Many[Upsampled], ring: Ring, grid: Many[int], act: str):
        super().__init__()
        self.own, self.above, self.ring = own, nn.ModuleList(above), ring
        self.grid, self.act = tuple(grid), act
        channels = own.out_channels
        self.frame = empty(1, channels, 2 * REACH + 1, 2 * REACH + 1)
        self.frame_rows = empty(2, channels, REACH, self.grid[1])
        self.frame_columns = empty(2, channels, self.grid[0], REACH)

    @classmethod
    def of(cls, laterals: Many[Affine], output: Affine, head: Affine, above: int, grid: Many[int], act: str) -> 'CollapsedLevel':
        """
        Args:
            laterals: L of this level and of those up to r.
            output: F.
            head: H, BatchNorm folded in.
            above: r - i for P_r.
            grid: (H, W).
            act: activation behind the level.
        """
        kernel = compose(head.weight, output.weight)
        table = bias_table(sum(part.bias for part in laterals), output, head)
        own = Conv.of(Affine(compose(kernel, laterals[0].weight), table[:, REACH, REACH]))
        uppers = [Upsampled.of(compose(kernel, part.weight), 2 ** steps) for steps, part in enumerate(laterals[1:], 1)]
        uppers.append(Upsampled.of(kernel, 2 ** above))
        layer = cls(own, uppers, Ring.of(head.weight, output.weight), grid, act).to(kernel.device)
        layer.frame.copy_(table - table[:, REACH, REACH, None, None])
        rows, columns = layer._frame(layer.grid)
        layer.frame_rows.copy_(rows)
        layer.frame_columns.copy_(columns)
        return layer

    def strip(self) -> None:
        """Drops the table of the border's biases that is laid out for the grid."""
        self.frame = None

    def _frame(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What the biases miss of their inner value: in the outer rows (2, C, 2, W), then in the outer columns (2, C, H, 2)
        without those rows."""
        height, width = grid
        rows = self.frame[0][:, :, _distances(width, self.frame.device)]
        columns = self.frame[0][:, _distances(height, self.frame.device)]
        columns = F.pad(columns[:, REACH:-REACH], (0, 0, REACH, REACH))
        return torch.stack([rows[:, :REACH], rows[:, -REACH:]]), torch.stack([columns[..., :REACH], columns[..., -REACH:]])

    def forward(self, maps: Many[Tensor], rest: Tensor, laterals: Many[Conv]) -> Tensor:
        """
        Args:
            maps: the backbone's maps from this level up to r.
            rest: P_r, half the size of the last of ``maps``.
            laterals: those of ``maps``; of them the border needs the kernels.
        """
        y = self.own(maps[0])
        for layer, x in zip(self.above, [*maps[1:], rest]):
            y = y + layer(x) if self.portable else y.add_(layer(x))
        grid = tuple(y.shape[2:])
        if self.portable:
            corrections = self.ring.portable_form(self._strips(maps, rest, laterals))
        else:
            corrections = self.ring(self._lines(maps, rest, laterals), grid)
        rows, columns = (self.frame_rows, self.frame_columns) if grid == self.grid else self._frame(grid)
        correct = _corrected if self.portable else _correct_
        return activate(correct(y, corrections, rows, columns), self.act, self.portable)

    def _strips(self, maps: Many[Tensor], rest: Tensor, laterals: Many[Conv]) -> list[Tensor]:
        """:meth:`_lines` as :func:`strips`."""
        sides = strips(rest)
        for x, lateral in zip(reversed(maps), reversed(laterals)):
            # of a doubled strip, the half that lies at the border
            halves = [strips(doubled(side))[index] for index, side in enumerate(sides)]
            sides = [F.conv2d(own, lateral.weight) + half for own, half in zip(strips(x), halves)]
        return sides

    def _lines(self, maps: Many[Tensor], rest: Tensor, laterals: Many[Conv]) -> Tensor:
        """P_i along the sides, the biases of ``laterals`` left out: the table has them."""
        lines = side_lines(rest)
        for x, lateral in zip(reversed(maps), reversed(laterals)):
            own = side_lines(x)
            own = F.conv2d(own.flatten(0, 1)[:, :, None], lateral.weight)[:, :, 0].unflatten(0, (-1, 4))
            lines = own + torch.stack([lines, lines], -1).flatten(-2)
        return lines


def _correct_(y: Tensor, ring: Many[Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """Corrects the border of ``y`` in place."""
    top, bottom, left, right = ring
    for part, change in ((y[:, :, :1], top), (y[:, :, -1:], bottom), (y[..., :1], left), (y[..., -1:], right)):
        part.sub_(change)
    for part, change in ((y[:, :, :REACH], rows[0]), (y[:, :, -REACH:], rows[1]),
                         (y[..., :REACH], columns[0]), (y[..., -REACH:], columns[1])):
        part.add_(change)
    return y


def _corrected(y: Tensor, ring: Many[Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """The same as :func:`_correct_` with slices and concatenations, which runtimes execute natively."""
    top, bottom, left, right = ring
    beside = REACH - 1
    y = torch.cat([y[:, :, :REACH] + rows[:1] - F.pad(top, (0, 0, 0, beside)), y[:, :, REACH:-REACH],
                   y[:, :, -REACH:] + rows[1:] - F.pad(bottom, (0, 0, beside, 0))], 2)
    return torch.cat([y[..., :REACH] + columns[:1] - F.pad(left, (0, beside)), y[..., REACH:-REACH],
                      y[..., -REACH:] + columns[1:] - F.pad(right, (beside, 0))], 3)


def _distances(length: int, device: torch.device) -> Tensor:
    """The row of :func:`bias_table` for each of ``length`` >= 4 positions."""
    positions = torch.full((length,), REACH, device=device)
    positions[:REACH] = torch.arange(REACH, device=device)
    positions[-REACH:] = torch.arange(REACH + 1, 2 * REACH + 1, device=device)
    return positions


def bias_table(lateral: Tensor, output: Affine, head: Affine) -> Tensor:
    """What the biases alone give, by position: (C, 5, 5), rows and columns 0, 1, any in the middle, last but one, last.

    Args:
        lateral: sum of the lateral biases (f,).
        output: F.
        head: H.
    """
    side = 2 * REACH + 2
    x = lateral[None, :, None, None].expand(1, -1, side, side)
    for part in (output, head):
        x = F.conv2d(x, part.weight, part.bias, padding=1)
    keep = [*range(REACH + 1), side - 2, side - 1]
    return x[0][:, keep][:, :, keep]
