"""One deployment on four real runtimes: three kinds of files, answers that agree, failover under SIGKILL with no error.

The environments are those of ``make runtimes``; what is missing is made, and what can't be made here is named.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks import runtimes
from benchmarks.harness import Gateway, Verdict, not_here, scratch, wait_for
from edgeway.client import Client, InferenceError
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
FLOATS = {"tolerance": {"rtol": 0.01, "atol": 0.001}}
EIGHT_BITS = {"top1": 0.96}
BYTES_FIRST = "digits-1.1-bytes-first.onnx"
"""As the plug-in of QNN reads the frame rightly: see examples/digits/README.md."""
READY_LIMIT = 400.0
BUDGET_MS = 90_000
"""The emulator takes 3 s for a frame, and some 20 on a busy machine: its times say nothing of a chip."""
THREADS = 3
SAMPLES = 4
ANSWERS_OF_AN_EMULATOR = 3


@dataclass(frozen=True)
class Runtime:
    """A backend with its file of the model, and how that is held to the golden samples."""

    name: str
    file: str
    rule: dict[str, Any]
    kind: str
    environment: str = ""


RUNTIMES = (
    Runtime("qnn", BYTES_FIRST, EIGHT_BITS, "emulator", "qnn"),
    Runtime("openvino", "digits-1.0.onnx", FLOATS, "cpu", "openvino"),
    Runtime("litert", "digits-1.0.tflite", FLOATS, "cpu", "litert"),
    Runtime("cpu", "digits-1.0.onnx", FLOATS, "cpu"),
)
"""In the order of preference."""


class Load:
    """Asks from several threads, each time about another frame, and holds each answer to what FP32 says."""

    def __init__(self, address: str, frames: list[np.ndarray], scores: np.ndarray) -> None:
        self.failures: list[str] = []
        self.answers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        self.kinds: dict[str, str] = {}
        self._frames, self._scores = frames, scores
        self._turn = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address,)) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, address: str) -> None:
        with Client(address, deadline_ms=BUDGET_MS) as client:
            while not self._stop.is_set():
                with self._lock:
                    at = self._turn % len(self._frames)
                    self._turn += 1
                try:
                    answer = client.infer("digits", {"frame": self._frames[at]})
                except InferenceError as failed:
                    self.failures.append(str(failed))
                    continue
                with self._lock:
                    self.answers[answer.served_by].append((answer["scores"], self._scores[at]))
                    self.kinds[answer.served_by] = answer.kind

    def count(self, name: str) -> int:
        return len(self.answers[name])

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def agreeing(rule: dict[str, Any], answers: list[tuple[np.ndarray, np.ndarray]]) -> tuple[bool, str]:
    """Whether answers hold the rule, and the figure in words."""
    if "top1" in rule:
        share = sum(got.argmax() == right.argmax() for got, right in answers) / len(answers)
        return share >= rule["top1"], f"top1 of {share:.3f} (at least {rule['top1']:g})"
    limits = rule["tolerance"]
    excess = max(float((abs(got - right) - limits["rtol"] * abs(right)).max()) for got, right in answers)
    largest = max(float(abs(got - right).max()) for got, right in answers)
    words = f"rtol {limits['rtol']:g}, atol {limits['atol']:g}"
    return excess <= limits["atol"], f"largest difference {largest:.2g} ({words})"


def part(name: str) -> Any:
    """A module of the example."""
    spec = importlib.util.spec_from_file_location(name, DIGITS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frames_of(count: int, seed: int) -> list[np.ndarray]:
    camera = part("frames").Frames(seed)
    return [camera.next()[0] for _ in range(count)]


def scores_of(frames: list[np.ndarray]) -> np.ndarray:
    """What the FP32 file says, by ONNX Runtime in this process."""
    session = ort.InferenceSession(DIGITS / "models" / "digits-1.0.onnx", providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"frame": frame})[0] for frame in frames])


def interpreters(made_only: bool) -> dict[str, str]:
    """Of each runtime that can be had: where its worker's interpreter is; empty for this one."""
    found = {}
    for runtime in RUNTIMES:
        if not runtime.environment:
            found[runtime.name] = ""
            continue
        try:
            if not made_only:
                runtimes.ready(runtime.environment)
            found[runtime.name] = str(runtimes.interpreter(runtime.environment))
        except runtimes.Missing as missing:
            print(f"  without {runtime.name}: {missing}", flush=True)
    return found


def manifest(folder: Path, chosen: list[Runtime], frames: list[np.ndarray], scores: np.ndarray) -> Path:
    """Of one version with a file for each runtime, beside those files and the golden samples."""
    np.savez(folder / "golden.npz", frame=np.stack(frames), scores=scores)

    for file in ("digits-1.0.onnx", "digits-1.0.tflite"):
        shutil.copyfile(DIGITS / "models" / file, folder / file)
    quantised = onnx.load(str(DIGITS / "models" / "digits-1.1.onnx"))
    onnx.save(part("bytes_first").bytes_first(quantised), str(folder / BYTES_FIRST))

    def entry(file: str) -> dict[str, str]:
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        return {"uri": f"file:{file}", "checksum": f"sha256:{digest}"}

    own = [runtime for runtime in chosen if runtime.environment]
    spec = {
        "model": {**entry("digits-1.0.onnx"), "version": "1.0"},
        "artifacts": [{"accelerator": each.name, **entry(each.file), "golden": dict(each.rule)} for each in own],
        "targets": [each.name for each in chosen],
        "golden": {**entry("golden.npz"), **FLOATS},
        "latency": {"budgetMs": BUDGET_MS},
    }
    path = folder / "digits.yaml"
    document = {"apiVersion": "edge.ai/v1", "kind": "ModelDeployment", "metadata": {"name": "digits"}, "spec": spec}
    path.write_text(json.dumps(document))  # YAML too, without its anchors
    return path


def keep_down(admin: Control, names: list[str], until: threading.Event, killed: list[str]) -> None:
    """SIGKILL these workers as often as they come back, and note whom."""
    while not until.wait(0.02):
        for worker in admin.call("GetAccelerators", control.GetRequest()).accelerators:
            if worker.worker in names and worker.pid and worker.state == "ready":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.worker)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=40, help="that each runtime must give while it is the first one")
    parser.add_argument("--made", action="store_true", help="use environments that are there, and make none")
    options = parser.parse_args()
    where = interpreters(options.made)
    chosen = [runtime for runtime in RUNTIMES if runtime.name in where]
    if options.made and len(chosen) < 2:
        not_here("no environment of another runtime is here: make runtimes")
    verdict = Verdict(f"one deployment on {', '.join(each.name for each in chosen)}")
    frames = frames_of(240, 5)
    scores = scores_of(frames)
    samples = frames_of(SAMPLES, 6)
    workers = [
        {"name": name, "backend": name, **({"python": python} if python else {}), "hangSeconds": 150}
        for name, python in where.items()
    ]
    with scratch() as folder:
        path = manifest(folder, chosen, samples, scores_of(samples))
        with Gateway(folder, {"workers": workers}) as gateway:
            waiting = ("--wait", "--timeout", str(READY_LIMIT))
            applied = gateway.run("apply", "-f", str(path), *waiting, limit=READY_LIMIT + 9)
            verdict.check(applied.returncode == 0, f"apply --wait exits {applied.returncode} {applied.stderr.strip()}")
            if applied.returncode:
                verdict.end()

            def loaded() -> bool:
                return all(target["state"] == "ready" for target in gateway.get("targets", "digits"))

            with contextlib.suppress(TimeoutError):
                wait_for(loaded, READY_LIMIT, "the load on all targets")
            targets = {target["worker"]: target for target in gateway.get("targets", "digits")}
            for each in chosen:
                target = targets[each.name]
                verdict.check(
                    target["state"] == "ready" and target["kind"] == each.kind and bool(target["provenance"]),
                    f"{each.name} has passed the gate with {each.file}: {target['state']}, {target['kind']}, "
                    f"{target['provenance'] or target['reason']}",
                )
            fail_over(gateway, verdict, chosen, options.answers, frames, scores)
    verdict.end()


def fail_over(
    gateway: Gateway, verdict: Verdict, chosen: list[Runtime], wanted: int, frames: list[np.ndarray], scores: np.ndarray
) -> None:
    """Take away the first runtime, then the first two, and so on: each must answer when it is the first one left."""
    admin, killed = Control(gateway.control), list[str]()
    load = Load(gateway.unix, frames, scores)
    try:
        for index, each in enumerate(chosen):
            done = threading.Event()
            down = [above.name for above in chosen[:index]]
            killer = threading.Thread(target=keep_down, args=(admin, down, done, killed))
            killer.start()
            goal = load.count(each.name) + (ANSWERS_OF_AN_EMULATOR if each.kind == "emulator" else wanted)
            try:
                wait_for(lambda name=each.name, goal=goal: load.count(name) >= goal, 150, f"answers of {each.name}")
            except TimeoutError as late:
                verdict.check(False, str(late))
            finally:
                done.set()
                killer.join()
        time.sleep(0.2)
    finally:
        load.end()
    for each in chosen:
        answers = load.answers[each.name]
        if answers:
            right, figure = agreeing(each.rule, answers)
            verdict.check(
                right and load.kinds[each.name] == each.kind,
                f"{each.name} ({load.kinds[each.name]}): {len(answers)} answers with {each.file}, {figure}",
            )
    total = sum(len(answers) for answers in load.answers.values())
    verdict.check(
        not load.failures and len(set(killed)) == len(chosen) - 1,
        f"{len(load.failures)} of {total} requests failed (none) beside {len(killed)} SIGKILLs of "
        f"{', '.join(sorted(set(killed)))}, as often as they came back",
    )
    for failure in load.failures[:3]:
        print(f"         {failure}")


if __name__ == "__main__":
    main()
