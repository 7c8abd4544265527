"""A budget that nobody can meet is refused at once, no worker sees it, and feasible traffic does not feel it."""

from __future__ import annotations

import argparse
import statistics
import time
import urllib.request

import numpy as np

from benchmarks.chaos import Class, Record, Tally, play
from benchmarks.harness import Verdict, slow_for, wait_for
from benchmarks.rig import Caller, Rig, processor_seconds, rig, workers
from edgeway import parameters as names
from edgeway.v1 import open_inference_pb2 as oip

MODEL_SECONDS = 0.005
INFEASIBLE = Class("infeasible", 100.0, 1.0)
FEASIBLE = Class("feasible", 60.0, 100.0)
LIVE_PLUS_MS, GATEWAY_MS = 1.5, 1.0
FACTOR, PLUS_MS = 1.5, 2.0
SETTLE_LIMIT = 5.0
"""Seconds that the gateway gets to count what it has answered."""


def attempts(on: Rig) -> float:
    """Tries on any target since the gateway began, by its metrics."""
    with urllib.request.urlopen(f"http://{on.gateway.ready['metrics']}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("edgeway_attempts_total"))


def executions(caller: Caller) -> int:
    """Of the model, by the protocol's own statistics."""
    answer = caller.ask("ModelStatistics", oip.ModelStatisticsRequest(name="m"))
    return sum(stats.execution_count for stats in answer.model_stats)


def worked(on: Rig) -> float:
    """Processor seconds of both workers."""
    return sum(processor_seconds(worker.pid) for worker in on.accelerators())


def facts(error: object) -> dict[str, int]:
    """Numbers in the trailing metadata."""
    return {key: int(value) for key, value in error.trailing_metadata() if value.isdigit()}  # type: ignore[attr-defined]


def refusals(on: Rig, count: int, verdict: Verdict) -> None:
    message = INFEASIBLE.message()
    live, refused, inside, least = [], [], [], []
    answered = 0
    with Caller(on.gateway.unix) as caller:
        warm = sum(caller.infer(FEASIBLE.message())[2] is None for _ in range(30))
        wait_for(lambda: attempts(on) >= warm, SETTLE_LIMIT, "the record of the warm-up")  # it comes after the answers
        before = attempts(on), executions(caller), worked(on)
        for _ in range(count):
            live.append(caller.live() * 1e3)
            took, _, error = caller.infer(message)
            refused.append(took * 1e3)
            answered += error is None
            if error is not None:
                told = facts(error)
                inside.append(told.get(names.metadata_key(names.TOTAL_US), 10**9) / 1e3)
                least += [told[key] for key in (names.metadata_key(names.MIN_BUDGET_US),) if key in told]
        time.sleep(0.2)  # the same here, where no count says when it is complete
        after = attempts(on), executions(caller), worked(on)
        served = [_with_least_budget(caller, message) for _ in range(20)]
    limit = statistics.median(live) + LIVE_PLUS_MS
    verdict.check(answered == 0, f"{count - answered} of {count} refused")
    verdict.control(f"empty ServerLive call p50 {statistics.median(live):.2f} ms")
    verdict.check(
        statistics.median(refused) <= limit, f"refusal p50 {statistics.median(refused):.2f} ms (at most {limit:.2f})"
    )
    slowest = float(np.percentile(inside, 99)) if inside else float("nan")
    verdict.check(slowest < GATEWAY_MS, f"gateway's time p99 {slowest:.3f} ms (below {GATEWAY_MS:g})")
    tries, runs, busy = (b - a for a, b in zip(before, after, strict=True))
    needed = count * MODEL_SECONDS
    verdict.check(
        tries == 0 and runs == 0 and busy < 0.1 * needed,
        f"worker executions: {tries:.0f} attempts, {runs} by the statistics (0), and {busy:.2f} s of the workers' "
        f"processors, where running them takes {needed:.1f} s",
    )
    verdict.check(
        len(least) == count and sum(served) >= 18,
        f"{len(least)} of {count} name the least budget; with it and 1 ms more, asked at once, {sum(served)} of 20 "
        "are served (18)",
    )


def _with_least_budget(caller: Caller, message: bytes) -> bool:
    """Whether a request with the budget that a refusal names, and 1 ms more, is served."""
    _, _, error = caller.infer(message)
    if error is None:
        return False
    least = facts(error).get(names.metadata_key(names.MIN_BUDGET_US), 0) / 1e3
    _, _, again = caller.infer(Class("again", 0.0, least + 1.0).message())
    return again is None


def beside(on: Rig, pairs: int, window: float, verdict: Verdict, record: Record) -> None:
    """Calm and loaded stretches in turn."""
    loaded = tuple((window * (2 * pair + 1), window * (2 * pair + 2)) for pair in range(pairs))
    infeasible = Class(INFEASIBLE.name, INFEASIBLE.rate, INFEASIBLE.budget_ms, windows=loaded)
    tally = play(on, [FEASIBLE, infeasible], 2 * window * pairs)
    record.add("100 refusals per second beside it, in turns", tally, [(at, "refusals") for at, _ in loaded])
    for line in tally.lines():
        print(f"  {line}")
    feasible = tally.of("feasible")
    calm = [_p99(feasible, start - window, start) for start, _ in loaded]
    busy = [_p99(feasible, start, end) for start, end in loaded]
    bound = FACTOR * statistics.median(calm) + PLUS_MS
    verdict.control(f"{pairs} calm stretches of {window:g} s: median of their p99 {statistics.median(calm):.1f} ms")
    verdict.check(
        statistics.median(busy) <= bound,
        f"with {INFEASIBLE.rate:g} refusals per second beside it: {statistics.median(busy):.1f} ms "
        f"(at most {bound:.1f}); {len(feasible.samples)} samples",
    )
    refused = tally.of("infeasible")
    verdict.check(
        refused.errors() == len(refused.samples), f"{refused.errors()} of {len(refused.samples)} of these refused (all)"
    )


def _p99(tally: Tally, since: float, until: float) -> float:
    return tally.of(since=since, until=until).percentile(99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="refusals, one after the other")
    parser.add_argument("--pairs", type=int, default=5, help="of a calm and a loaded stretch")
    parser.add_argument("--window", type=float, default=8.0, help="seconds of a stretch")
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict = Verdict("a budget of 1 ms on a model of 5 ms, whenInfeasible: reject")
    spec = "targets: [sim, cpu]\nlatency: {whenInfeasible: reject}"
    device = workers({"serviceMs": MODEL_SECONDS * 1e3})
    flags = ["--metrics", "127.0.0.1:0"]
    with rig(device, spec, slow_for(MODEL_SECONDS), flags, scripted=False) as on:
        refusals(on, options.count, verdict)
        beside(on, options.pairs, options.window, verdict, Record(options.record))
    verdict.end()


if __name__ == "__main__":
    main()
