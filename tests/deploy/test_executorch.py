from .contract import BackendContract


class TestExecuTorch(BackendContract):
    runtime = 'executorch'
    runtime_module = 'executorch.runtime'
    slow_int8 = True
    needs_torch = True
    refused = 'fp16'

    def declared(self, path):
        from executorch.runtime import Runtime

        meta = Runtime.get().load_program(path).load_method('forward').metadata
        ports = meta.input_tensor_meta(0), meta.output_tensor_meta(0)
        types = {6: 'float32'}  # of executorch.exir.schema.ScalarType
        return [(None, types[int(port.dtype())], tuple(port.sizes())) for port in ports]
