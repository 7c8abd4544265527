"""A thousand times a real model is loaded, run and unloaded: the worker's memory stays where it was after the tenth."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks import runtimes
from benchmarks.harness import Verdict
from benchmarks.worker import Worker
from edgeway.datatypes import BY_NAME
from edgeway.upkeep import QUIET
from gateway.dispatch.launch import PROGRAM

MODELS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "models"
SETTLED = 10
BOUND = 0.05
REST = QUIET + 1.0
"""Seconds before memory is read: what is free goes back to the system when there was nothing to do for ``QUIET``."""
LEAK = """
import workers.backends.cpu as cpu
kept, load = [], cpu.CpuBackend.load
def leaky(self, content, *rest):
    kept.append(bytearray(content))
    return load(self, content, *rest)
cpu.CpuBackend.load = leaky
"""
"""A backend that keeps a copy of each file it was ever given."""


def cycle(worker: Worker, content: bytes, suffix: str, times: int) -> list[float]:
    """Load, run, unload; megabytes of the process after each."""
    resident = []
    for _ in range(times):
        model = worker.load(content, suffix)
        given = [np.ones([max(1, n) for n in spec.shape], BY_NAME[spec.datatype].numpy) for spec in model.inputs]
        worker.run(model, *given)
        worker.unload(model)
        resident.append(worker.resident / 1e6)
    return resident


def growth(worker: Worker, content: bytes, suffix: str, cycles: int) -> tuple[float, float, float]:
    """Megabytes after the tenth cycle, at the end, and the most in between; the first two in a moment of rest."""
    cycle(worker, content, suffix, SETTLED)
    time.sleep(REST)
    before = worker.resident / 1e6
    during = cycle(worker, content, suffix, cycles - SETTLED)
    time.sleep(REST)
    return before, worker.resident / 1e6, max(during)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--leaky", type=int, default=200, help="cycles of the control")
    parser.add_argument("--only", default="", help="one backend: cpu or litert")
    options = parser.parse_args()
    verdict = Verdict(f"{options.cycles} times: load, run, unload")
    for backend, file in (("cpu", "digits-1.0.onnx"), ("litert", "digits-1.0.tflite")):
        if options.only not in ("", backend):
            continue
        try:
            python = {} if backend == "cpu" else {"python": str(runtimes.interpreter(backend))}
        except runtimes.Missing as missing:
            print(f"  without {backend}: {missing}")
            continue
        content = (MODELS / file).read_bytes()
        began = time.monotonic()
        with Worker(backend, **python) as worker:
            before, after, most = growth(worker, content, Path(file).suffix, options.cycles)
        changed, seconds = after / before - 1, time.monotonic() - began
        verdict.check(
            abs(changed) <= BOUND,
            f"{backend}, {file} of {len(content) / 1e3:.0f} kB: {before:.1f} MB after the {SETTLED}th, {after:.1f} MB "
            f"after the {options.cycles}th: {changed:+.1%} (within {BOUND:.0%}); at most {most:.1f}; {seconds:.0f} s",
        )
    content = (MODELS / "digits-1.0.onnx").read_bytes()
    with Worker("cpu", program=("-c", LEAK + PROGRAM[1])) as worker:
        before, after, _ = growth(worker, content, ".onnx", options.leaky)
    text = f"a backend that keeps each file: {after / before - 1:+.1%} after {options.leaky}, which is seen"
    verdict.control(text)
    verdict.check(after / before - 1 > BOUND, f"the leak that was planted shows as more than {BOUND:.0%}")
    verdict.end()


if __name__ == "__main__":
    main()
