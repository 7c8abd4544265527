"""What a worker adds to the runtime: runs over a real link, without gateway or gRPC, against ``session.run`` alone.

    python -m benchmarks.runpath [--rounds 5] [--calls 1000] [--against DIR] [--table] [-o json]

A worker process serves frames that are packed beforehand, one at a time (depth 1) or sixteen at a time; this process
sends them and takes the replies. Per case: microseconds from frame to reply (p50, p99), CPU time of the worker per run
(all its threads, from the scheduler's own counters), and both as multiples of ``session.run`` on the same tensor in
this process. Rounds are interleaved: alone, worker, alone, worker; the figures are medians over the rounds.
``--against DIR`` measures the worker of another checkout in the same rounds. ``--table`` measures settings of
ONNX Runtime instead (threads, spinning, memory pattern, arena).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import model_of, scaled, scratch, value
from edgeway import frames
from edgeway.frames import Infer, TensorPlace
from edgeway.tensors import BY_NAME
from edgeway.v1 import worker_pb2
from gateway.dispatch.memory import Slot, SlotPool
from workers import process

ROOT = Path(__file__).resolve().parents[1]
FAR = 600.0
MODEL = 1
CPU_BOUND_US = 60.0
"""Worker CPU per run of 64 bytes, one at a time."""


@dataclass(frozen=True)
class Case:
    """A model, the shape of its one FP32 input, and how many runs are under way at a time."""

    name: str
    model: onnx.ModelProto
    shape: tuple[int, ...]
    depth: int


class Worker:
    """A worker process and our end of its link."""

    def __init__(self, folder: Path, case: Case, root: Path = ROOT, **settings: Any) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(30)
        self.socket = ours
        raw = {"instances": 2, "threads": 1, "parentPid": os.getpid(), **settings}
        command = [sys.executable, "-m", "workers", "--backend=cpu", f"--link-fd={theirs.fileno()}"]
        self.process = subprocess.Popen(
            [*command, f"--settings={json.dumps(raw)}"],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": f"{root}:{root / 'protos'}"},
            cwd=root,
        )
        theirs.close()
        self._buffer = bytearray(frames.MAX_FRAME)
        self._pool = SlotPool(
            lambda slot, fd: socket.send_fds(ours, [frames.pack_slot(slot.number, slot.size)], [fd]), lambda slot: None
        )
        content = case.model.SerializeToString()
        path = folder / f"{case.name}.onnx"
        path.write_bytes(content)
        load = worker_pb2.Load(
            model=MODEL, name="m", path=str(path), sha256=hashlib.sha256(content).hexdigest(), warmup_runs=3
        )
        ours.send(frames.pack_control(worker_pb2.ToWorker(load=load).SerializeToString()))
        while True:
            frame = ours.recv(frames.MAX_FRAME)
            message = worker_pb2.ToGateway.FromString(frames.unpack_control(frame))
            if message.WhichOneof("message") == "loaded":
                break
        self.slots = [self._slot(case) for _ in range(case.depth)]
        self._numbers = 0

    def _slot(self, case: Case) -> tuple[Slot, list[TensorPlace], int]:
        data = np.ones(case.shape, np.float32).tobytes()
        offset = frames.aligned(len(data))
        slot = self._pool.take(8 * offset)  # an output may have more channels
        slot.view[: len(data)] = data
        return slot, [TensorPlace(0, BY_NAME["FP32"].code, case.shape, 0, len(data))], offset

    def send(self, position: int) -> int:
        """Ask for a run on the slot of this position; its number."""
        slot, places, offset = self.slots[position]
        self._numbers += 1
        slot.clear_mark()
        until = time.monotonic() + FAR
        self.socket.send(frames.pack_infer(Infer(self._numbers, MODEL, slot.number, offset, until, 5, places, [])))
        return self._numbers

    def reply(self) -> frames.Reply:
        """The next answer. Raises RuntimeError: the run failed."""
        while True:
            count = self.socket.recv_into(self._buffer)
            if self._buffer[0] == frames.REPLY:
                answer = frames.unpack_reply(bytes(self._buffer[:count]))
                if answer.status != frames.OK:
                    raise RuntimeError(answer.message)
                return answer

    def cpu_seconds(self) -> float:
        """CPU time of all threads so far; the scheduler counts nanoseconds."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


@contextlib.contextmanager
def worker(folder: Path, case: Case, root: Path = ROOT, **settings: Any) -> Iterator[Worker]:
    made = Worker(folder, case, root, **settings)
    try:
        yield made
    finally:
        made.end()


def measure(made: Worker, calls: int) -> tuple[float, ...]:
    """(p50, p99, worker CPU, wall per run, p50 of the run itself by the worker's clock) in microseconds."""
    sent: dict[int, float] = {}
    slot_of: dict[int, int] = {}
    took: list[float] = []
    ran: list[float] = []
    for position in range(len(made.slots)):  # once untimed: first touches
        made.send(position)
    for _ in made.slots:
        made.reply()
    cpu, began = made.cpu_seconds(), time.perf_counter()
    for position in range(len(made.slots)):
        at = time.perf_counter()
        number = made.send(position)
        sent[number], slot_of[number] = at, position
    for left in range(calls - 1, -1, -1):
        answer = made.reply()
        now, number = time.perf_counter(), answer.request_id
        ran.append(answer.finished - answer.started)
        took.append(now - sent.pop(number))
        position = slot_of.pop(number)
        if left >= len(made.slots):
            number = made.send(position)
            sent[number], slot_of[number] = now, position
    wall = time.perf_counter() - began
    cpu = made.cpu_seconds() - cpu
    took.sort()
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return tuple(1e6 * figure for figure in (p50, p99, cpu / calls, wall / calls, statistics.median(ran)))


def session_of(model: onnx.ModelProto, **given: Any) -> ort.InferenceSession:
    """As the cpu backend makes it; ``given``: other settings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = given.get("threads", 1)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if given.get("spinning") else "0")
    options.enable_cpu_mem_arena = given.get("arena", False)
    options.enable_mem_pattern = given.get("pattern", True)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def alone(run: Callable[[], object], calls: int) -> tuple[float, float]:
    """(p50, CPU per run) in microseconds of ``session.run`` in this process."""
    for _ in range(5):
        run()
    took = []
    cpu = time.process_time()
    for _ in range(calls):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6, (time.process_time() - cpu) / calls * 1e6


def cases() -> list[Case]:
    small, frame = scaled(2.0), scaled(2.0)
    return [
        Case("64B", small, (16,), 1),
        Case("64B-deep", small, (16,), 16),
        Case("0.9MB", frame, (640 * 480 * 3 // 4,), 1),
        Case("cnn", convolutions(), (1, 3, 64, 64), 1),
    ]


def convolutions(layers: int = 4, channels: int = 16) -> onnx.ModelProto:
    """A small network of 3 x 3 convolutions: a run of about half a millisecond."""
    generator = np.random.default_rng(1)
    nodes, weights, name, before = [], [], "x", 3
    for layer in range(layers):
        kernel = generator.standard_normal((channels, before, 3, 3)).astype(np.float32) / 8
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        name, before = (f"r{layer}" if layer < layers - 1 else "y"), channels
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [name]))
    inputs = [value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])]
    return model_of(nodes, inputs, [value("y", TensorProto.FLOAT, ["n", channels, "h", "w"])], weights)


def compare(folder: Path, case: Case, rounds: int, calls: int, against: Path | None) -> dict[str, Any]:
    """The figures of one case: medians over the rounds."""
    session = session_of(case.model)
    feed = {"x": np.ones(case.shape, np.float32)}
    rows: dict[str, list[tuple[float, ...]]] = {"alone": [], "worker": [], "against": []}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(worker(folder, case))
        other = stack.enter_context(worker(folder, case, against)) if against else None
        for _ in range(rounds):
            rows["alone"].append(alone(lambda: session.run(None, feed), calls))
            rows["worker"].append(measure(ours, calls))
            if other is not None:
                rows["against"].append(measure(other, calls))
    figures: dict[str, Any] = {
        name: [round(statistics.median(column), 1) for column in zip(*values, strict=True)]
        for name, values in rows.items()
        if values
    }
    figures["cpuRatio"] = round(figures["worker"][2] / max(0.1, figures["alone"][1]), 2)
    return figures


SETTINGS: list[dict[str, Any]] = [
    {},
    {"pattern": False},
    {"arena": True},
    {"arena": True, "pattern": False},
    {"threads": 2},
    {"threads": 2, "spinning": True},
]


def table(rounds: int, calls: int) -> list[dict[str, Any]]:
    """Settings of ONNX Runtime, each in processes of its own (threads of another session may spin), interleaved: p50
    and CPU per run of a small network, and memory that is kept after one batch of 64; medians over the rounds.
    """
    results: list[list[list[float]]] = [[] for _ in SETTINGS]
    for _ in range(rounds):
        for taken, given in zip(results, SETTINGS, strict=True):
            code = f"import json; from benchmarks import runpath as r; print(json.dumps(r.probe({calls}, **{given!r})))"
            taken.append(
                json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
            )
    rows = []
    for taken, given in zip(results, SETTINGS, strict=True):
        p50, cpu, kept = (round(statistics.median(column)) for column in zip(*taken, strict=True))
        rows.append({"settings": given or "as the cpu backend", "p50Us": p50, "cpuUs": cpu, "keptMB": kept})
    return rows


def probe(calls: int, **given: Any) -> list[float]:
    """[p50 in us, CPU in us, MB kept] of one setting, with the worker's allocator."""
    process.calm(0, ())
    session = session_of(convolutions(), **given)
    page = resource.getpagesize()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    feed = {"x": np.ones((1, 3, 64, 64), np.float32)}
    p50, cpu = alone(lambda: session.run(None, feed), calls)
    before = resident()
    session.run(None, {"x": np.ones((64, 3, 64, 64), np.float32)})
    return [p50, cpu, (resident() - before) >> 20]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--only", help="name of one case")
    parser.add_argument("--against", type=Path, help="another checkout, whose worker is measured in the same rounds")
    parser.add_argument("--table", action="store_true", help="settings of ONNX Runtime instead")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    if options.table:
        rows = table(options.rounds, options.calls)
        for row in rows:
            print(json.dumps(row))
        return
    figures: dict[str, Any] = {}
    with scratch() as folder:
        for case in cases():
            if options.only in (None, case.name):
                calls = options.calls if case.shape == (16,) else max(100, options.calls // 5)
                figures[case.name] = compare(folder, case, options.rounds, calls, options.against)
                if options.output == "text":
                    show(case.name, figures[case.name])
    if options.output == "json":
        print(json.dumps(figures))
        return
    small = figures.get("64B")
    if small is not None and small["worker"][2] > CPU_BOUND_US:
        print(f"SHORT  {small['worker'][2]} us of worker CPU per run of 64 bytes (at most {CPU_BOUND_US:g})")
        raise SystemExit(1)


def show(name: str, row: dict[str, Any]) -> None:
    print(f"{name}: session.run alone p50 {row['alone'][0]} us, CPU {row['alone'][1]} us")
    for who in ("worker", "against"):
        if who in row:
            p50, p99, cpu, wall, run = row[who]
            print(f"  {who:8} p50 {p50} us (run {run}), p99 {p99} us, CPU {cpu} us, {wall} us per run", flush=True)


if __name__ == "__main__":
    main()
