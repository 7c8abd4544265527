"""KServe's Python server with ONNX Runtime on one thread: ``kserve_server.py FOLDER --grpc_port N --http_port N``."""

import pathlib
import sys

import onnxruntime as ort
from kserve import InferOutput, InferResponse, Model, ModelServer


class OnnxModel(Model):
    def __init__(self, path):
        super().__init__(path.stem)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        (answer,) = self.session.run(["y"], {"x": payload.inputs[0].as_numpy()})
        output = InferOutput("y", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv.pop(1))
    server = ModelServer()
    server.start([OnnxModel(path) for path in sorted(folder.glob("*.onnx"))])
