"""Counts what the camera saw, and judges it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.demo.scenario import Expect, Served

SENT = 0.9
"""Share of its frames that the camera must have sent: a machine too slow for that shows nothing."""


@dataclass(slots=True)
class Tally:
    """Figures of one stretch of frames."""

    budget_ms: float
    frames: int = 0
    right: int = 0
    late: int = 0
    failures: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    """Answers by kind: ``simulated``, ``cpu``."""
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        """Take one line of the camera."""
        self.frames += 1
        if "error" in line:
            self.failures.append(str(line["error"]))
            return
        self.waits.append(line["ms"])
        self.late += line["ms"] > self.budget_ms
        self.right += line["digit"] == line["label"]
        self.kinds[line["kind"]] += 1
        if line["reason"]:
            self.reasons[line["reason"]] += 1

    def quantile(self, share: float) -> float | None:
        """Milliseconds that the caller waited; None without answers."""
        if not self.waits:
            return None
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def accuracy(self) -> float:
        return self.right / len(self.waits) if self.waits else 0.0

    @property
    def in_time(self) -> float:
        return (len(self.waits) - self.late) / self.frames if self.frames else 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of success. ``figure`` says what was found and what was asked."""

    passed: bool
    figure: str


def judge(
    expect: Expect, total: Tally, phases: Mapping[str, Tally], expected_frames: int, stated_accuracy: float
) -> Sequence[Check]:
    """The conditions under which the scenario has shown what it says. ``phases``: by name."""
    failed = len(total.failures)
    first = f": {total.failures[0]}" if failed else ""
    may = f"at most {expect.failed_percent:g} %" if expect.failed_percent else "none may"
    away = abs(total.accuracy - stated_accuracy) * 100
    within = f"within {expect.accuracy_within_percent:g} %"
    return (
        Check(
            total.frames > 0 and failed * 100 <= expect.failed_percent * total.frames,
            f"{failed} of {total.frames} requests failed ({may}){first}",
        ),
        Check(
            total.frames >= SENT * expected_frames,
            f"{total.frames} of {expected_frames} frames were sent (at least {SENT:.0%})",
        ),
        Check(
            all(total.kinds[kind] for kind in expect.kinds),
            f"the simulated accelerator answered {total.kinds['simulated']}, the CPU {total.kinds['cpu']}"
            f" ({'both' if len(expect.kinds) > 1 else ' '.join(expect.kinds) or 'none'} must)",
        ),
        Check(
            total.in_time * 100 >= expect.in_budget_percent,
            f"{total.in_time:.1%} came within {total.budget_ms:g} ms (at least {expect.in_budget_percent:g}%)",
        ),
        Check(
            bool(total.waits) and away <= expect.accuracy_within_percent,
            f"accuracy {total.accuracy:.1%}, the model's is {stated_accuracy:.1%} ({within})",
        ),
        *(_served(served, phases.get(served.phase or "", total)) for served in expect.served),
    )


def _served(served: Served, tally: Tally) -> Check:
    share = 100 * tally.kinds[served.kind] / len(tally.waits) if tally.waits else 0.0
    who = "the CPU" if served.kind == "cpu" else "the simulated accelerator"
    where = f" in phase {served.phase}" if served.phase else ""
    asked = []
    if served.at_least_percent > 0:
        asked.append(f"at least {served.at_least_percent:g} %")
    if served.at_most_percent < 100:
        asked.append(f"at most {served.at_most_percent:g} %")
    return Check(
        bool(tally.waits) and served.at_least_percent <= share <= served.at_most_percent,
        f"{who} answered {share:.1f} %{where} ({', '.join(asked) or 'any share'})",
    )
