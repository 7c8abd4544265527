"""Pacing: what an attempt may take of a budget, and how many requests may be started twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.routing.policy import attempt_time, may_hedge


class Journal(Protocol):
    """Takes each decision with all that it was made of."""

    def timed(
        self,
        remaining: float,
        total: float,
        own: float | None,
        wait: float,
        run: float | None,
        margin: float,
        limit: float,
    ) -> None: ...

    def hedged(self, hedged: int, walking: int, share: float, floor: int, allowed: bool) -> None: ...


@dataclass(slots=True)
class Pacing:
    """Asks the policy, and keeps the count that it needs; tells the journal what was decided."""

    margin: float
    """Seconds of a budget kept back for the reply."""
    retry_share: float
    """Of the requests in flight: those that may be started twice while their first target is believed healthy."""
    retry_floor: int
    journal: Journal | None = None
    walking: int = 0
    """Requests in dispatch."""
    hedged: int = 0
    """Of them: those with an attempt started beside one on a target that was believed healthy."""

    def hedge(self) -> bool:
        """Count one more request as doubled, if that may be; it is taken off when it ends."""
        allowed = may_hedge(self.hedged, self.walking, self.retry_share, self.retry_floor)
        if self.journal is not None:
            self.journal.hedged(self.hedged, self.walking, self.retry_share, self.retry_floor, allowed)
        self.hedged += allowed
        return allowed

    def attempt_time(self, remaining: float, total: float, own: float | None, wait: float, run: float | None) -> float:
        """Seconds that an attempt gets, see ``routing.policy``."""
        limit = attempt_time(remaining, total, own, wait, run, self.margin)
        if self.journal is not None:
            self.journal.timed(remaining, total, own, wait, run, self.margin, limit)
        return limit
