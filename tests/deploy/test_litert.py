from .contract import BackendContract


class TestLiteRT(BackendContract):
    runtime = 'litert'
    runtime_module = 'ai_edge_litert.interpreter'
    slow_int8 = True
    refused = 'fp16'
