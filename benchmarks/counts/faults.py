"""Minor page faults per request: buffers that the allocator gave away and got back."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench.bare import OPTIONS
from benchmarks.bench.cases import FRAME, LARGE, Case
from benchmarks.bench.client import Client
from benchmarks.bench.process import minor_faults
from benchmarks.harness import Gateway, first_line, scratch

CASES = (FRAME, LARGE)
WARM_CALLS = 100
STRETCHES = 5
"""Of calls, of which the median counts: now and then a heap grows for good, which is no cost of the request at hand."""
LIMIT = 30.0


def of_gateway(calls: int) -> dict[str, float]:
    """Per request, by case. ``calls``: of each."""
    with scratch() as folder:
        _models(folder)
        with Gateway(folder, {}, ["--model-repository", str(folder / "models")]) as gateway:
            assert gateway.process is not None
            return _counted(gateway.unix, gateway.process.pid, calls)


def of_plain_server(calls: int) -> dict[str, float]:
    """Per request of a server of the same models that leaves the allocator as it is."""
    with scratch() as folder, _plain(folder) as (address, pid):
        return _counted(address, pid, calls)


def _counted(address: str, pid: int, calls: int) -> dict[str, float]:
    counted = {}
    with Client(address, OPTIONS) as client:
        for case in CASES:
            message = case.message()
            for _ in range(WARM_CALLS):
                client.infer(message)
            stretches = [_stretch(client, message, pid, calls // STRETCHES) for _ in range(STRETCHES)]
            counted[case.name] = statistics.median(stretches)
    return counted


def _stretch(client: Client, message: bytes, pid: int, calls: int) -> float:
    before = minor_faults(pid)
    for _ in range(calls):
        client.infer(message)
    return (minor_faults(pid) - before) / calls


def _models(folder: Path) -> list[str]:
    """Write them as a repository; NAME=PATH of each."""
    return [f"{case.name}={_model(folder, case)}" for case in CASES]


def _model(folder: Path, case: Case) -> Path:
    path = folder / "models" / case.name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(case.make())
    return path


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[tuple[str, int]]:
    address = f"unix:{folder}/direct.sock"
    command = [sys.executable, "-m", "benchmarks.bench.bare", "direct", address, *_models(folder)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}  # glibc's default, without its adapting
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            if not first_line(process, LIMIT):
                raise RuntimeError("the server did not start")
            yield address, process.pid
        finally:
            process.terminate()
