"""All that is measured against each other, started once: the gateway, its bare rivals, and ONNX Runtime in here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.bench.bare import OPTIONS
from benchmarks.bench.cases import SERVED, Case
from benchmarks.bench.client import Client
from benchmarks.bench.shared import Region, sealed
from benchmarks.harness import Gateway, first_line, scratch

START_LIMIT = 30.0
WARM_CALLS = 40
"""Of each model, before anything counts: heap and slots have then the size that they keep."""


@dataclass(frozen=True)
class Server:
    """A running system."""

    client: Client
    address: str
    pid: int


@dataclass
class Stage:
    """Systems start when they are first asked for, and all end with the stage. ``folder``: for sockets and models."""

    folder: Path
    _exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _regions: dict[str, Region] = field(default_factory=dict)
    _sessions: dict[str, Callable[[], object]] = field(default_factory=dict)
    _sealed: dict[str, str] = field(default_factory=dict)
    _known: set[tuple[str, str]] = field(default_factory=set)

    @cached_property
    def models(self) -> dict[str, Path]:
        """Model files by name, laid out as a repository."""
        paths = {}
        for case in SERVED:
            path = self.folder / "models" / case.name / "1" / "model.onnx"
            path.parent.mkdir(parents=True)
            path.write_bytes(case.make())
            paths[case.name] = path
        return paths

    @cached_property
    def gateway(self) -> Server:
        """With all that a request passes on a device: budget, ranking, histograms, and 1 % of the traces exported."""
        _, port = self._bare("collector", "127.0.0.1:0")
        config = {"telemetry": {"otlp": f"http://127.0.0.1:{port}", "sampleRatio": 0.01}}
        repository = next(iter(self.models.values())).parents[2]
        flags = ["--model-repository", str(repository), "--metrics", "127.0.0.1:0"]
        gateway = self._exits.enter_context(Gateway(self.folder, config, flags))
        assert gateway.process is not None
        return warmed(self._served(gateway.unix, gateway.process.pid))

    @cached_property
    def echo(self) -> Server:
        return self._listening("echo")

    @cached_property
    def raw(self) -> Server:
        return self._listening("raw")

    @cached_property
    def direct(self) -> Server:
        return warmed(self._listening("direct", *(f"{name}={path}" for name, path in self.models.items())))

    def in_process(self, case: Case) -> Callable[[], object]:
        """A run of the model in this process: the limit of what any server could do."""
        if case.name not in self._sessions:
            import onnxruntime as ort

            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            session = ort.InferenceSession(case.make(), options, providers=["CPUExecutionProvider"])
            feed = {case.input: case.array()}
            self._sessions[case.name] = lambda: session.run(None, feed)
        return self._sessions[case.name]

    def region(self, case: Case, server: Server) -> Region:
        """The case's tensor in shared memory, which the server knows.

        Raises:
            grpc.RpcError: it does not take it.
        """
        if case.name not in self._regions:
            self._regions[case.name] = self._exits.enter_context(Region.holding(case))
        region = self._regions[case.name]
        if (server.address, case.name) not in self._known:
            server.client.register(region.name, region.key, region.nbytes)
            self._known.add((server.address, case.name))
        return region

    def sealed(self, case: Case) -> str:
        """Name of a region of the gateway's with the case's tensor.

        Raises:
            NotMeasured: the gateway makes none.
        """
        if case.name not in self._sealed:
            self._sealed[case.name] = self._exits.enter_context(sealed(self.gateway.address, case))
        return self._sealed[case.name]

    def close(self) -> None:
        self._exits.close()

    def _listening(self, kind: str, *models: str) -> Server:
        address = f"unix:{self.folder}/{kind}.sock"
        pid, _ = self._bare(kind, address, *models)
        return self._served(address, pid)

    def _served(self, address: str, pid: int) -> Server:
        return Server(self._exits.enter_context(Client(address, OPTIONS)), address, pid)

    def _bare(self, kind: str, address: str, *models: str) -> tuple[int, int]:
        """(pid, port).

        Raises:
            RuntimeError: it does not listen within ``START_LIMIT``.
        """
        command = [sys.executable, "-m", "benchmarks.bench.bare", kind, address, *models]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._exits.callback(_end, process)
        line = first_line(process, START_LIMIT)
        if not line:
            raise RuntimeError(f"the {kind} server did not start")
        return process.pid, int(line)


def warmed(server: Server) -> Server:
    for case in SERVED:
        message = case.message()
        for _ in range(WARM_CALLS):
            server.client.infer(message)
    return server


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    with scratch() as folder:
        made = Stage(folder)
        try:
            yield made
        finally:
            made.close()
