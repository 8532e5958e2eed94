"""The operators that LiteRT's GPU delegate takes, by name: ``CheckGpuDelegateCompatibility`` in
``tflite/tools/versioning/gpu_compatibility.cc`` of google-ai-edge/LiteRT (commit 007226f, read in November 2026). The
analyzer in the package says of every graph that it is compatible.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

TAKEN = frozenset(
    """
    ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL BITCAST CAST CONCATENATION CONV_2D CUMSUM DENSIFY DEPTHWISE_CONV_2D
    DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP DYNAMIC_UPDATE_SLICE FULLY_CONNECTED GATHER HARD_SWISH LSTM MAX_POOL_2D
    MEAN MUL PACK ONE_HOT QUANTIZE RELU_N1_TO_1 PRELU RESHAPE SELECT SELECT_V2 SLICE SOFTMAX SPACE_TO_DEPTH SPLIT
    SPLIT_V STRIDED_SLICE TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RELU RELU6
    LEAKY_RELU REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM PAD PADV2 MIRROR_PAD REVERSE_V2
    ABS CEIL COS ELU EXP FLOOR GELU LOG LOGICAL_NOT LOGISTIC NEG ROUND RSQRT SIGN SIN SQRT SQUARE TANH
    ATAN2 DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LOGICAL_AND LOGICAL_OR LESS LESS_EQUAL MAXIMUM MINIMUM
    NOT_EQUAL POW RIGHT_SHIFT STABLEHLO_REMAINDER STABLEHLO_SHIFT_LEFT SQUARED_DIFFERENCE SUB
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CBRT STABLEHLO_CLAMP
    """.split()
)
SLICES = ('SLICE', 'STRIDED_SLICE')  # of maps with three or four axes
PADS = ('PAD', 'PADV2', 'MIRROR_PAD')  # likewise


def left_by_gpu(operators: Iterable[tuple[str, Sequence[int]]]) -> dict[str, int]:
    """The operators that the delegate would leave to the CPU, by name and count.

    Args:
        operators: names, and the shapes of what each takes first.
    """
    return dict(
        Counter(
            name
            for name, shape in operators
            if name not in TAKEN or (name in (*SLICES, *PADS) and len(shape) not in (3, 4))
        )
    )
