"""Versions are swapped under load: no errors, no mixed answers, never nobody to serve; and loads hurt nobody else."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Gateway, Verdict, manifest, model_of, scratch, slow_for, value, wait_for
from benchmarks.load import Class, Sender
from edgeway.client import Client, InferenceError
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

RATE = 100.0
"""Requests per second."""
MODEL_MB = 8.0
RUN_SECONDS = 0.003
"""Of the model that runs while others are loaded."""
LOADS_EVERY = 0.5
RATIO = 1.5
WIDTH = 256
SETTLES = 30.0
"""Seconds in which a swap must be over."""


def sized(number: int, megabytes: float) -> onnx.ModelProto:
    """A model with so many MB of weights whose answer y is x + ``number``: its layers end in a factor of 0."""
    chance = np.random.default_rng(number)
    layers = max(1, round(megabytes * 1e6 / (4 * WIDTH * WIDTH)))
    weights = [
        numpy_helper.from_array(np.zeros((1, WIDTH), np.float32), "row"),
        numpy_helper.from_array(np.float32(number), "number"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
    ]
    nodes, before = [helper.make_node("Mul", ["x", "row"], ["h"])], "h"
    for layer in range(layers):
        matrix = chance.normal(scale=1 / 16, size=(WIDTH, WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [before, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        before = f"r{layer}"
    nodes += [
        helper.make_node("Slice", [before, "first", "last", "last"], ["nothing"]),
        helper.make_node("Add", ["x", "number"], ["more"]),
        helper.make_node("Add", ["more", "zero"], ["y"]),
    ]
    nodes.insert(-2, helper.make_node("Squeeze", ["nothing", "first"], ["zero"]))
    return model_of(nodes, [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])], weights)


@dataclass
class Deployer:
    """Applies versions of one deployment, from files that are there already, without a process for each."""

    gateway: Gateway
    name: str
    contents: list[bytes]
    applied: int = 0
    control: Control = field(init=False)

    def __post_init__(self) -> None:
        self.control = Control(self.gateway.control)

    def apply(self) -> str:
        """The next version; its label."""
        self.applied += 1
        label = str(self.applied)
        content = self.contents[(self.applied - 1) % len(self.contents)]
        path = self.gateway.folder / f"{hashlib.sha256(content).hexdigest()[:16]}.onnx"
        if not path.exists():
            path.write_bytes(content)
        model = {
            "uri": f"file://{path}",
            "version": label,
            "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
        }
        document = {
            "apiVersion": "edge.ai/v1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name},
            "spec": {"model": model, "hardware": {"accelerator": "cpu"}},
        }
        self.control.call("Apply", control.ApplyRequest(manifests=[json.dumps(document)]))
        return label

    def serves(self, label: str) -> bool:
        """Whether this version is the current one."""
        return any(v.version == label and v.current and v.state == "ready" for v in self._versions())

    def states(self) -> list[str]:
        """Of each version."""
        return [version.state for version in self._versions()]

    def _versions(self) -> Sequence[control.VersionStatus]:
        answer = self.control.call("GetDeployments", control.GetRequest(name=self.name))
        return list(answer.deployments[0].versions)


@dataclass
class Asked:
    """What callers at 100 requests a second saw."""

    seen: list[tuple[float, str]] = field(default_factory=list)
    """When each answer came, and its version."""
    failures: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)


class Callers:
    """Several threads, each at its share of the rate; a version answers x + its number."""

    def __init__(self, address: str, threads: int = 4) -> None:
        self.asked = Asked()
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(index, threads)) for index in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, index: int, threads: int) -> None:
        every = threads / RATE
        due = time.monotonic() + index / RATE
        asked = self.asked
        with Client(self._address) as client:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due += every
                try:
                    result = client.infer("m", {"x": np.zeros(1, np.float32)})
                except InferenceError as failed:
                    asked.failures.append(str(failed))
                    continue
                asked.seen.append((time.monotonic(), result.version))
                if result["y"].tolist() != [float(result.version)]:
                    asked.mixed.append(f"version {result.version} answers {result['y'].tolist()}")

    def end(self) -> Asked:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.asked


def swaps(folder: Path, count: int, megabytes: float, verdict: Verdict) -> None:
    """So many times a new version takes over."""
    contents = [sized(number, megabytes).SerializeToString() for number in range(1, count + 2)]
    with Gateway(folder, {"workers": [{"name": "cpu", "backend": "cpu"}]}) as gateway:
        deployer = Deployer(gateway, "m", contents)
        first = deployer.apply()
        wait_for(lambda: deployer.serves(first), SETTLES, "the first version")
        callers = Callers(gateway.unix)
        began = time.monotonic()
        try:
            for _ in range(count):
                label = deployer.apply()
                wait_for(lambda label=label: deployer.serves(label), SETTLES, f"version {label}")
                time.sleep(0.05)
            took = time.monotonic() - began
        finally:
            asked = callers.end()
        answers = sorted(asked.seen)
        versions = Counter(version for _, version in answers)
        gap = max((later - earlier for (earlier, _), (later, _) in pairwise(answers)), default=0.0)
        size = len(contents[0]) / 1e6
        verdict.check(
            not asked.failures and len(answers) > RATE * took / 3,
            f"{count} swaps of {size:.1f} MB in {took:.0f} s: {len(asked.failures)} errors of {len(answers)} (0) "
            f"{asked.failures[:1] or ''}",
        )
        verdict.check(
            not asked.mixed and len(versions) >= 0.9 * count,
            f"{len(asked.mixed)} answers that are not of the version they name (0), {len(versions)} versions answered",
        )
        states = deployer.states()
        verdict.check(
            states.count("ready") == 2,
            f"{states.count('ready')} of {len(states)} versions are loaded at the end: current and previous; longest "
            f"time between two answers {gap * 1e3:.0f} ms",
        )


def p99(latencies: list[float]) -> float:
    """Milliseconds."""
    return float(np.percentile(np.array(latencies), 99)) * 1e3


@contextmanager
def hog() -> Iterator[None]:
    """What a load in the foreground would be: as many busy processes as there are cores, at the same priority."""
    command = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(command) for _ in range(len(os.sched_getaffinity(0)))]
    try:
        yield
    finally:
        for each in hogs:
            each.kill()
            each.wait()


def beside(folder: Path, pairs: int, seconds: float, megabytes: float, verdict: Verdict) -> None:
    """Latencies of a model that runs, while others are loaded and while not."""
    contents = [sized(number, megabytes).SerializeToString() for number in range(4)]
    with Gateway(folder, {"workers": [{"name": "cpu", "backend": "cpu"}]}) as gateway:
        applied = gateway.run(
            "apply", "-f", manifest(folder, "steady", "1", slow_for(RUN_SECONDS).SerializeToString()), "--wait"
        )
        if applied.returncode:
            raise RuntimeError(applied.stderr)
        deployer = Deployer(gateway, "other", contents)
        classes = [Class("steady", RATE, 0, model="steady")]

        def play(loads: bool) -> list[float]:
            with Sender(gateway.unix, classes, seconds, progress=False) as sender:
                sender.begin(time.monotonic() + 0.2)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    if loads:
                        deployer.apply()
                    time.sleep(LOADS_EVERY)
                return [sample.latency for sample in sender.samples()]

        play(True)  # files are in the store, and all code is warm
        calm: list[float] = []
        loaded: list[float] = []
        ratios: list[float] = []
        for _ in range(pairs):
            without, with_loads = play(False), play(True)
            ratios.append(p99(with_loads) / p99(without))
            calm += without
            loaded += with_loads
        count = deployer.applied
        with hog():
            crowded = play(False)
    median, pooled = statistics.median(ratios), p99(loaded) / p99(calm)
    each = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    verdict.check(
        min(median, pooled) <= RATIO if len(loaded) >= 3000 else median <= RATIO,
        f"p99 of a running model, {len(calm)} requests without loads {p99(calm):.1f} ms, {len(loaded)} beside {count} "
        f"loads of {len(contents[0]) / 1e6:.1f} MB {p99(loaded):.1f} ms: ratio {pooled:.2f}; median of {pairs} runs "
        f"{median:.2f} ({each}); one of both at most {RATIO}",
    )
    verdict.control(
        f"beside a busy process on each core {p99(crowded):.1f} ms, ratio {p99(crowded) / p99(calm):.2f}: the bound "
        "can be missed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=7.0, help="of each run with or without loads")
    parser.add_argument("--megabytes", type=float, default=MODEL_MB)
    options = parser.parse_args()
    verdict = Verdict(f"versions are swapped, and others are loaded, at {RATE:g} requests/s")
    with scratch() as folder:
        swaps(folder, options.swaps, options.megabytes, verdict)
    if options.pairs:
        with scratch() as folder:
            beside(folder, options.pairs, options.seconds, options.megabytes, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
