"""Tensors in shared memory: what it saves, that the gateway does not touch them, and what hostile clients can't do.

Each figure is of one run, interleaved, one call at a time: frames of 0.9 MB (480x640x3 UINT8) and 4.9 MB (3x640x640
FP32) to a small convolutional network, in the message (control), in a region that the gateway made, and in shared
memory to the same model in one bare Python gRPC server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Gateway, Verdict, first_line, identity, model_of, put, scratch, value, wait_for
from benchmarks.overhead import METHOD, OPTIONS, median_call, pin
from edgeway import parameters as names
from edgeway.client import Client, Region
from edgeway.v1 import open_inference_pb2 as oip

SHM = Path("/dev/shm")
SAVED = {"4.9 MB": 0.6, "0.9 MB": 0.95}
"""p50 with shared memory over p50 in the message, at most."""
DIRECT = 1.15
"""p50 through the gateway over that of the bare server, both with shared memory, at most."""
CPU = 1.25
"""CPU time of the gateway per request at 4.9 MB over that at 0.9 MB, at most."""
SIZE = 1.4
"""Time beside the model at 4.9 MB over that at 64 B, at most."""


@dataclass(frozen=True)
class Frame:
    """One size: model, its input, and a name for people."""

    title: str
    model: str
    datatype: str
    shape: tuple[int, ...]
    dtype: Any


FRAMES = (
    Frame("0.9 MB", "small", "UINT8", (480, 640, 3), np.uint8),
    Frame("4.9 MB", "large", "FP32", (1, 3, 640, 640), np.float32),
)


def network(frame: Frame) -> onnx.ModelProto:
    """y [16]: a convolution, and its means; about 4 ms, as small networks of cameras take."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((16, 3, 7, 7)).astype(np.float32), "w")]
    nodes = []
    source = "x"
    if frame.datatype == "UINT8":
        weights.append(numpy_helper.from_array(np.array([0], np.int64), "front"))
        nodes = [
            helper.make_node("Transpose", ["x"], ["planes"], perm=[2, 0, 1]),
            helper.make_node("Cast", ["planes"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["real", "front"], ["batch"]),
        ]
        source = "batch"
    nodes += [
        helper.make_node("Conv", [source, "w"], ["c"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    kind = TensorProto.UINT8 if frame.datatype == "UINT8" else TensorProto.FLOAT
    return model_of(nodes, [value("x", kind, frame.shape)], [value("y", TensorProto.FLOAT, [1, 16])], weights)


def request(frame: Frame, data: np.ndarray | None, region: str = "", offset: int = 0) -> bytes:
    """A ModelInfer; ``data`` in the message, or else in a region."""
    message = oip.ModelInferRequest(model_name=frame.model)
    tensor = message.inputs.add(name="x", datatype=frame.datatype, shape=frame.shape)
    if data is not None:
        message.raw_input_contents.append(data.tobytes())
    else:
        tensor.parameters[names.REGION].string_param = region
        tensor.parameters[names.REGION_BYTES].int64_param = int(np.prod(frame.shape)) * np.dtype(frame.dtype).itemsize
        tensor.parameters[names.REGION_OFFSET].int64_param = offset
    return message.SerializeToString()


async def serve(address: str, folder: str) -> None:
    """The bare server: it maps the file of /dev/shm that a request names, and runs the model in this process."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions: dict[str, Any] = {}
    files: dict[str, np.ndarray] = {}

    def run(content: bytes) -> bytes:
        asked = oip.ModelInferRequest.FromString(content)
        tensor, model = asked.inputs[0], asked.model_name
        if model not in sessions:
            path = f"{folder}/{model}/1/model.onnx"
            sessions[model] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        key = tensor.parameters[names.REGION].string_param
        if key not in files:
            files[key] = np.memmap(SHM / key, np.uint8, "r+")
        start = tensor.parameters[names.REGION_OFFSET].int64_param
        size = tensor.parameters[names.REGION_BYTES].int64_param
        dtype = np.uint8 if tensor.datatype == "UINT8" else np.float32
        frame = np.frombuffer(files[key], np.uint8)[start : start + size].view(dtype).reshape(tuple(tensor.shape))
        (y,) = sessions[model].run(["y"], {"x": frame})
        response = oip.ModelInferResponse(model_name=model)
        response.outputs.add(name="y", datatype="FP32", shape=y.shape)
        response.raw_output_contents.append(y.tobytes())
        return response.SerializeToString()

    async def handle(content: bytes, context: object) -> bytes:
        del context
        return await asyncio.get_running_loop().run_in_executor(None, run, content)

    server = grpc.aio.server(options=OPTIONS)
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(handle)}
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


@contextmanager
def bare(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The bare server as a process: its address."""
    address = f"unix:{folder}/bare.sock"
    command = [sys.executable, "-m", "benchmarks.show.shared_memory", "--serve", address, str(folder / "models")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if not first_line(process, 30):
            raise RuntimeError("the bare server did not start")
        yield address, process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def shared_file(data: np.ndarray | None, size: int = 0) -> Iterator[str]:
    """A file in /dev/shm as a client would make it; its name."""
    path = SHM / f"edgeway-show-{uuid.uuid4().hex}"
    path.touch(0o600)
    try:
        path.write_bytes(bytes(size) if data is None else data.tobytes())
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, by the scheduler's own accounting in nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:  # a thread has ended
            continue
    return total / 1e9


def gateway_cpu(gateway: Gateway, content: bytes, calls: int) -> float:
    """Microseconds of the gateway process per request."""
    assert gateway.process is not None
    before = cpu_seconds(gateway.process.pid)
    median_call(gateway.unix, content, calls)
    return (cpu_seconds(gateway.process.pid) - before) * 1e6 / (calls + calls // 10)


def beside_the_model(client: Client, model: str, array: np.ndarray, calls: int) -> float:
    """Median milliseconds that a call takes beside the run itself."""
    took = []
    for number in range(calls + calls // 10):
        result = client.infer(model, {"x": array}, budget_ms=5000)
        if number >= calls // 10:
            took.append(result.wall_ms - result.compute_ms)
    return statistics.median(took)


def figures(gateway: Gateway, address: str, rounds: int, calls: int, verdict: Verdict) -> None:
    rng = np.random.default_rng(1)
    cpu: dict[str, list[float]] = {frame.title: [] for frame in FRAMES}
    with Client(gateway.unix) as client, client.region(8 << 20) as region:
        arrays = {}
        for frame in FRAMES:
            arrays[frame.title] = array = region.array(frame.shape, frame.dtype)
            array[:] = rng.integers(0, 256, frame.shape)
            compare(gateway, address, frame, array, region, rounds, calls, verdict)
        for _ in range(rounds):
            for frame in FRAMES:
                offset = region.offset_of(arrays[frame.title]) or 0
                content = request(frame, None, region.name, offset)
                cpu[frame.title].append(gateway_cpu(gateway, content, calls))
        small, large = (statistics.median(cpu[frame.title]) for frame in FRAMES)
        ratio = large / small
        verdict.check(
            ratio <= CPU,
            f"gateway CPU per request {large:.0f} us at 4.9 MB, {small:.0f} us at 0.9 MB: {ratio:.2f} (at most {CPU})",
        )
        tiny = region.array(16)
        pairs = [
            (beside_the_model(client, "large", arrays["4.9 MB"], calls), beside_the_model(client, "tiny", tiny, calls))
            for _ in range(rounds)
        ]
        ratio = statistics.median(large / small for large, small in pairs)
        large, small = (statistics.median(each) for each in zip(*pairs, strict=True))
        verdict.check(
            ratio <= SIZE,
            f"beside the model {large:.2f} ms at 4.9 MB, {small:.2f} ms at 64 B: {ratio:.2f} (at most {SIZE})",
        )


def compare(
    gateway: Gateway,
    address: str,
    frame: Frame,
    array: np.ndarray,
    region: Region,
    rounds: int,
    calls: int,
    verdict: Verdict,
) -> None:
    """p50 of one size in the three ways."""
    with shared_file(array) as key:
        ways = {
            "message": (gateway.unix, request(frame, array)),
            "region": (gateway.unix, request(frame, None, region.name, region.offset_of(array) or 0)),
            "bare": (address, request(frame, None, key)),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds):
            for way in sorted(ways, reverse=bool(number % 2)):
                took[way].append(median_call(*ways[way], calls))
    message, ours, direct = (statistics.median(took[way]) for way in ("message", "region", "bare"))
    saved = statistics.median(a / b for a, b in zip(took["region"], took["message"], strict=True))
    added = statistics.median(a / b for a, b in zip(took["region"], took["bare"], strict=True))
    verdict.control(f"{frame.title}: p50 {message:.2f} ms in the message")
    bound = SAVED[frame.title]
    verdict.check(saved <= bound, f"{frame.title}: p50 {ours:.2f} ms in a region: {saved:.2f} (at most {bound})")
    verdict.check(
        added <= DIRECT,
        f"{frame.title}: p50 {direct:.2f} ms in bare gRPC's shared memory; gateway over bare {added:.2f}"
        f" (at most {DIRECT})",
    )


def storm(gateway: Gateway, count: int, verdict: Verdict) -> None:
    """Requests whose region shrinks and grows all the while."""
    assert gateway.process is not None
    before = {gateway.process.pid, int(gateway.worker()["pid"])}
    size = 4 * 16
    frame = Frame("storm", "open", "FP32", (1 << 18,), np.float32)
    with shared_file(None, 2 << 20) as key, grpc.insecure_channel(gateway.unix) as channel:
        register = oip.SystemSharedMemoryRegisterRequest(name="storm", key=key, byte_size=2 << 20)
        ask(channel, "SystemSharedMemoryRegister", register.SerializeToString())
        stop = threading.Event()

        def shrink() -> None:
            while not stop.is_set():
                for length in (0, size, 1 << 19, 2 << 20):
                    os.truncate(SHM / key, length)

        hostile = threading.Thread(target=shrink)
        hostile.start()
        try:
            seen = Counter(infer(channel, into_region(frame, number % 2 == 1)) for number in range(count))
        finally:
            stop.set()
            hostile.join()
        os.truncate(SHM / key, 2 << 20)
        after = infer(channel, into_region(frame, True))
    verdict.check(
        set(seen) <= {"OK", "INVALID_ARGUMENT"} and bool(seen["INVALID_ARGUMENT"]) and after == "OK",
        f"a region that shrinks under {count} requests: {dict(seen)} (OK or INVALID_ARGUMENT, and {after} afterwards)",
    )
    now, restarts = {gateway.process.pid, int(gateway.worker()["pid"])}, gateway.worker()["restarts"]
    alive = gateway.process.poll() is None
    verdict.check(
        alive and now == before and not restarts,
        f"gateway and worker: processes {sorted(before)} before, {sorted(now)} after (the same, {restarts} restarts)",
    )


def into_region(frame: Frame, output: bool) -> bytes:
    message = oip.ModelInferRequest.FromString(request(frame, None, "storm"))
    if output:
        wanted = message.outputs.add(name="y").parameters
        wanted[names.REGION].string_param = "storm"
        wanted[names.REGION_BYTES].int64_param = wanted[names.REGION_OFFSET].int64_param = 1 << 20
    return message.SerializeToString()


def ask(channel: grpc.Channel, rpc: str, content: bytes) -> bytes:
    answer: bytes = channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}")(content, timeout=10)
    return answer


def infer(channel: grpc.Channel, content: bytes) -> str:
    """The status."""
    try:
        channel.unary_unary(METHOD)(content, timeout=10)
    except grpc.RpcError as refused:
        return str(refused.code().name)
    return "OK"


def leases(gateway: Gateway, verdict: Verdict) -> None:
    """A client that is killed: its regions end in all processes."""
    program = (
        "import sys; from edgeway.client import Client; client = Client(sys.argv[1])\n"
        "regions = [client.region(1 << 20) for _ in range(4)]\n"
        "[client.infer('open', {'x': each.array(100_000)}) for each in regions]\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, gateway.unix]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        first_line(client, 30)
        held = open_regions(gateway)
        client.send_signal(signal.SIGKILL)
    with suppress(TimeoutError):
        wait_for(lambda: not open_regions(gateway), 5, "the end of the regions")
    left = open_regions(gateway)
    verdict.check(held >= 4 and not left, f"a killed client had its regions open in {held} places, then in {left} (0)")


def open_regions(gateway: Gateway) -> int:
    """Descriptors and maps of regions that the gateway has made, in it and its workers."""
    assert gateway.process is not None
    found = 0
    for pid in (gateway.process.pid, *gateway.children()):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found += "edgeway-region" in str(fd.readlink())
            except FileNotFoundError:
                continue
        found += Path(f"/proc/{pid}/maps").read_text().count("edgeway-region")
    return found


def show(rounds: int, calls: int, count: int, pinned: bool, parts: Sequence[str], verdict: Verdict) -> None:
    with scratch() as folder:
        for frame in FRAMES:
            put(folder / "models", frame.model, network(frame))
        put(folder / "models", "tiny", identity(shape=[16]))
        put(folder / "models", "open", identity())
        with Gateway(folder, flags=["--model-repository", str(folder / "models")]) as gateway:
            if "safety" in parts:
                storm(gateway, count, verdict)
                leases(gateway, verdict)
            if "figures" in parts:
                with bare(folder) as (address, process):
                    if pinned:  # as in benchmarks.overhead: servers here, the client there
                        assert gateway.process is not None
                        pin(gateway.process.pid, {0})
                        pin(process.pid, {0})
                        os.sched_setaffinity(0, {1})
                    figures(gateway, address, rounds, calls, verdict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=150, help="per round")
    parser.add_argument("--count", type=int, default=1000, help="requests of the hostile client")
    parser.add_argument("--only", choices=["safety", "figures"], action="append", help="this part; default: both")
    parser.add_argument("--free", action="store_true", help="leave the choice of CPUs to the kernel")
    parser.add_argument("--serve", nargs=2, metavar=("ADDRESS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(*options.serve))
        return
    verdict = Verdict("tensors in shared memory")
    pinned = not options.free and {0, 1} <= os.sched_getaffinity(0)
    show(options.rounds, options.calls, options.count, pinned, options.only or ("safety", "figures"), verdict)
    verdict.end()


if __name__ == "__main__":
    main()
