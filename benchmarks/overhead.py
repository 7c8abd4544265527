"""What the gateway adds: ModelInfer through it against bare Python gRPC, in one run, interleaved.

    python -m benchmarks.overhead [--rounds 5] [--calls 400] [-o json]

- 64 B: a tensor of 64 bytes through gateway and worker, against a Python gRPC server that echoes the same message
  (through the generated classes, as any service does; the control line has one that does not even look at the bytes).
- 0.9 MB: a camera frame to the digits model, against the same model in one Python gRPC server process.

One client process, one call at a time, the same pre-built message for both. Each round measures both, in alternating
order; the figure is the median over the rounds of the ratio of the rounds' p50s. Servers (the gateway with its worker,
or the bare one) are on CPU 0, the client on CPU 1: left free, the kernel's choice of CPUs moves either side by a
quarter from round to round. ``--free`` measures that, where the 64 B figure is often above its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from benchmarks.harness import Gateway, descendants, first_line, identity, put, scratch
from edgeway.v1 import open_inference_pb2 as oip

METHOD = oip.SERVICES["inference.GRPCInferenceService"]["ModelInfer"].path
SMALL_BOUND, FRAME_BOUND = 1.8, 1.3
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"


def message(model: str, name: str, array: np.ndarray, datatype: str) -> bytes:
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def serve(address: str, model: str) -> None:
    """The bare server: echo, or the model in this process. Prints a line when it listens."""
    asyncio.run(_serve(address, model))


async def _serve(address: str, model: str) -> None:
    server = grpc.aio.server(options=OPTIONS)
    if model == "echo":
        kind = oip.ModelInferRequest
        handler = grpc.unary_unary_rpc_method_handler(_echo, kind.FromString, kind.SerializeToString)
    else:
        handler = grpc.unary_unary_rpc_method_handler(_echo_bytes if model == "bytes" else _direct(model))
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": handler}),))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def _echo(message: oip.ModelInferRequest, context: object) -> oip.ModelInferRequest:
    del context
    return message


async def _echo_bytes(content: bytes, context: object) -> bytes:
    del context
    return content


def _direct(model: str) -> Callable[..., object]:
    """What one would write at home: parse, run on a thread, answer."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(content: bytes) -> bytes:
        request = oip.ModelInferRequest.FromString(content)
        tensor = request.inputs[0]
        frame = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tuple(tensor.shape))
        (scores,) = session.run(["scores"], {tensor.name: frame})
        response = oip.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name="scores", datatype="FP32", shape=scores.shape)
        response.raw_output_contents.append(scores.tobytes())
        return response.SerializeToString()

    async def handle(content: bytes, context: object) -> bytes:
        del context
        return await asyncio.get_running_loop().run_in_executor(None, run, content)

    return handle


def median_call(address: str, content: bytes, calls: int) -> float:
    """Median milliseconds of a call, after a tenth as many to warm up."""
    with grpc.insecure_channel(address, OPTIONS) as channel:
        infer = channel.unary_unary(METHOD)
        took = []
        for number in range(calls + calls // 10):
            began = time.perf_counter()
            infer(content, timeout=20)
            if number >= calls // 10:
                took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


def compare(ours: str, bare: str, content: bytes, rounds: int, calls: int) -> dict[str, float]:
    gateway, direct, ratios = [], [], []
    for number in range(rounds):
        pair = [(gateway, ours), (direct, bare)]
        for results, address in pair if number % 2 else reversed(pair):
            results.append(median_call(address, content, calls))
        ratios.append(gateway[-1] / direct[-1])
    return {
        "gatewayP50Ms": round(statistics.median(gateway), 3),
        "bareP50Ms": round(statistics.median(direct), 3),
        "ratio": round(statistics.median(ratios), 3),
        "worstRound": round(max(ratios), 3),
        "bestRound": round(min(ratios), 3),
    }


def pin(pid: int, cpus: set[int]) -> None:
    """Keep a process with all its threads and children to these CPUs."""
    for each in (pid, *descendants(pid)):
        for thread in Path(f"/proc/{each}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cpus)


def measure(rounds: int, calls: int, pinned: bool) -> dict[str, dict[str, float]]:
    with scratch() as folder:
        model = DIGITS / "models" / "digits-1.0.onnx"
        put(folder / "models", "tiny", identity(shape=[16]))
        (folder / "models" / "digits" / "1").mkdir(parents=True)
        (folder / "models" / "digits" / "1" / "model.onnx").write_bytes(model.read_bytes())
        own = [sys.executable, "-m", "benchmarks.overhead", "--serve"]
        servers = {}
        try:
            for name, path in (("echo", "echo"), ("bytes", "bytes"), ("direct", str(model))):
                address = f"unix:{folder}/{name}.sock"
                servers[name] = subprocess.Popen([*own, address, path], stdout=subprocess.PIPE, text=True)
                if not first_line(servers[name], 30):
                    raise RuntimeError(f"the {name} server did not start")
            with Gateway(folder, flags=["--model-repository", str(folder / "models")]) as gateway:
                small = message("tiny", "x", np.arange(16, dtype=np.float32), "FP32")
                frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
                large = message("digits", "frame", frame, "UINT8")
                if pinned:
                    for server in (gateway.process, *servers.values()):
                        assert server is not None
                        pin(server.pid, {0})
                    os.sched_setaffinity(0, {1})
                return {
                    "64B": compare(gateway.unix, f"unix:{folder}/echo.sock", small, rounds, calls),
                    "64B-bytes": compare(gateway.unix, f"unix:{folder}/bytes.sock", small, rounds, calls),
                    "frame": compare(gateway.unix, f"unix:{folder}/direct.sock", large, rounds, max(50, calls // 4)),
                }
        finally:
            for server in servers.values():
                server.terminate()
                server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400, help="per round")
    parser.add_argument("--free", action="store_true", help="leave the choice of CPUs to the kernel")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.add_argument("--serve", nargs=2, metavar=("ADDRESS", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    allowed = os.sched_getaffinity(0)
    figures = measure(options.rounds, options.calls, not options.free and {0, 1} <= allowed)
    if options.output == "text":
        control = figures["64B-bytes"]
        print(f"control 64B: an echo that does not parse takes {control['bareP50Ms']} ms, ratio {control['ratio']}")
    short = False
    for name, bound in (("64B", SMALL_BOUND), ("frame", FRAME_BOUND)):
        figure = figures[name] | {"bound": bound}
        figures[name] = figure
        passed = figure["ratio"] <= bound
        short |= not passed
        if options.output == "text":
            print(
                f"{'ok    ' if passed else 'SHORT '} {name}: gateway {figure['gatewayP50Ms']} ms, bare gRPC"
                f" {figure['bareP50Ms']} ms, ratio {figure['ratio']} (at most {bound};"
                f" rounds {figure['bestRound']} to {figure['worstRound']})"
            )
    if options.output == "json":
        print(json.dumps(figures, indent=2))
    raise SystemExit(1 if short else 0)


if __name__ == "__main__":
    main()
