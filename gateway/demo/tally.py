"""Counts what the camera saw, and judges it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WITHIN_BUDGET = 0.95
"""Share of the frames that must be answered within the budget."""
ACCURACY_TOLERANCE = 0.02
"""How far the accuracy of some hundred frames may lie from the model's stated one."""


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


def judge(total: Tally, expected_frames: int, stated_accuracy: float) -> Sequence[Check]:
    """The conditions under which the demonstration has shown what it says."""
    failed = len(total.failures)
    first = f": {total.failures[0]}" if failed else ""
    served = {kind: total.kinds[kind] for kind in ("simulated", "cpu")}
    away = abs(total.accuracy - stated_accuracy)
    return (
        Check(failed == 0 and total.frames > 0, f"{failed} of {total.frames} requests failed (none may){first}"),
        Check(
            total.frames >= 0.9 * expected_frames,
            f"{total.frames} of {expected_frames} frames were sent (at least 90 %)",
        ),
        Check(
            all(served.values()),
            f"the simulated accelerator answered {served['simulated']}, the CPU {served['cpu']} (both must)",
        ),
        Check(
            total.in_time >= WITHIN_BUDGET,
            f"{total.in_time:.1%} came within {total.budget_ms:g} ms (at least {WITHIN_BUDGET:.0%})",
        ),
        Check(
            bool(total.waits) and away <= ACCURACY_TOLERANCE,
            f"accuracy {total.accuracy:.1%}, the model's is {stated_accuracy:.1%} (within {ACCURACY_TOLERANCE:.0%})",
        ),
    )
