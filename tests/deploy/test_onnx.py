from .contract import BackendContract


class TestOnnx(BackendContract):
    runtime = 'onnx'
    runtime_module = 'onnxruntime'
