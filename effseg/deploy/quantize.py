"""int8 by a runtime's own post-training quantizer: ONNX Runtime's.

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
