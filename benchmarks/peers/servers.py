"""The servers as processes on one CPU: how each is started, what it uses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.harness import alive, descendants
from benchmarks.peers import environments, repository
from benchmarks.peers.loads import PLACES

STOP_LIMIT = 15.0
ROOT = environments.ROOT
BUDGET_MS = 30000
"""Of a request that says none. Edgeway would refuse what waits longer, which no peer does: none may be spared work."""


@dataclass(frozen=True)
class Launch:
    """What to start; ``port`` is where gRPC will listen."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Failed(Exception):
    """A server that did not start or ended; the message has the last line of its log."""


def _edgeway(models: Path, work: Path, port: int, collector: str) -> Launch:
    """The whole pipeline: budgets, ranking, histograms, and traces of one request in a hundred."""
    config = {
        "budget": {"defaultMs": BUDGET_MS},
        "workers": [{"name": "cpu", "backend": "cpu", "threads": 1, "instances": 1}],
        "telemetry": {"otlp": collector, "sampleRatio": 0.01},
    }
    (work / "device.yaml").write_text(yaml.safe_dump(config))
    folder = repository.edgeway(models, work / "models")
    command = [str(environments.FOLDER / "edgeway" / "bin" / "edgeway"), "serve"]
    command += ["--config", str(work / "device.yaml"), "--listen", f"127.0.0.1:{port}"]
    command += ["--control", f"unix:{work}/control.sock", "--state-dir", str(work / "state")]
    command += ["--metrics", f"127.0.0.1:{free_port()}", "--model-repository", str(folder)]
    command += ["--client-shared-memory", "all"]
    return Launch(command)


def _mlserver(models: Path, work: Path, port: int, collector: str) -> Launch:
    del collector
    folder = repository.mlserver(models, work / "models", port, free_port(), free_port())
    command = [str(environments.FOLDER / "mlserver" / "bin" / "mlserver"), "start", str(folder)]
    return Launch(command, {"PYTHONPATH": str(folder), "MLSERVER_METRICS_DIR": str(work)})


def _kserve(models: Path, work: Path, port: int, collector: str) -> Launch:
    del work, collector
    command = [str(environments.python("kserve")), str(repository.SERVING / "kserve_server.py"), str(models)]
    return Launch([*command, "--grpc_port", str(port), "--http_port", str(free_port())])


def _triton(models: Path, work: Path, port: int, collector: str) -> Launch:
    del collector
    return triton_server(repository.triton(models, work / "models"), work, port)


def triton_server(folder: Path, work: Path, port: int) -> Launch:
    """Triton on a repository; its shared memory has the name of ``work`` in its own."""
    server = environments.triton_packages() / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    command = [str(server), "--model-repository", str(folder)]
    command += ["--backend-directory", str(environments.triton_backends())]
    command += ["--grpc-address", "127.0.0.1", "--grpc-port", str(port), "--allow-http", "false"]
    command += ["--allow-metrics", "true", "--metrics-address", "127.0.0.1", "--metrics-port", str(free_port())]
    command += ["--exit-timeout-secs", "5", "--backend-config", f"python,shm-region-prefix-name={work.name}"]
    path = f"{environments.python('triton').parent}:{os.environ['PATH']}"
    return Launch(command, {"PATH": path, "LD_LIBRARY_PATH": environments.triton_libraries()})


def _bare(what: str) -> Callable[[Path, Path, int, str], Launch]:
    def launch(models: Path, work: Path, port: int, collector: str) -> Launch:
        del work, collector
        command = [sys.executable, "-m", "benchmarks.peers.serving.bare", str(models), str(port), what]
        return Launch(command, {"PYTHONPATH": ":".join(str(ROOT / place) for place in ("", "protos", "clients"))})

    return launch


LAUNCHES: Mapping[str, Callable[[Path, Path, int, str], Launch]] = {
    "edgeway": _edgeway,
    "mlserver": _mlserver,
    "kserve": _kserve,
    "triton": _triton,
    "echo": _bare("echo"),
    "direct": _bare("direct"),
}
"""The last two are controls that run in this environment."""


def free_port() -> int:
    """A TCP port of the loopback that nobody has now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """One of them, with all its processes kept to ``cpu``."""

    def __init__(self, name: str, models: Path, work: Path, cpu: int, collector: str) -> None:
        self.name = name
        self._port = free_port()
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
        launch = LAUNCHES[name](models, folder, self._port, collector)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._log = folder / "log"
        self.began = time.perf_counter()
        with self._log.open("w") as log, on(cpu):
            self._process = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, **launch.environment},
                cwd=folder,  # not the checkout, whose packages would be taken for the installed ones
            )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def listens(self) -> bool:
        """Whether its port takes connections.

        Raises:
            Failed: it has ended.
        """
        if self._process.poll() is not None:
            lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
            said = [line for line in lines if "rror" in line] or lines or ["no word of why"]
            raise Failed(f"{self.name} ended with {self._process.returncode}: {said[-1].strip()[-200:]}")
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self._port)) == 0

    def processor_seconds(self) -> float:
        """User and system time of its processes so far, to the nanosecond that the scheduler accounts.

        Raises:
            Failed: it has ended.
        """
        try:
            return sum(time.clock_gettime_ns(processor_clock(pid)) for pid in self.pids()) / 1e9
        except OSError as gone:
            raise Failed(f"a process of {self.name} ended while it was measured") from gone

    def proportional_mb(self) -> float:
        """Resident memory of its processes, pages that several share divided among them.

        Raises:
            Failed: it has ended.
        """
        total = 0
        try:
            for pid in self.pids():
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        except OSError as gone:
            raise Failed(f"a process of {self.name} ended while it was measured") from gone
        return total / 1024

    def stop(self) -> None:
        """SIGTERM; SIGKILL for what is left of its processes, whose shared memory is removed."""
        pids = self.pids()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT)
        for pid in filter(alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        for left in PLACES.glob(f"*{self._log.parent.name}*"):
            left.unlink(missing_ok=True)

    def pids(self) -> list[int]:
        """Of its processes, the one that was started first."""
        return [self._process.pid, *descendants(self._process.pid)]


@contextlib.contextmanager
def on(cpu: int) -> Iterator[None]:
    """What is started meanwhile inherits this CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processor_clock(pid: int) -> int:
    """Id of the clock of a process's processor time: Linux's MAKE_PROCESS_CPUCLOCK with CPUCLOCK_SCHED."""
    return (~pid << 3) | 2
