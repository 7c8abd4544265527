"""The policy that ranks: which targets, in which order, and why the better ones were passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.admission.budget import Budget
from gateway.target import Target

RESERVED_SHARE = 0.05
"""Of the remaining budget: kept for the next attempt beyond its p95. A p95 of 0.2 ms says nothing of a core that is
busy for a few milliseconds just when the next target should begin."""


class Ranking(NamedTuple):
    """Usable targets, best first. ``skipped``: name of each target passed over -> the word for why."""

    targets: tuple[Target, ...]
    skipped: dict[str, str]
    feasible: bool
    """Whether one of them should answer in time."""
    soonest: float | None
    """Seconds from now at which the soonest usable target should have answered; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class PreferredInTime:
    """Healthy targets that should answer in time, in the manifest's order; then the rest, soonest first.

    A healthy target whose estimate says no, but is of long ago, counts as in time: one request finds out.
    """

    margin: float = 0.001
    """Seconds of the budget kept back for encoding the reply."""

    def rank(self, targets: Sequence[Target], budget: Budget, now: float, degrade: str) -> Ranking:
        """Order the targets of one version.

        Args:
            targets: in the manifest's order.
            budget: of the request.
            now: monotonic seconds.
            degrade: ``never``: only the first target may serve; ``allow``: any.
        """
        spendable = budget.remaining(now) - self.margin
        skipped: dict[str, str] = {}
        keyed: list[tuple[tuple[bool, bool, float], Target]] = []
        soonest: float | None = None
        feasible = False
        for target in targets if degrade == "allow" else targets[:1]:
            state, reason = target.health(now)
            if not target.accepts_work or reason == "failed":
                skipped[target.name] = reason
                continue
            run = target.estimate.quantile(0.95)
            wait = target.wait()
            expected = wait + (run or 0.0)
            late = expected > spendable
            if run is not None and (soonest is None or expected < soonest):
                soonest = expected
            if state != "ready":
                skipped[target.name] = reason
            elif late:
                skipped[target.name] = "busy" if wait > 0.5 * expected else "slow"
            feasible |= not late
            last = late and not (state == "ready" and target.stale(now))
            keyed.append(((last, state != "ready", expected if last else target.preference), target))
        keyed.sort(key=_key)
        ranked = tuple(target for _, target in keyed)
        if ranked:
            skipped.pop(ranked[0].name, None)
        return Ranking(ranked, skipped, feasible, soonest)


def _key(entry: tuple[tuple[bool, bool, float], Target]) -> tuple[bool, bool, float]:
    return entry[0]


def attempt_time(remaining: float, target: Target, following: Target | None, margin: float) -> float | None:
    """Seconds that an attempt may take so that the next target can still answer; None: no limit but the budget.

    ``remaining - reserve``, the reserve being the next target's wait and p95, the margin, and a share of what is left
    for the delays of a loaded machine. Where the next target can't be in time after this one, half of what is left, or
    half as much again as this target's p95: one that is cut short in its usual time would never answer at all.
    """
    if following is None:
        return None
    own, run = target.estimate.quantile(0.95), following.estimate.quantile(0.95)
    if own is None or run is None:
        return remaining / 2
    limit = remaining * (1 - RESERVED_SHARE) - (following.wait() + run + margin)
    if limit >= own:
        return limit
    patience = max(remaining / 2, 1.5 * own if own <= remaining - margin else 0.0)
    return min(max(limit, patience), remaining)
