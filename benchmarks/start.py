"""From launch to the first answer: ``edgeway serve`` with a CPU worker and a small model, N launches, medians.

    python -m benchmarks.start [--launches 9] [-o json]
    python -m benchmarks.start --profile

The control is the same model in one Python gRPC process (``benchmarks/direct.py``), launched in turn with the gateway.
The clock starts before the process does, and stops when the client, which waits for the ready line, has its answer.
Files are in the page cache: the first launch of each is not counted. ``--profile`` tells where the time goes: what each
process imports, one after the other, as it does in a start.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import direct
from benchmarks.harness import Gateway, Verdict, first_line, put, scaled, scratch
from edgeway.client import Client

BOUND, AIM = 1.2, 0.7
"""Seconds from launch to first answer."""
INPUT = {"x": np.arange(16, dtype=np.float32)}


def launch_gateway(folder: Path) -> tuple[float, float]:
    """Seconds to the ready line and to the first answer."""
    gateway = Gateway(folder, flags=["--model-repository", str(folder / "models")])
    began = time.perf_counter()
    with gateway:
        ready = time.perf_counter() - began
        answer(gateway.unix)
        return ready, time.perf_counter() - began


def launch_direct(folder: Path) -> tuple[float, float]:
    """The same for the process without a gateway."""
    address = f"unix:{folder}/direct.sock"
    began = time.perf_counter()
    process = direct.launch(address, m=folder / "models" / "m" / "1" / "model.onnx")
    try:
        if not first_line(process, 30):
            raise RuntimeError("the direct server did not start")
        ready = time.perf_counter() - began
        answer(address)
        return ready, time.perf_counter() - began
    finally:
        direct.end(process)


def answer(address: str) -> None:
    with Client(address, deadline_ms=10_000) as client:
        result = client.infer("m", INPUT)
    if not np.array_equal(result["y"], 2 * INPUT["x"]):
        raise RuntimeError(f"a wrong answer: {result['y']}")


PARTS = {
    "gateway": {
        "command line, config": "gateway.cli.serve",
        "up to the launch of the workers": "gateway.start",
        "asyncio": "asyncio",
        "gRPC": "grpc.aio",
        "protobuf and our messages": "edgeway.v1.worker_pb2",
        "the rest of the gateway": "gateway.assembly",
    },
    "worker": {
        "command line": "workers.__main__",
        "protobuf and our messages": "edgeway.v1.worker_pb2",
        "link and schedule": "workers.service",
        "numpy": "numpy",
        "backend": "workers.backends.cpu",
        "ONNX Runtime": "onnxruntime",
    },
}
"""By process: part of its start -> the module whose import is that part, in the order of a start."""
_TIMER = """
import importlib, json, sys, time
took = []
for module in sys.argv[1:]:
    began = time.perf_counter()
    importlib.import_module(module)
    took.append(time.perf_counter() - began)
print(json.dumps(took))
"""


def profile(launches: int) -> dict[str, dict[str, float]]:
    """By process: part -> median milliseconds; the interpreter itself first."""
    figures = {}
    for name, parts in PARTS.items():
        rounds = []
        for _ in range(launches):
            began = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", _TIMER, *parts.values()], capture_output=True, check=True)
            whole, took = time.perf_counter() - began, json.loads(done.stdout)
            rounds.append([whole - sum(took), *took])
        medians = [round(statistics.median(column) * 1e3, 1) for column in zip(*rounds, strict=True)]
        figures[name] = dict(zip(["interpreter, to its end", *parts], medians, strict=True))
    return figures


def measure(launches: int) -> dict[str, dict[str, object]]:
    """By server: medians and all launches, seconds."""
    took: dict[str, list[tuple[float, float]]] = {"gateway": [], "direct": []}
    with scratch() as folder:
        put(folder / "models", "m", scaled(2.0))
        for number in range(launches + 1):
            pair = [("gateway", launch_gateway), ("direct", launch_direct)]
            for name, launched in pair if number % 2 else reversed(pair):
                figures = launched(folder)
                if number:
                    took[name].append(figures)
    return {
        name: {
            "readySeconds": round(statistics.median(ready for ready, _ in figures), 3),
            "firstAnswerSeconds": round(statistics.median(first for _, first in figures), 3),
            "all": [round(first, 3) for _, first in figures],
        }
        for name, figures in took.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launches", type=int, default=9)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead")
    options = parser.parse_args()
    if options.profile:
        for name, parts in profile(options.launches).items():
            print(name)
            for part, milliseconds in parts.items():
                print(f"  {milliseconds:7.1f} ms  {part}")
        return
    figures = measure(options.launches)
    ours = float(str(figures["gateway"]["firstAnswerSeconds"]))
    if options.output == "json":
        print(json.dumps({**figures, "bound": BOUND, "aim": AIM, "ok": ours <= BOUND}, indent=2))
        raise SystemExit(ours > BOUND)
    verdict = Verdict(f"from launch to first answer, medians of {options.launches} launches each, in turn")
    spread = sorted(figures["gateway"]["all"])  # type: ignore[call-overload]
    verdict.check(
        ours <= BOUND,
        f"gateway, CPU worker, small model: {ours:.2f} s ({spread[0]:.2f} to {spread[-1]:.2f}), "
        f"ready after {figures['gateway']['readySeconds']:.2f} s (at most {BOUND:g} s, aim {AIM:g} s)",
    )
    verdict.control(f"the same model in one Python gRPC process: {figures['direct']['firstAnswerSeconds']:.2f} s")
    verdict.end()


if __name__ == "__main__":
    main()
