"""A gateway as a process of its own, tiny ONNX models, and verdicts; for benchmarks, shows and system tests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

START_LIMIT = 30.0
NOT_HERE = 77
"""Exit code of a show that this machine can't run; what test runners take for skipped."""
OPSET = [helper.make_opsetid("", 17)]


@dataclass
class Gateway:
    """``edgeway serve`` in ``folder``. ``config``: device config as plain data."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    tcp: str = "127.0.0.1:0"
    environment: dict[str, str] = field(default_factory=dict)
    under: Callable[[list[str]], list[str]] = list
    """Makes the command one that starts it in some special way."""
    descriptors: Sequence[int] = ()
    """Passed on to it."""
    process: subprocess.Popen[str] | None = None
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def unix(self) -> str:
        return f"unix:{self.folder}/infer.sock"

    @property
    def address(self) -> str:
        """Of the TCP listener, with the port really bound."""
        return str(self.ready["listen"][1])

    @property
    def control(self) -> str:
        return f"unix:{self.folder}/control.sock"

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def command(self) -> list[str]:
        (self.folder / "device.yaml").write_text(yaml.safe_dump(self.config))
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.folder / "device.yaml")]
        command += ["--listen", self.unix, "--listen", self.tcp, "--control", self.control]
        command += ["--state-dir", str(self.folder / "state")]
        if "--metrics" not in self.flags:
            command += ["--metrics", "off"]
        return [*command, *self.flags]

    def start(self) -> Gateway:
        """Start it and wait until it is ready."""
        with (self.folder / "gateway.log").open("a") as log:
            self.process = subprocess.Popen(
                self.under(self.command()),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
                pass_fds=self.descriptors,
            )
        line = first_line(self.process, START_LIMIT)
        if not line:
            self.process.kill()
            raise RuntimeError(f"the gateway did not start:\n{self.log}")
        self.ready = json.loads(line)
        return self

    def stop(self, limit: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def __enter__(self) -> Gateway:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *arguments: str, limit: float = 60.0, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """A verb of the command line, aimed at this gateway."""
        environment = {**os.environ, "EDGEWAY_CONTROL": self.control}
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, input=text)

    def get(self, what: str, *arguments: str) -> Any:
        """``edgeway get WHAT [NAME] -o json``, without a process of its own: that takes as long as many runs."""
        from benchmarks.admin import Admin  # here: it waits by this file's means
        from gateway.cli.get import rows

        with Admin(self.control) as admin:
            return rows(admin, what, *arguments)

    def deploy(self, path: str, limit: float = 60.0) -> None:
        """``edgeway apply -f PATH --wait``, as ``get`` without a process of its own.

        Raises:
            RuntimeError: it does not come to serve.
            TimeoutError: nor in this time.
        """
        from benchmarks.admin import Admin

        with Admin(self.control) as admin:
            admin.deploy(path, limit)

    def worker(self, name: str = "cpu") -> dict[str, Any]:
        """Its line in ``get accelerators``."""
        return next(worker for worker in self.get("accelerators") if worker["worker"] == name)

    def children(self) -> list[int]:
        """Process ids of all that descend from the gateway."""
        assert self.process is not None
        return descendants(self.process.pid)


def first_line(process: subprocess.Popen[str], limit: float) -> str:
    """What the process prints first; empty when it ends or the limit passes before."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(limit) else ""


def descendants(pid: int) -> list[int]:
    """Process ids below ``pid``, from /proc."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], limit: float, what: str) -> Any:
    """What the condition gives once it is true; looked at every 10 ms.

    Raises:
        TimeoutError: it stayed false.
    """
    end = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {limit} s")
        time.sleep(0.01)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a short name, as socket paths want it."""
    with tempfile.TemporaryDirectory(prefix="edgeway-") as folder:
        yield Path(folder)


def put(repository: Path, name: str, model: onnx.ModelProto, version: str = "1") -> Path:
    """Write the model where a repository has it, at once and whole."""
    folder = repository / name / version
    folder.mkdir(parents=True)
    whole = folder / ".model.onnx.tmp"
    whole.write_bytes(model.SerializeToString())
    return whole.rename(folder / "model.onnx")


def manifest(
    folder: Path,
    name: str,
    version: str,
    content: bytes,
    more: str = "",
    accelerator: str = "cpu",
    checksum: str | None = None,
) -> str:
    """Path of a ModelDeployment in the folder, with its model file beside it. ``more``: further lines of the spec."""
    (folder / f"{name}-{version}.onnx").write_bytes(content)
    digest = checksum or hashlib.sha256(content).hexdigest()
    path = folder / f"{name}-{version}.yaml"
    path.write_text(f"""
apiVersion: edge.ai/v1
kind: ModelDeployment
metadata: {{name: {name}}}
spec:
  model: {{uri: "file:{name}-{version}.onnx", version: "{version}", checksum: "sha256:{digest}"}}
  hardware: {{accelerator: {accelerator}}}
{textwrap.indent(textwrap.dedent(more), "  ")}
""")
    return str(path)


def value(name: str, datatype: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, datatype, shape)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def identity(datatype: int = TensorProto.FLOAT, shape: Sequence[int | str] = ("n",)) -> onnx.ModelProto:
    """y = x."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return model_of(nodes, [value("x", datatype, shape)], [value("y", datatype, shape)])


def scaled(factor: float) -> onnx.ModelProto:
    """y = factor * x, of any size."""
    weight = numpy_helper.from_array(np.float32(factor), "factor")
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    return model_of(nodes, [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])], [weight])


def raising() -> onnx.ModelProto:
    """y = 0 for each x = 0; any other x makes the runtime raise. Warming up on zeros is fine."""
    only = numpy_helper.from_array(np.zeros(1, np.float32), "only")
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["only", "index"], ["y"]),
    ]
    return model_of(nodes, [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])], [only])


def slow(loops: int | None) -> onnx.ModelProto:
    """y = x after ``loops`` multiplications of a 256x256 matrix; input ``x`` of one element.

    None: as many as a further input says, ``trips`` of INT64 [].
    """
    weight = numpy_helper.from_array(np.eye(256, dtype=np.float32), "eye")
    trips = numpy_helper.from_array(np.int64(loops or 0), "trips")
    going = numpy_helper.from_array(np.bool_(True), "going")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["m", "eye"], ["m_out"]), helper.make_node("Identity", ["go"], ["go_out"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("m", TensorProto.FLOAT, [256] * 2),
        ],
        [value("go_out", TensorProto.BOOL, []), value("m_out", TensorProto.FLOAT, [256, 256])],
    )
    zero = numpy_helper.from_array(np.zeros(2, np.int64), "zero")
    one = numpy_helper.from_array(np.ones(2, np.int64), "one")
    flat = numpy_helper.from_array(np.array([1], np.int64), "flat")
    nodes = [
        helper.make_node("Mul", ["eye", "x"], ["start"]),
        helper.make_node("Loop", ["trips", "going", "start"], ["end"], body=body),
        helper.make_node("Slice", ["end", "zero", "one"], ["corner"]),
        helper.make_node("Reshape", ["corner", "flat"], ["y"]),
    ]
    weights, inputs = [weight, going, zero, one, flat], [value("x", TensorProto.FLOAT, [1])]
    if loops is None:
        inputs.append(value("trips", TensorProto.INT64, []))
    else:
        weights.append(trips)
    return model_of(nodes, inputs, [value("y", TensorProto.FLOAT, [1])], weights)


def slow_for(seconds: float) -> onnx.ModelProto:
    """A model whose run takes about that long on one core of this machine."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    loops = 200
    session = ort.InferenceSession(slow(loops).SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": np.ones(1, np.float32)}
    session.run(None, feed)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - began)
    return slow(max(1, round(loops * seconds / sorted(took)[1])))


class Verdict:
    """Prints figures against bounds, and ends with 1 when one is short."""

    def __init__(self, title: str) -> None:
        self.failed = 0
        print(title, flush=True)

    def check(self, passed: bool, text: str) -> None:
        """One figure with its bound."""
        self.failed += not passed
        print(f"  {'ok    ' if passed else 'SHORT '} {text}", flush=True)

    def control(self, text: str) -> None:
        """A figure to compare with, of the same run."""
        print(f"  control {text}", flush=True)

    def end(self) -> None:
        """Raises SystemExit."""
        raise SystemExit(1 if self.failed else 0)


def not_here(why: str) -> NoReturn:
    """End a show that this machine can't run."""
    print(why)
    raise SystemExit(NOT_HERE)


def poisonable() -> onnx.ModelProto:
    """y = -2147483648 / (2 x + 1) on INT32 of any size: an element of -1 kills the process that runs it.

    The quotient by -1 does not fit, and x86 raises SIGFPE then (other processors don't). No other x divides by 0 or -1,
    so warming up on zeros is safe.
    """
    weights = [numpy_helper.from_array(np.int32(number), name) for name, number in (("two", 2), ("one", 1))]
    weights.append(numpy_helper.from_array(np.int32(-(2**31)), "least"))
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["even"]),
        helper.make_node("Add", ["even", "one"], ["odd"]),
        helper.make_node("Div", ["least", "odd"], ["y"]),
    ]
    return model_of(nodes, [value("x", TensorProto.INT32, ["n"])], [value("y", TensorProto.INT32, ["n"])], weights)
