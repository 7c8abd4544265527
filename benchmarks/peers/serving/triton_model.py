"""What Triton's Python backend loads as ``model.py``: ONNX Runtime on one thread."""

import os

import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")  # noqa: PTH118
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        responses = []
        for request in requests:
            tensor = pb.get_input_tensor_by_name(request, "x").as_numpy()
            (answer,) = self.session.run(["y"], {"x": tensor})
            responses.append(pb.InferenceResponse([pb.Tensor("y", answer)]))
        return responses
