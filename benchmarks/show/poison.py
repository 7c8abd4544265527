"""A request that kills whoever runs it takes two processes, never a third; others do not notice."""

from __future__ import annotations

import argparse
import threading

from benchmarks.chaos import Class, Record, play, until
from benchmarks.harness import Verdict, poisonable, slow_for
from benchmarks.rig import COMPUTE_SECONDS, Caller, Rig, rig, workers

AT = 1.0
"""Seconds after the load's start at which the poison comes."""
DEATHS = 2
SAME = Class("same", 30.0, 500.0, values=(1.0,), datatype="INT32")
OTHER = Class("other", 30.0, 500.0, model="other")
POISON = Class("poison", 0.0, 2000.0, values=(-1.0,), datatype="INT32")


def deaths(on: Rig) -> list[str]:
    """What died since the gateway began, disposable processes too."""
    return [f"{event.worker}: {event.message}" for event in on.events("worker-died")]


def processes(on: Rig) -> int:
    """Deaths by another witness: processes of workers that had to be replaced."""
    return sum(worker.restarts for worker in on.accelerators())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", type=int, default=20, help="times that the caller sends it again")
    parser.add_argument("--seconds", type=float, default=12.0, help="of other traffic")
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict = Verdict(f"a request that kills its worker, sent {1 + options.again} times")
    first: list[str] = []
    codes: list[str] = []
    seen: list[tuple[int, int]] = []
    marks: list[tuple[float, str]] = []
    pause = (options.seconds - AT - 2.0) / max(1, options.again)
    with rig(workers(), "targets: [sim, cpu]", poisonable(), scripted=False) as on:
        on.deploy("other", slow_for(COMPUTE_SECONDS), "targets: [sim, cpu]")

        def trouble(began: float) -> None:
            until(began + AT)
            never = threading.Event()
            with Caller(on.gateway.unix) as caller:
                for number in range(1 + options.again):
                    took, _, error = caller.infer(POISON.message())
                    codes.append("OK" if error is None else error.code().name)
                    if not number:
                        marks.append((AT, "poison"))
                        first.append(f"after {took * 1e3:.0f} ms: {'' if error is None else error.details()}")
                        never.wait(0.5)  # the second death has been told
                        seen.append((len(deaths(on)), processes(on)))
                    never.wait(pause)

        tally = play(on, [SAME, OTHER], options.seconds, beside=trouble)
        died, replaced = deaths(on), processes(on)
        with Caller(on.gateway.unix) as caller:
            _, _, error = caller.infer(Class("control", 0.0, 500.0, values=(2.0,), datatype="INT32").message())
    Record(options.record).add("poison at 1 s, sent again and again", tally, marks)
    for line in tally.lines():
        print(f"  {line}")
    for each in died:
        print(f"  died: {each}")
    verdict.check(codes[0] == "INTERNAL", f"its caller gets {codes[0]} (INTERNAL) {first[0]}")
    verdict.check(
        seen[0][0] == DEATHS and seen[0][1] <= DEATHS,
        f"{seen[0][0]} deaths by the events (exactly {DEATHS}), {seen[0][1]} processes of workers replaced",
    )
    verdict.check(
        len(died) == seen[0][0] and replaced == seen[0][1] and set(codes[1:]) <= {"INTERNAL"},
        f"sent {options.again} times more: {len(died) - seen[0][0]} further deaths (none), "
        f"answers {sorted(set(codes[1:]))} (INTERNAL)",
    )
    for name, what in (("same", "the same model"), ("other", "another model")):
        part = tally.of(name)
        verdict.check(part.errors() == 0, f"{what}: {part.errors()} of {len(part.samples)} requests failed (0)")
    verdict.control(
        f"the same model with another value: {'served' if error is None else error.code().name}; p99 of all others "
        f"{tally.percentile(99):.1f} ms"
    )
    verdict.check(error is None, "the model itself still serves")
    verdict.end()


if __name__ == "__main__":
    main()
