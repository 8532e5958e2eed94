from .contract import BackendContract


class TestLiteRT(BackendContract):
    runtime = 'litert'
    runtime_module = 'ai_edge_litert.interpreter'
    refused = 'fp16'
