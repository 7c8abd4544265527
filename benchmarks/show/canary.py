"""Bad canaries are left within their window, the others' requests don't feel it; a good one on a hot chip stays."""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.harness import Gateway, Verdict, manifest, raising, scaled, scratch, slow_for, wait_for
from edgeway.client import Client, InferenceError, Labels
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control
from gateway.models.manifest_files import load_manifests, to_plain

SERVICE = 0.004
"""Seconds of a run of the good version on the simulated accelerator."""
SLOWER = 10
RATE = 50.0
"""Requests a second: a fifth of what the accelerator does."""
CLASSES = 10
WINDOW = 30.0
"""Seconds, as declared, in which each bad canary must be left."""
DOWN = 3.0
"""Seconds that a new start may take, in which there is no gateway."""
THROTTLED = {"throttled": "[sim]", "throttled-cpu": "[sim, cpu]"}
"""A good canary where both versions stay on the hot accelerator, and where both leave it."""
THROTTLE = 3
"""Times that a throttled accelerator is slower."""


@dataclass(frozen=True)
class Canary:
    """One kind of a version on trial with 10 %."""

    model: Callable[[], onnx.ModelProto]
    rules: str
    """Of the roll-back."""
    traffic: str = "percent: 10"
    labels: bool = False
    failing: int = 0
    """Requests to it that may fail before it is left."""
    budget_ms: float | None = None


CANARIES = {
    "raising": Canary(raising, "autoRollbackOnError: true, errorThreshold: 5", failing=5),
    "slow": Canary(lambda: sluggish(SLOWER * SERVICE), "maxLatencyRatio: 2"),
    "hurried": Canary(lambda: sluggish(SLOWER * SERVICE), "maxLatencyRatio: 2", budget_ms=80),
    "disagreeing": Canary(lambda: scaled(-1.0), "minAgreement: 0.9", "percent: 10, shadow: true"),
    "wrong": Canary(lambda: scaled(-1.0), "minAccuracy: 0.9", labels=True),
}
"""``hurried``: its attempts expire, so that the CPU serves it, if anybody does."""
GOOD = Canary(lambda: scaled(1.0), "autoRollbackOnError: true, errorThreshold: 1, maxLatencyRatio: 2")


def sluggish(seconds: float) -> onnx.ModelProto:
    """y = x of any size, after so many seconds of one core."""
    model = slow_for(seconds)
    for node in model.graph.node:
        node.input[:] = ["peak" if name == "x" else name for name in node.input]
        node.output[:] = ["done" if name == "y" else name for name in node.output]
    zero = numpy_helper.from_array(np.float32(0.0), "naught")
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["peak"], axes=[0], keepdims=1),
        *model.graph.node,
        helper.make_node("Mul", ["done", "naught"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    shape = scaled(1.0).graph
    graph = helper.make_graph(nodes, "graph", shape.input, shape.output, [*model.graph.initializer, zero])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)


@dataclass(frozen=True)
class Sample:
    """One request. Seconds; ``sent`` is monotonic."""

    sent: float
    latency: float
    version: str
    """Empty: it failed."""
    error: str = ""
    run: float = 0.0


@dataclass
class Load:
    """Asks all the time, at a rate, whatever became of the questions before."""

    address: str
    control: str
    labels: bool
    budget_ms: float | None
    samples: list[Sample] = field(default_factory=list)
    _owed: deque[tuple[str, str]] = field(default_factory=deque)
    """(request id, label) that are told half a second later."""
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask)]
        if self.labels:
            self._threads.append(threading.Thread(target=self._tell))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def of(self, version: str, since: float = 0.0, until: float = float("inf")) -> list[Sample]:
        return [s for s in list(self.samples) if s.version == version and since <= s.sent < until]

    def _ask(self) -> None:
        # The deadline lies beyond a new start of the gateway: the client asks again until there is one.
        with Client(self.address, deadline_ms=1e3 * (DOWN + 7)) as client, ThreadPoolExecutor(32) as pool:
            number, began = 0, time.monotonic()
            sent: list[Future[None]] = []
            while not self._end.wait(max(0.0, began + number / RATE - time.monotonic())):
                sent.append(pool.submit(self._one, client, number))
                number += 1
        for each in sent:
            each.result()

    def _one(self, client: Client, number: int) -> None:
        label, sent = number % CLASSES, time.monotonic()
        try:
            found = client.infer("m", {"x": row(label)}, request_id=f"r{number}", budget_ms=self.budget_ms)
        except InferenceError as failed:
            self.samples.append(Sample(sent, time.monotonic() - sent, "", f"{failed.code.name}: {failed}"))
            return
        self.samples.append(Sample(sent, time.monotonic() - sent, found.version, "", found.compute_ms / 1e3))
        self._owed.append((f"r{number}", str(label)))

    def _tell(self) -> None:
        with Labels(self.control) as labels:
            while not self._end.wait(0.5):
                for _ in range(len(self._owed)):
                    try:
                        labels.send("m", *self._owed.popleft())
                    except InferenceError:
                        continue  # another gateway answered it


def row(label: int) -> np.ndarray:
    """Scores of ten classes: of all but the right one, a little."""
    scores = np.full(CLASSES, 0.1, np.float32)
    scores[label] = 1.0
    return scores


def device(faults: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    options = {"serviceMs": SERVICE * 1e3, "faults": list(faults)}
    return {"workers": [{"name": "sim", "backend": "simulated", "options": options}, {"name": "cpu", "backend": "cpu"}]}


def apply(
    gateway: Gateway, folder: Path, label: str, model: onnx.ModelProto, more: str = "", targets: str = "[sim, cpu]"
) -> None:
    """By the control socket: a process for the command line would take the cores that are measured."""
    path = manifest(folder, "m", label, model.SerializeToString(), f"targets: {targets}\n{more}")
    text = json.dumps(to_plain(load_manifests(Path(path))[0]))
    Control(gateway.control).call("Apply", control.ApplyRequest(manifests=[text]))
    wait_for(lambda: state(gateway, label) == "ready", 30, f"version {label}")
    targets = Control(gateway.control)
    wait_for(
        lambda: all(
            not t.reason.startswith("loading") for t in targets.call("GetTargets", control.GetRequest(name="m")).targets
        ),
        30,
        "the load on all targets",
    )


def version(gateway: Gateway, label: str) -> control.VersionStatus:
    """Its status; an empty one where it is not known."""
    answer = Control(gateway.control).call("GetDeployments", control.GetRequest(name="m"))
    found = (v for d in answer.deployments for v in d.versions if v.version == label)
    return next(found, control.VersionStatus())


def state(gateway: Gateway, label: str) -> str:
    return version(gateway, label).state


def left(gateway: Gateway) -> list[str]:
    """What the events say of roll-backs."""
    events = Control(gateway.control).call("GetEvents", control.GetRequest()).events
    return [event.message for event in events if event.kind == "rolled-back"]


def p99(samples: Sequence[Sample]) -> float:
    """Milliseconds."""
    return float(np.percentile([s.latency for s in samples], 99)) * 1e3 if samples else float("nan")


@dataclass(frozen=True)
class Felt:
    """What the others felt of a canary: p99 of their requests, in milliseconds, and one run of the canary."""

    before: float
    beside: float
    run: float

    @property
    def more(self) -> float:
        return self.beside - self.before - self.run


def bad(name: str, killed: bool, seconds: float, verdict: Verdict) -> Felt | None:
    """A bad canary beside the good version; the gateway dies in the middle of its trial, if it is to."""
    kind, title = CANARIES[name], f"{name}, killed in the middle" if killed else name
    with scratch() as folder, Gateway(folder, device()) as gateway:
        apply(gateway, folder, "1", scaled(1.0))
        with Load(gateway.unix, gateway.control, kind.labels, kind.budget_ms) as load:
            began = time.monotonic() + 0.5
            wait_for(lambda: time.monotonic() > began + seconds, seconds + 5, "the time before it")
            calm = load.of("1", began)
            rules = f'previousVersion: "1", errorWindowSeconds: {WINDOW:g}, {kind.rules}'
            apply(gateway, folder, "2", kind.model(), f"rollback: {{{rules}}}\ntraffic: {{{kind.traffic}}}")
            served, missed = time.monotonic(), version(gateway, "1").errors
            if killed:
                kill(gateway, load, served)
            try:
                wait_for(lambda: state(gateway, "2") == "rolledBack", WINDOW + DOWN, "a roll-back")
            except TimeoutError as late:
                verdict.check(False, f"{title}: {late}")
                return None
            took, end = time.monotonic() - served, time.monotonic() + 1.0
            wait_for(lambda: time.monotonic() > end, 5, "a second more")
        reasons, counted = left(gateway), version(gateway, "1").errors
        counted -= 0 if killed else missed  # a new start counts anew
        if killed:
            die(gateway)
            gateway.start()
            reasons = left(gateway)
            verdict.check(state(gateway, "2") == "rolledBack", f"{title}: it stays left after another SIGKILL")
    verdict.check(took <= WINDOW, f"{title}: left after {took:.1f} s ({WINDOW:g}): {reasons[0] if reasons else 'why?'}")
    verdict.check(len(reasons) == 1, f"{title}: {len(reasons)} roll-back in all (1)")
    errors(title, kind, load, counted, kind.failing * (1 + killed), verdict)
    beside = load.of("1", served)
    if killed:
        verdict.control(f"{title}: the others' p99 is {p99(beside):.0f} ms, with those that waited for the new start")
        return None
    run = max(SERVICE * 1e3, median(load.of("2")))
    return Felt(p99(calm), p99(beside), run)


def others(name: str, rounds: Sequence[Felt], slack: float, verdict: Verdict) -> None:
    """What the good version's requests felt, by the median of some rounds: in one, p99 is of a few requests."""
    if rounds:
        felt = sorted(rounds, key=lambda each: each.more)[len(rounds) // 2]
        verdict.check(
            felt.more <= slack,
            f"{name}: the others' p99 is {felt.beside:.1f} ms, it was {felt.before:.1f} ms and one run of the "
            f"canary takes {felt.run:.0f} ms{f' (+ {slack:g} ms)' * (slack > 0)}; median of {len(rounds)}",
        )


def errors(title: str, kind: Canary, load: Load, counted: int, allowed: int, verdict: Verdict) -> None:
    """Requests that failed: the canary's own only."""
    failed = load.of("")
    verdict.check(counted == 0, f"{title}: {counted} of the others' requests failed, as the gateway counts (0)")
    if kind.budget_ms is not None:
        verdict.control(f"{title}: {len(failed)} of the canary's own were given up by their callers, as it is too slow")
        return
    strange = [sample.error for sample in failed if not sample.error.startswith("INTERNAL")]
    verdict.check(
        len(failed) <= allowed and not strange,
        f"{title}: {len(failed)} of {len(load.samples)} failed as callers count, the canary's own ({allowed}) "
        f"{strange[:3] or ''}",
    )


def kill(gateway: Gateway, load: Load, served: float) -> None:
    """SIGKILL when the canary has been asked a few times, and start again."""

    def met() -> bool:
        return len(load.of("2", served)) + len(load.of("", served)) >= 2

    wait_for(met, 10, "requests to the canary")
    die(gateway)
    gateway.start()


def die(gateway: Gateway) -> None:
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    assert gateway.process.stdout is not None
    gateway.process.stdout.close()


def throttled(title: str, targets: str, seconds: float, verdict: Verdict) -> None:
    """A good canary; the accelerator is throttled in the middle of its trial, and no sensor shows it."""
    hot, cool = 4.0 + seconds, 4.0 + 3 * seconds  # the worker's script begins when it is started
    fault = {"at": hot, "slow": THROTTLE, "seconds": cool - hot}
    with scratch() as folder, Gateway(folder, device([fault])) as gateway:
        started = time.monotonic()
        apply(gateway, folder, "1", scaled(1.0), targets=targets)
        rules = f'rollback: {{previousVersion: "1", errorWindowSeconds: {WINDOW:g}, {GOOD.rules}}}'
        with Load(gateway.unix, gateway.control, False, None) as load:
            apply(gateway, folder, "2", GOOD.model(), f"{rules}\ntraffic: {{{GOOD.traffic}}}", targets)
            end = started + cool + seconds
            wait_for(lambda: time.monotonic() > end, cool + seconds + 5, "the end of the throttle")
        reasons, serving = left(gateway), state(gateway, "2")
    before = [median(load.of(label, 0, started + hot - 1)) for label in ("1", "2")]
    during = [median(load.of(label, started + hot + 0.5, started + cool - 0.5)) for label in ("1", "2")]
    verdict.control(
        f"{title}: runs of 1 go from {before[0]:.1f} to {during[0]:.1f} ms, of 2 from {before[1]:.1f} to "
        f"{during[1]:.1f} ms; the limit is 2 x"
    )
    verdict.check(
        (reasons, serving) == ([], "ready"),
        f"{title}: a good canary stays, after {len(load.of('2'))} of its requests: {reasons or 'no roll-back'}",
    )
    failed = len(load.of(""))
    verdict.check(failed == 0, f"{title}: {failed} of {len(load.samples)} requests failed (0)")


def median(samples: Sequence[Sample]) -> float:
    """Milliseconds of a run."""
    return float(np.median([s.run for s in samples])) * 1e3 if samples else 0.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", choices=[*CANARIES, *THROTTLED], action="append")
    arguments.add_argument("--seconds", type=float, default=10.0, help="of calm before each canary")
    arguments.add_argument("--rounds", type=int, default=5, help="of each, for what the others felt")
    arguments.add_argument("--slack", type=float, default=0.0, help="ms that p99 may be beyond, on a busy machine")
    arguments.add_argument("--killed", choices=["both", "yes", "no"], default="both")
    given = arguments.parse_args()
    verdict = Verdict(f"bad versions at 10 % of {RATE:g} requests a second, a fifth of what the accelerator does")
    chosen = given.only or [*CANARIES, *THROTTLED]
    for name in chosen:
        if name in THROTTLED:
            throttled(name, THROTTLED[name], given.seconds / 2, verdict)
            continue
        for killed in (False, True):
            if killed and CANARIES[name].budget_ms is not None:
                continue  # such a budget is shorter than a new start
            if given.killed in ("both", "yes" if killed else "no"):
                rounds = [bad(name, killed, given.seconds, verdict) for _ in range(1 if killed else given.rounds)]
                others(name, [felt for felt in rounds if felt is not None], given.slack, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
