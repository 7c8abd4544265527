"""Latency histograms of fixed size, from which P50, P95 and P99 are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

GROWTH = 1.02
"""Ratio of neighbouring bucket bounds; a quantile is off by at most 1 %, half a bucket."""
SHORTEST = 1e-6
"""Seconds: lower bound of the first bucket."""
BUCKETS = 1000
"""The last bucket begins at SHORTEST * GROWTH**999, about 390 s."""
WINDOW = 60.0
"""Seconds. Percentiles cover the last one to two windows: an old incident must not hide what is true now."""

_SCALE = 1.0 / math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in seconds over recent answers, and the count of all. Zeros before the first answer."""

    p50: float
    p95: float
    p99: float
    count: int


class Histogram:
    """Counts per logarithmic bucket. Adding costs about 0.5 us."""

    __slots__ = ("count", "counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.count = 0
        self.total = 0.0
        """Sum of all that was added, seconds."""

    def add(self, seconds: float) -> None:
        self.add_to(bucket_of(seconds), seconds)

    def add_to(self, bucket: int, seconds: float) -> None:
        """Add where the bucket is known: two histograms of the same times need one logarithm."""
        self.counts[bucket] += 1
        self.count += 1
        self.total += seconds


def bucket_of(seconds: float) -> int:
    """Position of the bucket that a time belongs to."""
    if seconds <= SHORTEST:
        return 0
    index = int(math.log(seconds / SHORTEST) * _SCALE)
    return index if index < BUCKETS else BUCKETS - 1


def quantile(histograms: list[Histogram], q: float) -> float:
    """Seconds that a share ``q`` of all that was added to the histograms does not exceed; 0 for empty ones."""
    count = sum(histogram.count for histogram in histograms)
    rank, seen = q * count, 0
    for index in range(BUCKETS):
        seen += sum(histogram.counts[index] for histogram in histograms)
        if seen and seen >= rank:
            return float(SHORTEST * GROWTH ** (index + 0.5))
    return 0.0


class RecentLatency:
    """A histogram of the running window and one of the window before."""

    __slots__ = ("_before", "_began", "_now", "count")

    def __init__(self, now: float) -> None:
        self._now, self._before = Histogram(), Histogram()
        self._began = now
        self.count = 0

    def add_to(self, bucket: int, seconds: float, now: float) -> None:
        if now - self._began >= WINDOW:
            self._roll(now)
        self._now.add_to(bucket, seconds)
        self.count += 1

    def read(self, now: float) -> Latency:
        self._roll(now)
        recent = [self._before, self._now]
        return Latency(quantile(recent, 0.5), quantile(recent, 0.95), quantile(recent, 0.99), self.count)

    def _roll(self, now: float) -> None:
        if now - self._began >= WINDOW:
            # Longer silence empties both; the last answers before it stay readable for one window.
            self._before, self._now = self._now, Histogram()
            self._began = now
