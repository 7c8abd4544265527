"""The least a Python gRPC server can be: echo, or the models in this process. ``bare.py FOLDER PORT echo|direct``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from benchmarks.peers.models import DATATYPES, session
from edgeway.v1 import open_inference_pb2 as oip

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]


def echo(content: bytes, context: object) -> bytes:
    """The request's first tensor, as the answer."""
    del context
    request = oip.ModelInferRequest.FromString(content)
    response = oip.ModelInferResponse(model_name=request.model_name)
    response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return bytes(response.SerializeToString())


def direct(folder: Path) -> Callable[[bytes, object], bytes]:
    """Parse, run, answer."""
    sessions = {path.stem: session(path.read_bytes()) for path in folder.glob("*.onnx")}

    def run(content: bytes, context: object) -> bytes:
        del context
        request = oip.ModelInferRequest.FromString(content)
        given = request.inputs[0]
        tensor = np.frombuffer(request.raw_input_contents[0], DATATYPES[given.datatype]).reshape(tuple(given.shape))
        (answer,) = sessions[request.model_name].run(["y"], {"x": tensor})
        response = oip.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name="y", datatype="FP32", shape=answer.shape)
        response.raw_output_contents.append(answer.tobytes())
        return bytes(response.SerializeToString())

    return run


def main() -> None:
    folder, port, what = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(1), options=OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(echo if what == "echo" else direct(Path(folder)))
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
