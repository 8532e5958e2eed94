"""Evaluates Core ML's MIL programs in torch, so that a wrong conversion is found without a Mac.

It knows the operators that the exported networks are converted to, and refuses every other.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import ParityError
from ..interface import taken
from ..spec import Spec

UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    'relu': F.relu,
    'relu6': F.relu6,
    'sqrt': torch.sqrt,
    'square': torch.square,
    'abs': torch.abs,
    'tanh': torch.tanh,
    'erf': torch.erf,
    'silu': F.silu,
    'floor': torch.floor,
    'exp': torch.exp,
    'sigmoid': torch.sigmoid,
    'identity': lambda x: x,
}
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    'add': torch.add,
    'sub': torch.sub,
    'mul': torch.mul,
    'real_div': torch.div,
    'maximum': torch.maximum,
    'minimum': torch.minimum,
    'pow': torch.pow,
    'greater': torch.gt,
    'greater_equal': torch.ge,
    'less': torch.lt,
    'less_equal': torch.le,
    'equal': torch.eq,
    'floor_div': torch.floor_divide,
}
# half precision is computed in float32: what is proved of it is its weights and its program, not its rounding
TYPES = {'fp32': torch.float32, 'fp16': torch.float32, 'int32': torch.int32, 'bool': torch.bool}


class Interpreted(torch.nn.Module):
    """A program's ``main``, evaluated in float32.

    Args:
        program: as coremltools converted or loaded it.
        channels_first: whether it takes the image as (1, 3, H, W).

    Attributes:
        at: the name of the operation that is evaluated.
    """

    def __init__(self, program, channels_first: bool = True):
        super().__init__()
        self.function, self.channels_first, self.at = program.functions['main'], channels_first, ''

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, H, W, 3) uint8 -> what the program returns; two results as one, as other programs have them."""
        results = self.results(image)
        return results[0] if len(results) == 1 else torch.stack([result.float() for result in results], 1)

    def run(self, image: np.ndarray, spec: Spec):
        """(H, W, 3) uint8 RGB -> what :class:`~effseg.deploy.artifact.Artifact` gives."""
        return taken(
            [result.numpy() for result in self.results(torch.from_numpy(np.ascontiguousarray(image)[None]))], spec
        )

    @torch.no_grad()
    def results(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(1, H, W, 3) uint8 -> the program's outputs.

        Raises:
            ParityError: for an operator that is not known here, or a result of another shape than the program declares.
        """
        image = image.permute(0, 3, 1, 2) if self.channels_first else image
        values = {name: image.float().contiguous() for name in self.function.inputs}

        def value(var):
            if isinstance(var, (list, tuple)):
                return [value(item) for item in var]
            if var.name in values:
                return values[var.name]
            constant = var.val
            return _tensor(constant) if isinstance(constant, (np.ndarray, np.generic)) else constant

        for op in self.function.operations:
            if op.op_type == 'const':
                continue
            self.at = op.name
            results = _apply(op.op_type, {name: value(var) for name, var in op.inputs.items() if var is not None})
            for result, output in zip(results if isinstance(results, tuple) else (results,), op.outputs):
                if tuple(result.shape) != tuple(output.shape):
                    raise ParityError(f'{op.op_type} {op.name} gives {tuple(result.shape)}, not {output.shape}')
                values[output.name] = result
        return [values[output.name] for output in self.function.outputs]


def _tensor(constant) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(constant))
    return tensor.float() if tensor.is_floating_point() else tensor


def _ints(tensor) -> list[int]:
    return [int(i) for i in tensor]


def _apply(kind: str, a: dict) -> torch.Tensor | tuple[torch.Tensor, ...]:
    if kind in UNARY:
        return UNARY[kind](a['x'])
    if kind in BINARY:
        return BINARY[kind](a['x'], a['y'])
    if kind not in HANDLERS:
        raise ParityError(
            f'the program has the operator {kind}, which cannot be evaluated off macOS; run the export there, or add '
            'it to effseg/deploy/backends/mil.py'
        )
    return HANDLERS[kind](a)


def _conv(a):
    x, kind = a['x'], a.get('pad_type', 'valid')
    if kind not in ('valid', 'custom'):
        raise ParityError(f'padding {kind} cannot be evaluated off macOS; run the export there')
    if kind == 'custom':
        top, bottom, left, right = _ints(a['pad'])
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, a['weight'], a.get('bias'), _ints(a['strides']), 0, _ints(a['dilations']), int(a['groups']))


def _conv_transpose(a):
    full = F.conv_transpose2d(
        a['x'], a['weight'], a.get('bias'), _ints(a['strides']), 0, 0, int(a['groups']), _ints(a['dilations'])
    )
    if a.get('pad_type') != 'custom':
        return full
    top, bottom, left, right = _ints(a['pad'])
    return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]


def _pool_window(a) -> tuple[list[int], list[int], tuple[int, int]]:
    """Kernel, strides and padding of a pooling, which torch takes of equal padding on both sides alone."""
    pad = _ints(a['pad']) if a.get('pad_type', 'valid') == 'custom' else [0] * 4
    if a.get('pad_type', 'valid') not in ('custom', 'valid') or pad[0] != pad[1] or pad[2] != pad[3]:
        raise ParityError(f'pooling with the padding {a["pad_type"]} {pad} cannot be evaluated off macOS')
    return _ints(a['kernel_sizes']), _ints(a['strides']), (pad[0], pad[2])


def _avg_pool(a):
    inside = not bool(a['exclude_padding_from_average'])
    return F.avg_pool2d(a['x'], *_pool_window(a), bool(a.get('ceil_mode', False)), inside)


def _layer_norm(a):
    shape = [a['x'].shape[axis] for axis in _ints(a['axes'])]
    return F.layer_norm(a['x'], shape, a.get('gamma'), a.get('beta'), float(a['epsilon']))


def _matmul(a):
    x, y = a['x'], a['y']
    return torch.matmul(x.mT if a.get('transpose_x') else x, y.mT if a.get('transpose_y') else y)


def _reduced(reduce: Callable) -> Callable:
    return lambda a: reduce(a['x'], _ints(a['axes']), keepdim=bool(a['keep_dims']))


def _expand_dims(a):
    for axis in sorted(_ints(a['axes'])):
        a['x'] = a['x'].unsqueeze(axis)
    return a['x']


def _split(a):
    sizes = _ints(a['split_sizes']) if 'split_sizes' in a else a['x'].shape[int(a['axis'])] // int(a['num_splits'])
    return a['x'].split(sizes, int(a['axis']))


def _factors(a) -> tuple[float, float]:
    return float(a['scale_factor_height']), float(a['scale_factor_width'])


def _upsample_bilinear(a):
    size = [int(side * factor) for side, factor in zip(a['x'].shape[2:], _factors(a))]
    return F.interpolate(a['x'], size=size, mode='bilinear', align_corners=bool(a['align_corners']))


def _pad(a):
    amounts = _ints(a['pad'])
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    return F.pad(a['x'], [side for pair in reversed(pairs) for side in pair], value=float(a['constant_val']))


def _slice_by_index(a):
    x, masks = a['x'], {name: a.get(name) for name in ('begin_mask', 'end_mask', 'squeeze_mask')}
    stride = _ints(a['stride']) if 'stride' in a else [1] * x.dim()
    index = []
    for axis, (begin, end) in enumerate(zip(_ints(a['begin']), _ints(a['end']))):
        if masks['squeeze_mask'] is not None and bool(masks['squeeze_mask'][axis]):
            index.append(begin)
            continue
        first = None if masks['begin_mask'] is not None and bool(masks['begin_mask'][axis]) else begin
        last = None if masks['end_mask'] is not None and bool(masks['end_mask'][axis]) else end
        index.append(slice(first, last, stride[axis]))
    return x[tuple(index)]


def _constexpr_affine_dequantize(a):
    """int8 weights as the float ones they stand for, a scale for each index of one axis."""
    data, axis = a['quantized_data'], int(a['axis'])
    shape = [-1 if number == axis else 1 for number in range(data.dim())]
    scale, zero = (torch.as_tensor(a[name]).float().reshape(-1) for name in ('scale', 'zero_point'))
    scale, zero = (x.reshape(shape) if x.numel() > 1 else x for x in (scale, zero))
    return (data.float() - zero) * scale


# of the arguments by name; the other operators are in UNARY and BINARY
HANDLERS: dict[str, Callable[[dict], torch.Tensor | tuple[torch.Tensor, ...]]] = {
    'conv': _conv,
    'conv_transpose': _conv_transpose,
    'avg_pool': _avg_pool,
    'max_pool': lambda a: F.max_pool2d(a['x'], *_pool_window(a), ceil_mode=bool(a.get('ceil_mode', False))),
    'batch_norm': lambda a: F.batch_norm(
        a['x'], a['mean'], a['variance'], a.get('gamma'), a.get('beta'), False, 0.0, float(a['epsilon'])
    ),
    'layer_norm': _layer_norm,
    'instance_norm': lambda a: F.instance_norm(
        a['x'], weight=a.get('gamma'), bias=a.get('beta'), eps=float(a['epsilon'])
    ),
    'clip': lambda a: a['x'].clamp(float(a['alpha']), float(a['beta'])),
    'sigmoid_hard': lambda a: (a['x'] * float(a['alpha']) + float(a['beta'])).clamp(0, 1),
    'thresholded_relu': lambda a: F.threshold(a['x'], float(a['alpha']), 0),
    'leaky_relu': lambda a: F.leaky_relu(a['x'], float(a['alpha'])),
    'gelu': lambda a: F.gelu(a['x'], approximate='tanh' if a['mode'] == 'TANH_APPROXIMATION' else 'none'),
    'rsqrt': lambda a: torch.rsqrt(a['x'] + float(a['epsilon'])),
    'softmax': lambda a: a['x'].softmax(int(a['axis'])),
    'matmul': _matmul,
    'linear': lambda a: F.linear(a['x'], a['weight'], a.get('bias')),
    'reduce_mean': _reduced(torch.mean),
    'reduce_sum': _reduced(torch.sum),
    'reduce_max': _reduced(torch.amax),
    'reduce_argmax': lambda a: a['x'].argmax(int(a['axis']), keepdim=bool(a['keep_dims'])).int(),
    'reshape': lambda a: a['x'].reshape(_ints(a['shape'])),
    'transpose': lambda a: a['x'].permute(_ints(a['perm'])),
    'squeeze': lambda a: a['x'].squeeze(tuple(_ints(a['axes']))),
    'expand_dims': _expand_dims,
    'split': _split,
    'concat': lambda a: torch.cat(a['values'], int(a['axis'])),
    'tile': lambda a: a['x'].repeat(_ints(a['reps'])),
    'upsample_nearest_neighbor': lambda a: F.interpolate(a['x'], scale_factor=_factors(a), mode='nearest'),
    'upsample_bilinear': _upsample_bilinear,
    'pixel_shuffle': lambda a: F.pixel_shuffle(a['x'], int(a['upscale_factor'])),
    'pad': _pad,
    'slice_by_index': _slice_by_index,
    'cast': lambda a: a['x'].to(TYPES[a['dtype']]),
    'constexpr_affine_dequantize': _constexpr_affine_dequantize,
}
