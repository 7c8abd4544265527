"""What a request costs the gateway in things that can be counted: Python calls, memory kept, system calls."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.bare import OPTIONS
from benchmarks.bench.cases import SMALL
from benchmarks.bench.client import Client
from benchmarks.harness import Gateway, first_line, scratch, wait_for

WARM_CALLS = 300
CALLS = 500
TRACED_CALLS = 200
LIMIT = 30.0
_WAITS = {"total", "futex", "epoll_wait", "epoll_pwait", "poll", "ppoll", "restart_syscall"}
SETTLE = 0.1
"""Seconds after the last answer in which the recorder counts it."""


class NotCounted(Exception):
    """This machine can't count it; the message says why."""


@dataclass(frozen=True)
class Work:
    """Per request."""

    calls: float
    """Of functions, in the main thread."""
    blocks: float
    """Of the interpreter's memory that are still there when the request is over."""


@dataclass(frozen=True)
class Subject:
    """A server under ``benchmarks.counts.counted``, and a request for it."""

    pid: int
    noted: Path
    ask: Callable[[], object]

    def work(self, calls: int = CALLS) -> Work:
        for _ in range(WARM_CALLS):
            self.ask()
        time.sleep(SETTLE)
        self._note()
        for _ in range(calls):
            self.ask()
        time.sleep(SETTLE)
        found = self._note()
        return Work(found["calls"] / calls, found["blocks"] / calls)

    def syscalls(self, calls: int = TRACED_CALLS) -> dict[str, float]:
        """System calls per request of all its threads, by name; without those that wait, whose number is the machine's.

        Raises:
            NotCounted: there is no strace, or it may not look.
        """
        strace = shutil.which("strace")
        if strace is None:
            raise NotCounted("there is no strace")
        for _ in range(WARM_CALLS):
            self.ask()
        command = [strace, "-f", "-c", "-p", str(self.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                raise NotCounted(f"strace may not look: {said.strip()}")
            for _ in range(calls):
                self.ask()
            tracer.send_signal(signal.SIGINT)
            table = tracer.stderr.read()
        rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", table, re.MULTILINE)
        return {name: int(count) / calls for count, name in rows if name not in _WAITS}

    def _note(self) -> dict[str, Any]:
        self.noted.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        wait_for(self.noted.exists, LIMIT, "the count")
        found: dict[str, Any] = json.loads(self.noted.read_text())
        return found


class CountedGateway(Gateway):
    """A gateway whose work can be counted."""

    def command(self) -> list[str]:
        python, dash_m, *rest = super().command()
        return [python, dash_m, "benchmarks.counts.counted", str(self.folder / "noted.json"), *rest]


@contextlib.contextmanager
def counted_gateway() -> Iterator[Subject]:
    """With the model of 64 B, asked over its Unix socket."""
    with scratch() as folder:
        path = folder / "models" / SMALL.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(SMALL.make())
        flags = ["--model-repository", str(folder / "models"), "--metrics", "127.0.0.1:0"]
        with CountedGateway(folder, {}, flags) as gateway:
            assert gateway.process is not None
            with _asked(gateway.unix, gateway.process.pid, folder) as subject:
                yield subject


@contextlib.contextmanager
def counted_server(kind: str) -> Iterator[Subject]:
    """One of ``benchmarks.bench.bare``."""
    with scratch() as folder:
        address, noted = f"unix:{folder}/{kind}.sock", str(folder / "noted.json")
        command = [sys.executable, "-m", "benchmarks.counts.counted", noted, "benchmarks.bench.bare", kind, address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                if not first_line(process, LIMIT):
                    raise RuntimeError(f"the {kind} server did not start")
                with _asked(address, process.pid, folder) as subject:
                    yield subject
            finally:
                process.terminate()


@contextlib.contextmanager
def _asked(address: str, pid: int, folder: Path) -> Iterator[Subject]:
    message = SMALL.message()
    with Client(address, OPTIONS) as client:
        yield Subject(pid, folder / "noted.json", lambda: client.infer(message))
