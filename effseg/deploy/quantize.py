"""int8 by the runtimes' own post-training quantizers.

Convs and transposed convs, where nearly all weights and work are, take int8 weights per output channel and int8 maps. What
stays in float everywhere: attention's products and softmax, the norms' statistics, activations other than ReLU, sums, and
the convs with equal weights, which are averages and copies.
"""
from pathlib import Path

import numpy as np

from .quiet import quiet


def onnx_int8(path: Path, images: list[np.ndarray]) -> None:
    """Quantizes an .onnx file in place, by ONNX Runtime.

    Args:
        path: of the float file.
        images: (H, W, 3) uint8 that choose the ranges.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self._left = iter(images)

        def get_next(self):
            image = next(self._left, None)
            return None if image is None else {'image': image[None]}

    graph = onnx.load(path).graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    keep = [node.name for node in graph.node if node.op_type == 'Conv' and np.ptp(weights.get(node.input[1], np.zeros(1))) == 0]
    with quiet():
        quantize_static(str(path), str(path), Images(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8, op_types_to_quantize=['Conv', 'ConvTranspose'], nodes_to_exclude=keep)


def executorch_int8(exported, images: list[np.ndarray]):
    """A torch.export program with convs quantized for XNNPACK, by torchao.

    Args:
        exported: takes (1, H, W, 3) float32; constants folded.
        images: (H, W, 3) uint8 that choose the ranges.

    Returns:
        The quantized program.
    """
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    module = exported.module()
    quantizer = XNNPACKQuantizer()
    config = get_symmetric_quantization_config(is_per_channel=True)
    for operator in (torch.ops.aten.conv2d.default, torch.ops.aten.conv_transpose2d.input):
        quantizer.set_operator_type(operator, config)
    prepared = prepare_pt2e(module, quantizer)
    for image in images:
        prepared(torch.from_numpy(image[None].astype(np.float32)))
    example = torch.from_numpy(images[0][None].astype(np.float32))
    return torch.export.export(convert_pt2e(prepared), (example,))


def litert_int8(path: Path, images: list[np.ndarray]) -> None:
    """Quantizes a .tflite file in place, by ai-edge-quantizer.

    Args:
        path: of the float file.
        images: (H, W, 3) uint8 that choose the ranges.
    """
    from ai_edge_quantizer import qtyping, quantizer
    tool = quantizer.Quantizer(str(path))
    for operation in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.CONV_2D_TRANSPOSE):
        tool.add_static_config(regex='.*', operation_name=operation, activation_num_bits=8, weight_num_bits=8)
    from ai_edge_litert.interpreter import Interpreter
    signature, parts = next(iter(Interpreter(str(path)).get_signature_list().items()))
    with quiet():
        ranges = tool.calibrate({signature: [{parts['inputs'][0]: image[None].astype(np.float32)} for image in images]})
        tool.quantize(ranges).export_model(str(path), overwrite=True)
