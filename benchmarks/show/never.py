"""``degrade=never`` is served by the first choice or not at all, and what answers say of their time adds up."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

from benchmarks.chaos import Action, Class, Record, Tally, act, play
from benchmarks.harness import Verdict, identity
from benchmarks.rig import Caller, Rig, rig, workers
from edgeway import parameters as names
from edgeway.v1 import open_inference_pb2 as oip

RATE, BUDGET_MS = 40.0, 40.0
PHASES = ("calm", "kill", "error", "busy", "slow", "hang")
PLUS_MS = 0.7


def device(phase: float) -> dict[str, object]:
    """Each trouble takes the first half of its phase; the second is for coming back."""
    begin = {name: number * phase for number, name in enumerate(PHASES)}
    half = phase / 2
    options = {
        "faults": [
            {"at": begin["error"], "error": True, "seconds": half},
            {"at": begin["slow"], "slow": 20, "seconds": half},
            {"at": begin["hang"], "hang": True, "seconds": half},
        ],
        "queue": [{"at": begin["busy"], "seconds": half, "backlogMs": 80}],
    }
    return workers(options, hangSeconds=0.5)


def scenarios(phase: float, verdict: Verdict, record: Record) -> None:
    seconds = phase * len(PHASES) + 1.0
    allowed = Class("allow", RATE, BUDGET_MS)
    asked = [allowed, replace(allowed, name="never", degrade="never")]
    with rig(device(phase)) as on:
        tally = play(on, asked, seconds, beside=lambda began: void(act(on, [Action("sim", phase)], began, seconds)))
    marks = [(number * phase, name) for number, name in enumerate(PHASES) if number]
    record.add("degrade", tally, marks)
    for line in tally.lines():
        print(f"  {line}")
    for number, name in enumerate(PHASES):
        part = tally.of(since=number * phase, until=(number + 1) * phase)
        judge(name, part, verdict)
    elsewhere = [s for s in tally.of("never").samples if s.outcome == "served" and (s.target != "sim" or s.degraded)]
    verdict.check(not elsewhere, f"never: {len(elsewhere)} answers of another than the first choice (0)")
    truth(tally, verdict)


def void(_: object) -> None:
    """For a lambda whose value nobody wants."""


def judge(name: str, part: Tally, verdict: Verdict) -> None:
    never, allowed = part.of("never"), part.of("allow")
    elsewhere = sum(s.outcome == "served" and s.target != "sim" for s in never.samples)
    others = sum(s.outcome == "served" and s.target != "sim" for s in allowed.samples)
    verdict.check(
        elsewhere == 0 and (name == "calm" or others > 0),
        f"{name}: never {never.count('served')} served, {never.errors()} refused or late, {elsewhere} elsewhere (0); "
        f"control: {others} of {len(allowed.samples)} others were served elsewhere"
        + ("" if name == "calm" else " (some)"),
    )


def truth(tally: Tally, verdict: Verdict) -> None:
    """What the answers say of themselves."""
    served = [s for s in tally.samples if s.outcome == "served"]
    lacking = [s.missing for s in served if s.missing]
    verdict.check(
        not lacking, f"{len(lacking)} of {len(served)} answers lack a parameter of the contract (0) {lacking[:1] or ''}"
    )
    wrong = [s for s in served if not s.queue + s.compute <= s.total + 2e-6 or s.total > s.latency]
    verdict.check(
        not wrong,
        f"queue + compute <= total <= the caller's time in all but {len(wrong)} of {len(served)} (0)"
        + "".join(f" {s.queue * 1e3:.3f} + {s.compute * 1e3:.3f}, {s.total * 1e3:.3f}" for s in wrong[:1]),
    )


def overhead(on: Rig, calls: int, verdict: Verdict) -> None:
    """What the way to the gateway and back takes beyond the gateway's own time, against an empty call."""
    message = Class("tiny", 0.0, 1000.0, model="tiny", values=(1.0,) * 16).message()
    live, beyond = [], []
    with Caller(on.gateway.unix) as caller:
        for number in range(calls + 20):
            empty = caller.live()
            wall, answer, error = caller.infer(message)
            if error is not None:
                raise error
            total = oip.ModelInferResponse.FromString(answer).parameters[names.TOTAL_US].int64_param / 1e6
            if number >= 20:  # the code is warm
                live.append(empty * 1e3)
                beyond.append((wall - total) * 1e3)
    limit = statistics.median(live) + PLUS_MS
    verdict.control(f"empty ServerLive call: median {statistics.median(live):.2f} ms")
    verdict.check(
        statistics.median(beyond) <= limit,
        f"64-byte tensor: the caller's time beyond the gateway's, median {statistics.median(beyond):.2f} ms "
        f"(at most {limit:.2f}); {calls} calls",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phase", type=float, default=6.0, help="seconds of each trouble and the return from it")
    parser.add_argument("--calls", type=int, default=2000, help="with a 64-byte tensor")
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict = Verdict(f"degrade=never through {', '.join(PHASES[1:])}; what answers say of their time")
    scenarios(options.phase, verdict, Record(options.record))
    with rig(workers(), "targets: [cpu]", scripted=False) as on:
        on.deploy("tiny", identity(shape=[16]), "targets: [cpu]")
        overhead(on, options.calls, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
