"""The accelerator's process is killed every 2 s: no errors, answers in budget, and back in rotation each time."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos import Action, Class, Done, Record, Tally, act, play
from benchmarks.harness import Verdict
from benchmarks.rig import rig, workers

EVERY = 2.0
BACK_MEDIAN_MS, BACK_SLOWEST_MS = 500.0, 1000.0


@dataclass(frozen=True)
class Part:
    title: str
    rate: float
    budget_ms: float
    share: float
    """Least share in budget."""
    p99_ms: float | None = None
    """At most; None: printed only. The same goes for the return: a process that must first fill 1 GB takes its time."""
    resident_mb: int = 0


PARTS = (
    Part("kill", 60.0, 50.0, 0.998, 35.0),
    Part("kill with 1 GB resident", 50.0, 30.0, 0.99, resident_mb=1000),
)


def returns(tally: Tally, kills: Sequence[float]) -> list[float]:
    """Milliseconds from each kill to the first answer of the accelerator to a request sent after it."""
    answers = [(s.sent, s.answered) for s in tally.ordered() if s.target == "sim"]
    first = [min((answered for sent, answered in answers if sent > kill), default=float("inf")) for kill in kills]
    return [(answered - kill) * 1e3 for answered, kill in zip(first, kills, strict=True)]


def show(part: Part, kills: int, verdict: Verdict, record: Record) -> None:
    seconds = EVERY * kills + 1.0
    spec = f"targets: [sim, cpu]\nlatency: {{budgetMs: {part.budget_ms:g}}}"
    done = Done()
    with rig(workers({"residentMB": part.resident_mb}), spec, scripted=False) as on:

        def trouble(began: float) -> None:
            nonlocal done
            done = act(on, [Action("sim", 1.0, EVERY)], began, seconds)

        tally = play(on, [Class("normal", part.rate, part.budget_ms)], seconds, beside=trouble)
    record.add(f"{part.title}: {part.rate:g} requests/s", tally, done.marks)
    print(f"{part.title}, {part.rate:g} requests/s, budget {part.budget_ms:g} ms:")
    for line in tally.lines():
        print(f"  {line}")
    calm = tally.of(until=1.0)
    verdict.control(f"{part.title}: before the first one p99 {calm.percentile(99):.1f} ms")
    allowed = max(1, int(len(tally.samples) * (1 - part.share)))
    verdict.check(
        tally.missed() <= allowed,
        f"{part.title}: {tally.share_in_budget():.2%} in budget ({part.share:.1%}: {allowed} of {len(tally.samples)} "
        "may miss it)",
    )
    verdict.check(tally.errors() == 0, f"{part.title}: {tally.errors()} errors (0)")
    back = returns(tally, [at for at, _ in done.marks])
    verdict.check(
        len(back) == kills and max(back) < float("inf"), f"{part.title}: it answers again after {len(back)} of {kills}"
    )
    if part.p99_ms is None:
        verdict.control(f"{part.title}: p99 {tally.percentile(99):.1f} ms; it answers again after {_median(back)}")
        return
    verdict.check(
        tally.percentile(99) <= part.p99_ms,
        f"{part.title}: p99 {tally.percentile(99):.1f} ms (at most {part.p99_ms:g}, aim 25)",
    )
    verdict.check(
        statistics.median(back) <= BACK_MEDIAN_MS and max(back) <= BACK_SLOWEST_MS,
        f"{part.title}: it answers again after {_median(back)} (at most {BACK_MEDIAN_MS:g} and {BACK_SLOWEST_MS:g})",
    )


def _median(back: Sequence[float]) -> str:
    return f"median {statistics.median(back):.0f} ms, slowest {max(back):.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--only", choices=[part.title for part in PARTS], help="one of the two parts")
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict, record = Verdict(f"accelerator killed every {EVERY:g} s, {options.kills} times"), Record(options.record)
    for part in PARTS:
        if options.only not in (None, part.title):
            continue
        show(part, options.kills, verdict, record)
    verdict.end()


if __name__ == "__main__":
    main()
