"""The evaluation of an .onnx file node by node: what ONNX Runtime gives, and in half precision what overflows."""

import numpy as np
import pytest
import torch
from conftest import required

from effseg.deploy.half import HalfProgram

onnx = required('onnx')

from effseg.deploy.backends.graph import SCOPES  # noqa: E402
from effseg.deploy.backends.onnx import in_torch, load  # noqa: E402
from effseg.deploy.spec import Spec  # noqa: E402

RNG = np.random.default_rng(0)
SIZE = (8, 12)
WEIGHTS = {
    'conv': RNG.normal(size=(4, 3, 3, 3)),
    'grouped': RNG.normal(size=(6, 1, 3, 2)),
    'transposed': RNG.normal(size=(3, 2, 3, 3)),
    'bias': RNG.normal(size=4),
    'matrix': RNG.normal(size=(12, 5)),
    'low': 60.0,
    'high': 180.0,
    'thousand': 1000.0,
}
INTEGERS = {'axes': [2, 3], 'sizes': [1, 3, 16, 36], 'first': [1], 'long': [3, 96]}
CASES = [
    'Conv <pads=[1,1,1,1], strides=[2,2]> (x, conv, bias)',
    'Conv <pads=[0,1,2,1]> (x, conv)',
    'Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, conv)',
    'Conv <group=3, dilations=[2,1]> (x, grouped)',
    'ConvTranspose <strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]> (x, transposed)',
    'MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)',
    'MaxPool <kernel_shape=[2,2], strides=[2,2], pads=[0,0,1,1]> (x)',
    'AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1> (x)',
    'AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (x)',
    'GlobalAveragePool (x)',
    'Resize <mode="linear", coordinate_transformation_mode="half_pixel"> (x, , , sizes)',
    'Resize <mode="linear", coordinate_transformation_mode="align_corners"> (x, , , sizes)',
    'Resize <mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"> (x, , , sizes)',
    'Resize <mode="nearest", coordinate_transformation_mode="half_pixel"> (x, , , sizes)',
    'Resize <mode="cubic", coordinate_transformation_mode="half_pixel"> (x, , , sizes)',
    'ReduceMean <keepdims=0> (x, axes)',
    'ReduceSum (x, first)',
    'MatMul (x, matrix)',
    'Softmax <axis=1> (x)',
    'Gelu <approximate="tanh"> (x)',
    'Clip (x, low, high)',
    'Clip (x, low)',
    'Clip (x, , high)',
    'Min (x, low)',
    'Max (x, low, high)',
    'Erf (x)',
    'Transpose <perm=[0,2,3,1]> (x)',
    'Gather <axis=1> (x, first)',
    'HardSwish (x)',
]


def model(tmp_path, *nodes: str):
    """A file that takes an image as ours do, and applies nodes to (1, 3, H, W) float32 ``x``."""
    lines = ['f = Cast <to=1> (image)', 'x = Transpose <perm=[0,3,1,2]> (f)', *nodes]
    names = [line.partition(' = ')[0] for line in lines]
    made = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]>\n'
        f'g (uint8[1,{SIZE[0]},{SIZE[1]},3] image) => (float {names[-1]}) {{ {" ".join(lines)} }}'
    )
    given = {name: np.asarray(value, np.float32) for name, value in WEIGHTS.items()}
    given |= {name: np.asarray(value, np.int64) for name, value in INTEGERS.items()}
    used = {name for node in made.graph.node for name in node.input}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(given[name], name) for name in given if name in used)
    for node, name in zip(made.graph.node, names):
        entry = node.metadata_props.add()
        entry.key, entry.value = SCOPES, f"['', 'network', 'network.{name}', 'call']"
    onnx.save(made, tmp_path / 'm.onnx')
    return tmp_path / 'm.onnx'


def opened(path):
    return in_torch(None, Spec.unnamed('onnx', (32, 32)), path)


def image(value=None):
    return RNG.integers(0, 256, (*SIZE, 3), np.uint8) if value is None else np.full((*SIZE, 3), value, np.uint8)


@pytest.mark.parametrize('node', CASES)
def test_a_node_gives_what_the_runtime_gives(tmp_path, node):
    required('onnxruntime')
    path, pixels = model(tmp_path, f'y = {node}'), image()
    found = opened(path)(torch.from_numpy(pixels[None])).numpy()
    np.testing.assert_allclose(found, load(path).run(pixels[None])[0], rtol=1e-5, atol=1e-3)


def test_what_the_file_multiplies_and_divides_again_overflows_by_name(tmp_path):
    path = model(tmp_path, 'large = Mul (x, thousand)', 'y = Div (large, thousand)')
    program = HalfProgram(opened(path))
    assert not np.isfinite(program(image(200))).all()
    assert program.overflow.layer == 'network.large' and program.overflow.operation == 'mul'
    program = HalfProgram(opened(path))
    assert (program(image(60)) == 60).all() and program.overflow is None


def test_a_sum_of_the_file_stalls_where_sums_are_rounded(tmp_path):
    path = model(tmp_path, 'y = ReduceMean (x, axes)')
    wide = {sums: HalfProgram(opened(path), sums)(image(255)) for sums in (False, True)}
    assert (wide[False] == 255).all()
    path = model(tmp_path, 'z = Mul (x, high)', 'y = ReduceMean (z, axes)')
    assert np.isfinite(HalfProgram(opened(path))(image(255))).all()
    assert not np.isfinite(HalfProgram(opened(path), sums=True)(image(255))).all()


def test_weights_in_half_precision_are_read(tmp_path):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path, pixels = model(tmp_path, 'y = Conv (x, conv, bias)'), image(3)
    expected = opened(path)(torch.from_numpy(pixels[None])).numpy()
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)
    np.testing.assert_allclose(HalfProgram(opened(path))(pixels), expected[0], rtol=2e-2, atol=2e-2)
