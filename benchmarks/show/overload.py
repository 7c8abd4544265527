"""Three times the load that can be served: the high class keeps its budget, the whole its goodput, the queue its bound.

Workers: the simulated accelerator (8 ms a run) and the CPU worker with one instance, where the same model computes for
8 ms. Capacity is what both answer at once, each kept busy by a closed loop of its own, measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from collections.abc import Sequence

import onnx

from benchmarks.chaos import Class, Record, Tally, play
from benchmarks.harness import Verdict, slow_for
from benchmarks.load import PRIORITIES
from benchmarks.rig import Rig, rig, workers

MODEL_SECONDS, BUDGET_MS = 0.008, 100.0
CALLERS = 4
"""Of the closed loop at each worker: one runs, the others wait, so that it never idles."""
HIGH = 0.3
"""Rate of the high class, in capacities."""
LIGHT, HEAVY = 0.7, 3.0
HIGH_SHARE, GOODPUT_SHARE = 0.995, 0.9
LOOK_EVERY = 0.25


def classes(capacity: float, load: float) -> list[Class]:
    """The mix at ``load`` capacities: the high class as ever, or a third; the others share the rest."""
    high = min(HIGH, load / 3)
    rates = {"high": high, "normal": (load - high) / 2, "low": (load - high) / 2}
    return [Class(name, rate * capacity, BUDGET_MS, PRIORITIES[name]) for name, rate in rates.items()]


def goodput(tally: Tally, seconds: float) -> float:
    """Answers in budget per second."""
    return tally.in_budget() / seconds


def measured(on: Rig, model: onnx.ModelProto, seconds: float) -> float:
    """Answers per second of both workers together, neither of them idle."""
    loops = []
    for worker in ("sim", "cpu"):
        on.deploy(f"only-{worker}", model, f"targets: [{worker}]")
        loops.append(Class(worker, 0.0, 1000.0, model=f"only-{worker}", callers=CALLERS))
    return goodput(play(on, loops, seconds), seconds)


class Queue:
    """Looks at the workers' queues during a load: (seconds since its start, waiting or running)."""

    def __init__(self, on: Rig, seconds: float) -> None:
        self.depths: list[tuple[float, int]] = []
        self._on = on
        self._seconds = seconds
        self._never = threading.Event()

    def look(self, began: float) -> None:
        del began
        for number in range(int(self._seconds / LOOK_EVERY)):
            # In flight counts what the gateway has sent, queued what a worker holds: the larger one is the truth.
            depth = sum(max(each.in_flight, each.queue_depth) for each in self._on.accelerators())
            self.depths.append((number * LOOK_EVERY, depth))
            self._never.wait(LOOK_EVERY)

    def deepest(self) -> int:
        return max((depth for _, depth in self.depths), default=0)

    def thirds(self) -> Sequence[float]:
        """Mean depth of the first, second and last third."""
        size = len(self.depths) // 3
        parts = [self.depths[size * third : size * (third + 1)] for third in range(3)]
        return [statistics.mean(depth for _, depth in part) for part in parts]


def judge(tally: Tally, light: float, queue: Queue, capacity: float, seconds: float, verdict: Verdict) -> None:
    high = tally.of("high")
    allowed = max(1, int(len(high.samples) * (1 - HIGH_SHARE)))
    verdict.check(
        high.missed() <= allowed,
        f"high class: {high.share_in_budget():.2%} in budget ({HIGH_SHARE:.1%}: {allowed} of {len(high.samples)} may "
        "miss it)",
    )
    heavy = goodput(tally, seconds)
    verdict.check(
        heavy >= GOODPUT_SHARE * light,
        f"goodput {heavy:.0f}/s, {heavy / light:.2f} of that at {LIGHT:g} x capacity (at least {GOODPUT_SHARE:g})",
    )
    verdict.check(tally.count("failed") == 0, f"{tally.count('failed')} failed otherwise than by refusal (0)")
    # Nobody waits longer than his budget, so no more can wait than come in one budget (Little's law).
    bound = HEAVY * capacity * BUDGET_MS / 1e3
    first, _, last = queue.thirds()
    verdict.check(
        queue.deepest() <= 1.25 * bound and last <= 1.5 * first + 5,
        f"queue: at most {queue.deepest()} waiting or running (as many as come in a budget, {bound:.0f}, and a "
        f"quarter); mean of the first third {first:.1f}, of the last {last:.1f} (not growing)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--light", type=float, default=20.0, help="seconds of each load below capacity")
    parser.add_argument("--no-sweep", action="store_true", help="leave out the sweep from 0.5 to 1.0 x capacity")
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict = Verdict(f"{HEAVY:g} x capacity for {options.seconds:g} s, three classes, budgets of {BUDGET_MS:g} ms")
    spec = "targets: [sim, cpu]\nlatency: {whenInfeasible: reject}"
    device = workers({"serviceMs": MODEL_SECONDS * 1e3})
    model = slow_for(MODEL_SECONDS)
    with rig(device, spec, model, scripted=False) as on:
        capacity = measured(on, model, min(5.0, options.light))
        verdict.control(f"capacity: {capacity:.0f} answers per second, both workers busy")
        play(on, classes(capacity, LIGHT), 1.0)  # the estimates have seen traffic
        points = {}
        for load in (LIGHT,) if options.no_sweep else (0.5, 0.6, LIGHT, 0.8, 0.9, 1.0):
            points[load] = goodput(play(on, classes(capacity, load), options.light), options.light)
        verdict.control("goodput at " + ", ".join(f"{load:g} x {rate:.0f}/s" for load, rate in points.items()))
        queue = Queue(on, options.seconds)
        tally = play(on, classes(capacity, HEAVY), options.seconds, beside=queue.look)
    for line in tally.lines():
        print(f"  {line}")
    Record(options.record).add(f"{HEAVY:g} x capacity", tally)
    judge(tally, points[LIGHT], queue, capacity, options.seconds, verdict)
    if not options.no_sweep:
        best = max(points.values())
        verdict.control(f"aim: {goodput(tally, options.seconds) / best:.2f} of the sweep's best point, {best:.0f}/s")
    verdict.end()


if __name__ == "__main__":
    main()
