"""The same model without a gateway: what one would write at home, one Python gRPC process that runs it.

    python -m benchmarks.direct unix:/tmp/direct.sock NAME=model.onnx ...

Other benchmarks use it as their control. It prints a line with its process id when it serves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort

from edgeway.tensors import BY_NAME, datatype_of, to_bytes
from edgeway.v1 import open_inference_pb2 as oip

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SERVICE = "inference.GRPCInferenceService"
THREADS = 4


@contextlib.contextmanager
def served(address: str, **models: Path) -> Iterator[subprocess.Popen[str]]:
    """The server as a process of its own, which serves already."""
    process = launch(address, **models)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the direct server did not start")
        yield process
    finally:
        end(process)


def launch(address: str, **models: Path) -> subprocess.Popen[str]:
    """Start the server; it prints one line when it serves."""
    command = [sys.executable, "-m", "benchmarks.direct", address]
    command += [f"{name}={path}" for name, path in models.items()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


class Direct:
    """Parses, runs, answers; every model in this process, one thread a run."""

    def __init__(self, models: dict[str, str]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            name: ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for name, path in models.items()
        }

    def infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        del context
        feed = {
            tensor.name: np.frombuffer(raw, BY_NAME[tensor.datatype].numpy).reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        session = self._sessions[request.model_name]
        response = oip.ModelInferResponse(model_name=request.model_name, model_version="1")
        for output, array in zip(session.get_outputs(), session.run(None, feed), strict=True):
            response.outputs.add(name=output.name, datatype=datatype_of(array), shape=array.shape)
            response.raw_output_contents.append(bytes(to_bytes(array)))
        return response


def serve(address: str, models: dict[str, str]) -> None:
    """Until SIGTERM."""
    direct = Direct(models)
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(
        direct.infer, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler}),))
    server.add_insecure_port(address)
    server.start()
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
    server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="unix:/PATH or HOST:PORT")
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    options = parser.parse_args()
    serve(options.address, dict(model.split("=", 1) for model in options.models))


if __name__ == "__main__":
    main()
