"""How long a run takes: the quantile that ranking and reserves are built on."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

WINDOW = 64
"""Runs remembered: two seconds of a 30 Hz camera, so that a change is followed within seconds."""


class RunEstimate:
    """Quantiles over the last ``WINDOW`` run times, in seconds. Adding costs about 1 us: the window is kept sorted."""

    __slots__ = ("_order", "_sorted")

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        if len(self._order) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        self._order.append(seconds)
        insort(self._sorted, seconds)

    def clear(self) -> None:
        """Forget: what was measured belongs to a time that is over."""
        self._order.clear()
        self._sorted.clear()

    def quantile(self, q: float) -> float | None:
        """Smallest run time that at least ``q`` of the window does not exceed; None before the first run."""
        if not self._sorted:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]

    def __repr__(self) -> str:
        p95 = self.quantile(0.95)
        return f"<RunEstimate {len(self._sorted)} runs, p95 {'unknown' if p95 is None else f'{p95 * 1e3:.2f} ms'}>"
