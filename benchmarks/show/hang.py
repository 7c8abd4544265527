"""A hung accelerator, by SIGSTOP and inside a run: answers stay in budget, and it comes back without an operator."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time

from benchmarks.chaos import Class, Record, Tally, play, until
from benchmarks.harness import Verdict
from benchmarks.rig import Rig, rig, workers

RATE, BUDGET_MS = 50.0, 20.0
LATEST_MS = 60.0
SIGSTOP, INSIDE = "SIGSTOP", "hang inside the run call"


def watch(on: Rig, old: int, hung_at: float, seconds: float) -> list[float]:
    """Seconds from the hang until another process is ready; empty: none was."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        while not stop.wait(0.05):
            now = on.accelerator()
            if now.pid not in (0, old) and now.state == "ready":
                return [now.since - hung_at]
    finally:
        timer.cancel()
    return []


def show(how: str, before: float, seconds: float, hang: float, verdict: Verdict, record: Record) -> None:
    faults = [] if how == SIGSTOP else [{"at": before, "hang": True, "seconds": hang}]
    back: list[float] = []
    marks = [(before, "hangs")]
    with rig(workers({"faults": faults}), f"targets: [sim, cpu]\nlatency: {{budgetMs: {BUDGET_MS:g}}}") as on:
        old = on.accelerator().pid

        def trouble(began: float) -> None:
            until(began + before)
            if how == SIGSTOP:
                os.kill(old, signal.SIGSTOP)
            back.extend(watch(on, old, _wall(began + before), seconds))

        tally = play(on, [Class("normal", RATE, BUDGET_MS)], before + seconds, beside=trouble)
    marks += [(before + at, "another process is ready") for at in back]
    record.add(f"{how}: {RATE:g} requests/s", tally, marks)
    judge(how, tally, before, seconds, back, verdict)


def _wall(moment: float) -> float:
    """The wall clock's seconds at a moment of the monotonic clock."""
    return time.time() - time.monotonic() + moment


def judge(how: str, tally: Tally, hung_at: float, seconds: float, back: list[float], verdict: Verdict) -> None:
    after = tally.of(since=hung_at)
    first = after.ordered()[:10]
    second = after.of(until=hung_at + 1.0)
    print(f"{how}:")
    for line in tally.lines():
        print(f"  {line}")
    verdict.control(f"{how}: before it {tally.of(until=hung_at).share_in_budget():.1%} in budget")
    allowed = max(1, int(0.01 * len(after.samples)))
    verdict.check(
        after.missed() <= allowed,
        f"{how}: {after.share_in_budget():.2%} in budget (99 %: {allowed} of {len(after.samples)} may miss it)",
    )
    verdict.check(sum(s.in_budget for s in first) >= 9, f"{how}: {sum(s.in_budget for s in first)} of the first 10 (9)")
    verdict.check(second.share_in_budget() >= 0.95, f"{how}: {second.share_in_budget():.1%} of the first second (95 %)")
    verdict.check(after.slowest() <= LATEST_MS, f"{how}: slowest {after.slowest():.0f} ms (at most {LATEST_MS:g})")
    verdict.check(after.count("failed") == 0, f"{how}: {after.count('failed')} failed otherwise than by the budget (0)")
    serving = tally.of(since=hung_at + seconds - min(3.0, seconds / 4))
    again = sum(s.target == "sim" for s in serving.samples)
    verdict.check(
        bool(back) and again > len(serving.samples) / 2,
        f"{how}: another process ready after {back[0] if back else float('nan'):.1f} s; "
        f"{again} of the last {len(serving.samples)} served by it (more than half)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=float, default=3.0, help="seconds of load before the hang")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load after the hang began")
    parser.add_argument("--hang", type=float, default=10.0, help="seconds that the hang inside the run lasts")
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict = Verdict(f"accelerator hangs for {options.hang:g} s, {RATE:g} requests/s, budget {BUDGET_MS:g} ms")
    record = Record(options.record)
    for how in (SIGSTOP, INSIDE):
        show(how, options.before, options.seconds, options.hang, verdict, record)
    verdict.end()


if __name__ == "__main__":
    main()
