"""Options of the CPU's sessions at batch 1, each against those that ship: which of them the numbers support.

    python -m benchmarks.options [--rounds 15] [-o json]

Variants take turns, 60 ms each, in random order, so that a machine that is busy meets them alike; a ratio is the median
over rounds of the round's own ratio. Ratios below 1 are faster than what ships. Memory is that of a process of its own,
after one run of a batch of 4096 rows and then one of a single row: what it goes on holding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import model_of, value
from workers.onnx_runtime import CPU, OnnxRuntime
from workers.process import resident_bytes

ROOT = Path(__file__).resolve().parents[1]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = {
    "digits": next(iter(sorted((ROOT / "examples" / "digits").rglob("*.onnx"))), None),
    "shufflenet": LIGHT / "light_shufflenet.onnx",
    "squeezenet": LIGHT / "light_squeezenet.onnx",
}
TURN = 0.06
"""Seconds that a variant runs at a time; at least three runs."""
BETTER = 0.95
"""A variant that is faster than this beside what ships, on every model, calls the defaults into question."""


def spinning(options: Any) -> None:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # it warns of an entry that is set twice
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")


def arena(options: Any) -> None:
    options.enable_cpu_mem_arena = True


def no_pattern(options: Any) -> None:
    options.enable_mem_pattern = False


def parallel(options: Any) -> None:
    import onnxruntime

    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2


VARIANTS: dict[str, tuple[int, Callable[[Any], None]]] = {
    "shipped": (1, lambda options: None),
    "shipped again": (1, lambda options: None),
    "arena": (1, arena),
    "no memory pattern": (1, no_pattern),
    "2 threads": (2, lambda options: None),
    "2 threads, spinning": (2, spinning),
    "2 at a time between operators": (1, parallel),
}
ONE_CORE = {"arena", "no memory pattern"}
"""Those that take no more than one core, as what ships; others leave nothing to the second instance and the gateway."""


def _wide() -> bytes:
    """64 numbers become 4096, and the largest of them: a batch of n takes n times 32 KB in between."""
    weights = [numpy_helper.from_array(np.ones((64, 4096), np.float32), "w")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("ReduceMax", ["b"], ["y"], axes=[1]),
    ]
    ends = (value(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 1)))
    return model_of(nodes, [next(ends)], [next(ends)], weights).SerializeToString()


def session(content: bytes, threads: int, change: Callable[[Any], None]) -> Any:
    runtime = OnnxRuntime()
    options = runtime.options(threads)
    options.log_severity_level = 4
    change(options)
    return runtime.ort.InferenceSession(content, options, providers=[CPU])


def feed(made: Any, batch: int = 1) -> dict[str, np.ndarray]:
    given = {}
    for argument in made.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in argument.shape]
        if shape and not isinstance(argument.shape[0], int):
            shape[0] = batch
        dtype = np.uint8 if "uint8" in argument.type else np.float32
        given[argument.name] = (np.random.default_rng(0).random(shape) * 16).astype(dtype)
    return given


def measure(model: str, rounds: int) -> dict[str, dict[str, float]]:
    """By variant: p50 and p99 in ms, and the ratios of both to what ships."""
    path = MODELS[model]
    assert path is not None
    sessions = {name: session(path.read_bytes(), threads, change) for name, (threads, change) in VARIANTS.items()}
    given = feed(sessions["shipped"])
    for made in sessions.values():
        for _ in range(5):
            made.run(None, given)
    shuffled = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        order = list(VARIANTS)
        shuffled.shuffle(order)
        took = {name: turn(sessions[name], given) for name in order}
        base = statistics.median(took["shipped"])
        for name, each in took.items():
            ratios[name].append(statistics.median(each) / base)
            times[name] += each
    tail = float(np.quantile(times["shipped"], 0.99))
    return {
        name: {
            "p50_ms": statistics.median(each) * 1e3,
            "p99_ms": float(np.quantile(each, 0.99)) * 1e3,
            "p50_ratio": statistics.median(ratios[name]),
            "p99_ratio": float(np.quantile(each, 0.99)) / tail,
        }
        for name, each in times.items()
    }


def turn(made: Any, given: dict[str, np.ndarray]) -> list[float]:
    """Seconds of each run of one turn. The first is left out: it meets the caches of the one before."""
    times: list[float] = []
    end = time.perf_counter() + TURN
    made.run(None, given)
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        made.run(None, given)
        times.append(time.perf_counter() - began)
    return times


def held(variant: str) -> float:
    """MB that a process of this variant holds after a large batch and a small one, beyond what it held before."""
    command = [sys.executable, "-m", "benchmarks.options", "--held", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def hold(variant: str) -> None:
    threads, change = VARIANTS[variant]
    made = session(_wide(), threads, change)
    one, many = (np.zeros((rows, 64), np.float32) for rows in (1, 4096))
    made.run(None, {"x": one})
    before = resident_bytes()
    made.run(None, {"x": many})
    made.run(None, {"x": one})
    print((resident_bytes() - before) / 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--held", choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.held:
        hold(options.held)
        return 0
    load = os.getloadavg()[0]
    figures = {model: measure(model, options.rounds) for model in MODELS if MODELS[model] is not None}
    memory = {name: held(name) for name in ("shipped", "arena")}
    better = [
        name
        for name in VARIANTS
        if name in ONE_CORE and all(figures[model][name]["p50_ratio"] < BETTER for model in figures)
    ]
    if options.output == "json":
        print(json.dumps({"load": load, "cores": os.cpu_count(), "models": figures, "held_mb": memory}, indent=2))
        return int(bool(better))
    print(f"options of the CPU's sessions, batch 1; load {load:.1f} on {os.cpu_count()} cores as it began")
    for model, rows in figures.items():
        print(f"{model}:")
        for name, row in rows.items():
            print(
                f"  {name:30}  p50 {row['p50_ms']:8.3f} ms  x{row['p50_ratio']:.2f}"
                f"   p99 {row['p99_ms']:8.3f} ms  x{row['p99_ratio']:.2f}"
            )
    print(f"held after a batch of 4096: {memory['shipped']:.0f} MB, with the arena {memory['arena']:.0f} MB")
    print(f"better than what ships on one core, on every model: {', '.join(better) or 'none'}")
    return int(bool(better))


if __name__ == "__main__":
    raise SystemExit(main())
