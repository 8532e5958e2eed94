from .contract import BackendContract


class TestExecuTorch(BackendContract):
    runtime = 'executorch'
    runtime_module = 'executorch.runtime'
    needs_torch = True
    refused = 'fp16'
