"""One level of Semantic FPN as convs straight from the backbone's maps.

MMSegmentation's FPN has neither norms nor activations. At level i the head's first conv H therefore sees a linear
chain,

    P_i = L_i x_i + up2(P_i+1),    y_i = H * (F * P_i),

lateral 1 x 1 conv L, nearest upsampling, 3 x 3 convs F and H. With K = H o F, one 5 x 5 kernel, and r a level above i,

    y_i = sum over j from i to r - 1 of (K o L_j) * up(x_j)  +  K * up(P_r),

and a kernel behind nearest upsampling is a few convs of the small map (:mod:`effseg.fusion.upsample`): fewer
multiplications the coarser the map.

Two things happen at the border of the image only, and are corrected there, exactly:

- H pads F's output with zeros, where the composed kernel sees F continued by one pixel beyond each side of the image
  (:class:`BorderCorrection`). What H would take from the line above the image is a 5-tap conv along the first line of
  P_i, likewise at the other sides; the four corners, counted in a row and in a column, are added back once.
- Biases pass through padded convs. Their sum is one number per channel up to two pixels from the border; there it
  depends on the distances to the sides alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import Affine, compose
from .layers import Conv, Layer, activate, fixed
from .upsample import Upsampled, depth_to_space, plus_doubled, space_to_depth, summed

REACH = 2  # pixels that the 5 x 5 kernel sees to each side


def cost(inputs: Sequence[int], middle: int, out: int) -> float:
    """Multiplications per pixel of the level in collapsed form.

    Args:
        inputs: channels of the maps from the level's own upwards, each half the size of the one before.
        middle: channels of P_r, half the size of the last of ``inputs``.
        out: channels of the result.
    """
    total: float = 25 * inputs[0]
    for steps, channels in enumerate([*inputs[1:], middle], 1):
        total += (6.25 if steps == 1 else (1 + 2**-steps) ** 2) * channels
    return total * out


class BorderCorrection(Layer):
    """Zero-padding correction at the image border: what the composed kernel sees beyond F's output, and H does not.

    Along each side it is a 5-tap conv of P_i's outermost line.

    Args:
        head: H (out, f, 3, 3).
        output: F (f, f, 3, 3).
    """

    def __init__(self, head: Tensor, output: Tensor):
        super().__init__()
        # H's taps that reach over a side; F's that reach back are the opposite ones
        near, far = slice(0, 1), slice(2, 3)
        rows = [compose(head[:, :, near], output[:, :, far]), compose(head[:, :, far], output[:, :, near])]
        columns = [compose(head[..., near], output[..., far]), compose(head[..., far], output[..., near])]
        corners = [
            (head[:, :, row, column] @ output[:, :, 2 - row, 2 - column])[..., None, None]
            for row in (0, 2)
            for column in (0, 2)
        ]
        self.rows, self.columns, self.corners = (nn.ParameterList(map(fixed, x)) for x in (rows, columns, corners))

    def forward(self, strips: Sequence[Tensor]) -> list[Tensor]:
        """
        Args:
            strips: of P_i, see :func:`strips`.

        Returns:
            What is to be subtracted from the first and last line and column, in space-to-depth form:
            (N, 1, W / 2, 4 out) and (N, H / 2, 1, 4 out).
        """
        top, bottom, left, right = lines(strips)
        rows = [self._row(top, 0), self._row(bottom, 1)]
        columns = [F.conv2d(line, kernel, padding=(REACH, 0)) for line, kernel in zip((left, right), self.columns)]
        one = torch.ones(1, 1, 1, dtype=top.dtype, device=top.device)
        place = torch.cat([one, 0 * one, one], 1)
        halves = []
        for line, index in zip([*rows, *columns], (0, 1, 0, 1)):
            batch, channels, height, width = line.shape
            row = height == 1
            # two pixels along the line, and across it zeros in place of the other line
            line = line.permute(0, 2, 3, 1).reshape(-1, 1, (2 if row else 1) * channels) * place[:, index : index + 2]
            halves.append(line.reshape(batch, -1, width // 2 if row else 1, 4 * channels))
        return halves

    def _row(self, line: Tensor, index: int) -> Tensor:
        """Top and bottom own the corners, which the columns count as well."""
        first, last = self.corners[2 * index], self.corners[2 * index + 1]
        y = F.conv2d(line, self.rows[index], padding=(0, REACH))
        return torch.cat(
            [y[..., :1] - F.conv2d(line[..., :1], first), y[..., 1:-1], y[..., -1:] - F.conv2d(line[..., -1:], last)], 3
        )


def strips(x: Tensor) -> list[Tensor]:
    """The first and last two lines (N, C, 2, W) and columns (N, C, H, 2) of a map (N, C, H, W): two, since runtimes
    lose track of the layout of maps with a side of one."""
    return [x[:, :, :2], x[:, :, -2:], x[..., :2], x[..., -2:]]


def lines(sides: Sequence[Tensor]) -> list[Tensor]:
    """Of :func:`strips`, the lines at the border."""
    top, bottom, left, right = sides
    return [top[:, :, :1], bottom[:, :, -1:], left[..., :1], right[..., -1:]]


class CollapsedLevel(Layer):
    """The head's first conv and activation at one level, from the backbone's maps and P_r.

    Args:
        laterals: L of this level and of those up to r.
        output: F.
        head: H, BatchNorm folded in.
        above: r - i for P_r.
        grid: (H, W) of the level that the border's biases are stored for; at least 4 x 4, both even.
        act: activation behind the level.
    """

    def __init__(
        self, laterals: Sequence[Affine], output: Affine, head: Affine, above: int, grid: Sequence[int], act: str
    ):
        super().__init__()
        kernel = compose(head.weight, output.weight)
        bias: Any = sum(part.bias for part in laterals)
        table = bias_table(bias, output, head)
        inside = table[:, REACH, REACH]
        self.own = Conv(Affine(compose(kernel, laterals[0].weight), inside))
        uppers = [Upsampled(compose(kernel, part.weight), 2**steps) for steps, part in enumerate(laterals[1:], 1)]
        self.above = nn.ModuleList([*uppers, Upsampled(kernel, 2**above)])
        self.border = BorderCorrection(head.weight, output.weight)
        self.act = act
        self.frame: Any = fixed((table - inside[:, None, None])[None])
        self.lay_out(grid)

    def lay_out(self, grid: Sequence[int]) -> None:
        """Stores the border's biases for maps of ``grid`` = (H, W), at least 4 x 4, both even."""
        self.grid = (grid[0], grid[1])
        rows, columns = self._frame(self.grid)
        self.frame_rows = nn.Parameter(rows, requires_grad=False)
        self.frame_columns = nn.Parameter(columns, requires_grad=False)

    def strip(self) -> None:
        """Drops the table of the border's biases that is laid out for the grid."""
        self.frame = None

    def _frame(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What the sum of the biases differs by, near the border, from its value inside the image.

        Returns:
            In space-to-depth form: of the first and last rows, (2, 1, W / 2, 4 C); of the first and last columns,
            without those rows, (2, H / 2, 1, 4 C).
        """
        height, width = grid
        rows = self.frame[0][:, :, _distances(width, self.frame.device)]
        columns = self.frame[0][:, _distances(height, self.frame.device)]
        columns = F.pad(columns[:, REACH:-REACH], (0, 0, REACH, REACH))
        return (
            space_to_depth(torch.stack([rows[:, :REACH], rows[:, -REACH:]])),
            space_to_depth(torch.stack([columns[..., :REACH], columns[..., -REACH:]])),
        )

    def forward(self, maps: Sequence[Tensor], rest: Tensor, laterals: Sequence[Conv]) -> Tensor:
        """
        Args:
            maps: the backbone's maps from this level up to r.
            rest: P_r, half the size of the last of ``maps``.
            laterals: those of ``maps``; of them the border needs the kernels.
        """
        finest, *coarser = [layer(x) for layer, x in zip(self.above, [*maps[1:], rest])]
        finest[0] = self._bordered(finest[0], self._border(maps, rest, laterals))
        above = depth_to_space(summed(finest, *coarser), 2, 2)
        y = self.own(maps[0]).permute(0, 2, 3, 1)
        return activate(y + above if self.portable else y.add_(above), self.act, self.portable).permute(0, 3, 1, 2)

    def _border(self, maps: Sequence[Tensor], rest: Tensor, laterals: Sequence[Conv]) -> list[Tensor]:
        """What is to be added to the first and last line and column, in space-to-depth form."""
        sides = strips(rest)
        for x, lateral in zip(reversed(maps), reversed(laterals)):
            # the biases of the laterals are in the table
            sides = [plus_doubled(F.conv2d(own, lateral.weight), line) for own, line in zip(strips(x), lines(sides))]
        grid = (maps[0].shape[2], maps[0].shape[3])
        rows, columns = (self.frame_rows, self.frame_columns) if grid == self.grid else self._frame(grid)
        biases = (rows[:1], rows[1:], columns[:1], columns[1:])
        return [bias - line for bias, line in zip(biases, self.border(sides))]

    def _bordered(self, y: Tensor, border: Sequence[Tensor]) -> Tensor:
        """``y`` with ``border`` added. The portable form joins slices, which runtimes execute natively."""
        top, bottom, left, right = border
        if self.portable:
            y = torch.cat([y[:, :1] + top, y[:, 1:-1], y[:, -1:] + bottom], 1)
            return torch.cat([y[:, :, :1] + left, y[:, :, 1:-1], y[:, :, -1:] + right], 2)
        for part, change in ((y[:, :1], top), (y[:, -1:], bottom), (y[:, :, :1], left), (y[:, :, -1:], right)):
            part.add_(change)
        return y


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
