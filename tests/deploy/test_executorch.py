from .contract import BackendContract


class TestExecuTorch(BackendContract):
    runtime = 'executorch'
    runtime_module = 'executorch.runtime'
    slow_int8 = True
    needs_torch = True
    refused = 'fp16'
