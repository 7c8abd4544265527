"""Adaptive concurrency limit: how much a target may hold, learned from how its times grow with what it holds."""

from __future__ import annotations

from math import inf, isfinite, sqrt

WINDOW_SECONDS = 0.1
"""Least length of a window; also at least as long as its runs take, so that a change has shown before the next one."""
WINDOW_SAMPLES = 8
"""Least runs of a window: the mean of fewer says little."""
TOLERANCE = 2.0
"""Times may grow by this factor over the fastest before the limit sinks: runs vary, and one waiting run is no queue."""
SMOOTHING = 0.5
"""Share of the way that the limit goes per window, so that one window of trouble at most halves it."""
FORGET_MINIMUM = 30.0
"""Seconds in which the fastest time nears a slower present: a chip that throttles has another fastest time. Only
runs that met no queue count for that. Under lasting load all others are slow by our own doing; a minimum that follows
them lets the limit grow, which makes them slower: at three times the load it tripled within a minute."""


class GradientLimit:
    """Runs that one target should hold at once, waiting ones included.

    Per window: ``limit * min(1, TOLERANCE * fastest / mean) + sqrt(limit)``. As long as times do not grow with what is
    in flight the limit goes up by its root; once they do, it comes to rest where the queue is about its root long.
    It only grows while it is used. Begin low: where no run ever met an empty target, the fastest is that of a queue.

    Source: the idea of comparing with the least time is TCP Vegas' (Brakmo and Peterson, 1995).
    """

    __slots__ = (
        "_alone",
        "_count",
        "_fastest",
        "_highest",
        "_limit",
        "_lowest",
        "_minimum",
        "_opened",
        "_peak",
        "_total",
    )

    def __init__(self, initial: int, lowest: int = 1, highest: int = 1024) -> None:
        """``lowest``: the target's instances, as fewer would leave some idle.

        Raises:
            ValueError: the bounds are not in order, or below 1.
        """
        if not 1 <= lowest <= highest:
            raise ValueError(f"1 <= lowest <= highest, found {lowest} and {highest}")
        self._lowest = lowest
        self._highest = highest
        self._limit = float(min(max(initial, lowest), highest))
        self._minimum: float | None = None
        self._opened: float | None = None
        self._count = 0
        self._total = 0.0
        self._fastest = inf
        self._alone = inf
        """Fastest of those that met no queue."""
        self._peak = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    @property
    def minimum(self) -> float | None:
        """Seconds of a run that met no other, as far as is known; None before the first window's end."""
        return self._minimum

    def sample(self, rtt_seconds: float, in_flight: int, now: float) -> None:
        """One run ended or was given up.

        Args:
            rtt_seconds: from its dispatch, its wait included. What is no time (negative, not finite) is passed over.
            in_flight: what the target held, this one included.
            now: monotonic seconds.
        """
        if not (isfinite(rtt_seconds) and rtt_seconds >= 0.0):
            return
        if self._opened is None:
            self._opened = now
        self._count += 1
        self._total += rtt_seconds
        self._fastest = min(self._fastest, rtt_seconds)
        if in_flight <= self._lowest:
            self._alone = min(self._alone, rtt_seconds)
        self._peak = max(self._peak, in_flight)
        mean = self._total / self._count
        if self._count >= WINDOW_SAMPLES and now - self._opened >= max(WINDOW_SECONDS, mean):
            self._end_window(mean, now - self._opened)
            self._opened = now
            self._count, self._total, self._peak = 0, 0.0, 0
            self._fastest = self._alone = inf

    def _end_window(self, mean: float, lasted: float) -> None:
        if self._minimum is None or self._fastest < self._minimum:
            self._minimum = self._fastest
        elif self._alone < inf:
            self._minimum += min(1.0, lasted / FORGET_MINIMUM) * (self._alone - self._minimum)
        gradient = min(1.0, TOLERANCE * self._minimum / mean) if mean > 0 else 1.0
        wanted = self._limit * gradient + sqrt(self._limit)
        if wanted > self._limit and self._peak < self._limit / 2:
            return
        moved = self._limit + SMOOTHING * (wanted - self._limit)
        self._limit = min(max(moved, float(self._lowest)), float(self._highest))

    def __repr__(self) -> str:
        fastest = "unknown" if self._minimum is None else f"{self._minimum * 1e3:.2f} ms"
        return f"<GradientLimit {self.limit} of {self._lowest} to {self._highest}, fastest {fastest}>"
