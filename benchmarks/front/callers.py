"""The clients: processes of their own that ask in closed loops, each client over a connection of its own.

A process reads tasks from stdin, one JSON line each; connects, warms up, prints ``ready``, waits for a line, asks for
the seconds of the task, and prints what it saw. It stays, so that no measurement begins with an import.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.bench.cases import message
from benchmarks.load import METHODS
from benchmarks.rig import Caller

MODEL = "head"
WARM_UP = 24
"""Calls of each process before it is ready: slots are made and code is warm."""
PATIENCE = 60.0
"""Seconds past its own that a task may take."""
PROCESSES = {1: 1}
"""Processes by number of clients; more than one client: two, as one process would be the limit itself."""
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
"""So that page faults of the clients do not hide what those of the gateway cost."""


@dataclass(frozen=True)
class Task:
    """``clients`` ask for ``seconds``; client k asks ``addresses[k % len]``."""

    addresses: tuple[str, ...]
    clients: int
    nbytes: int
    seconds: float


@dataclass
class Seen:
    """What became of it."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of those that were answered."""
    failed: int = 0
    problem: str = ""
    """Of the last one that failed."""
    seconds: float = 0.0
    """From the first call to the last answer."""

    @property
    def p50(self) -> float:
        return statistics.median(self.latencies)

    def note(self, took: float, error: Any) -> None:
        if error is None:
            self.latencies.append(took)
        else:
            self.failed += 1
            self.problem = f"{error.code().name}: {error.details()}"[:200]


def joined(parts: Sequence[Seen]) -> Seen:
    """What several processes saw at the same time."""
    whole = Seen(seconds=max(part.seconds for part in parts))
    for part in parts:
        whole.latencies += part.latencies
        whole.failed += part.failed
        whole.problem = whole.problem or part.problem
    return whole


class Callers:
    """The processes for one number of clients. ``prepare``, then ``go``."""

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self._seconds = 0.0
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.front.callers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, **TUNED},
            )
            for _ in range(PROCESSES.get(clients, 2))
        ]

    def prepare(self, addresses: Sequence[str], nbytes: int, seconds: float) -> None:
        """Returns when all are connected and warm.

        Raises:
            RuntimeError: they do not get there.
        """
        self._seconds = seconds
        share = self.clients // len(self._processes)
        self._tell(json.dumps(asdict(Task(tuple(addresses), share, nbytes, seconds))))
        for process in self._processes:
            if self._line(process).strip() != "ready":
                raise RuntimeError(f"nobody answers at {', '.join(addresses)}")

    def go(self) -> Seen:
        self._tell("go")
        return joined([Seen(**json.loads(self._line(process))) for process in self._processes])

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _tell(self, line: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(self._seconds + PATIENCE) else ""

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@functools.cache
def request(nbytes: int) -> bytes:
    """An encoded request with an input of so many bytes."""
    return message(MODEL, "x", np.zeros(nbytes // 4, np.float32), "FP32")


def wait_for_go() -> None:
    gc.collect()
    gc.disable()
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit(0)


def ask_alone(task: Task, content: bytes) -> Seen:
    """One client as the plainest there is: a synchronous stub on the main thread."""
    seen = Seen()
    with Caller(task.addresses[0]) as caller:
        for _ in range(WARM_UP):
            caller.infer(content)
        wait_for_go()
        began = time.perf_counter()
        while time.perf_counter() - began < task.seconds:
            took, _, error = caller.infer(content)
            seen.note(took, error)
        seen.seconds = time.perf_counter() - began
    return seen


async def ask_together(task: Task, content: bytes) -> Seen:
    """Several clients on one loop, which takes less of the cores than a thread for each."""
    seen = Seen()
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    addresses = [task.addresses[number % len(task.addresses)] for number in range(task.clients)]
    channels = [grpc.aio.insecure_channel(address, options) for address in addresses]
    stubs: list[Any] = [channel.unary_unary(METHODS["ModelInfer"].path) for channel in channels]

    async def ask(infer: Any, into: Seen) -> None:
        began = time.perf_counter()
        try:
            await infer(content, timeout=10)
        except grpc.aio.AioRpcError as failed:
            into.note(0.0, failed)
        else:
            into.note(time.perf_counter() - began, None)

    async def client(infer: Any, until: float) -> None:
        while time.perf_counter() < until:
            await ask(infer, seen)

    try:
        unseen = Seen()
        for _ in range(max(1, WARM_UP // task.clients)):
            await asyncio.gather(*(ask(infer, unseen) for infer in stubs))
        wait_for_go()
        began = time.perf_counter()
        await asyncio.gather(*(client(infer, began + task.seconds) for infer in stubs))
        seen.seconds = time.perf_counter() - began
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    return seen


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started them ends them, and tells what was measured
    loop: asyncio.AbstractEventLoop | None = None
    for line in sys.stdin:
        read = json.loads(line)
        task = Task(**{**read, "addresses": tuple(read["addresses"])})
        content = request(task.nbytes)
        if task.clients == 1:
            seen = ask_alone(task, content)
        else:
            loop = loop or asyncio.new_event_loop()
            seen = loop.run_until_complete(ask_together(task, content))
        gc.enable()
        print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    main()
