"""MLServer's custom runtime: ONNX Runtime on one thread, in the server's own process."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxRuntime(MLModel):
    async def load(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        tensor = NumpyCodec.decode_input(payload.inputs[0])
        (answer,) = self.session.run(["y"], {"x": tensor})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", answer)])
