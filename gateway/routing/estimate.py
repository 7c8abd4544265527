"""How long a run takes: the quantiles that ranking, reserves and refusals are built on."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import ceil, inf
from typing import NamedTuple

MOST = 128
"""Runs remembered at most. At hundreds a second the last ones say it all."""
LEAST = 32
"""Runs kept however old they are: an idle target still has an estimate, and one outlier is not its p95."""
MAX_AGE = 3.0
"""Seconds after which a run is forgotten where there are newer ones enough."""
TURN = 5
"""That many runs in a row at the outer end of what the older ones were: the older ones are of another time."""
OUTER = 16
"""One in so many of the older runs is at the outer end, on each side. Five independent runs are there by chance once in
30 000 to 100 000 runs (simulated); all that costs is a window that fills again. With a tenth it is once in 10 000."""
SETTLED = 8
"""Runs from which on the slowest one alone no longer is the p95, and from which a turn can be told."""
ROBUST_UP_TO = 0.95
"""Quantiles that one run alone never decides. Above it, it must: the p99 of a hundred runs is the slowest one."""
BLOCK = 16
"""Newest runs that the service-time ratio looks at, and how often its baseline is looked at."""
FIRST_RUNS = 2 * BLOCK
"""Runs that a baseline is of. Of 16, a quartile is of the wrong one of two equal modes once in 26 times."""
SINKING = 0.1
"""Share of the way that the baseline goes down per block of runs that were faster."""
FORGET_FASTEST = 60.0
"""Seconds in which the fastest time nears a slower present: longer than a burst of load, shorter than a heat wave."""
TICK = 1e-6
"""Least seconds that a baseline counts as: what divides must not be zero."""
ANY_RUN = 50e-6
"""Seconds that a run costs whatever its inputs: calling the runtime."""
MOST_CLASSES = 16
"""Size classes kept, the latest used: from one byte to 128 MB there are 28."""


class Summary(NamedTuple):
    """What ranking asks for of every request, in seconds."""

    p50: float
    p95: float
    p99: float


class RunEstimate:
    """Quantiles of one series of run (or wait) times, in seconds.

    The exact quantiles of the latest runs: at most ``most``, none older than ``max_age`` seconds beyond the newest
    ``least``, and only the newest ``turn`` when these are all at the outer end of the others (0: no such rule).
    Adding costs a few microseconds, as the window is kept sorted; asking is one look into it.
    """

    __slots__ = (
        "_above",
        "_baseline",
        "_below",
        "_changed",
        "_fastest",
        "_learned",
        "_order",
        "_sorted",
        "_summary",
        "least",
        "max_age",
        "most",
        "turn",
    )

    def __init__(self, most: int = MOST, least: int = LEAST, max_age: float = MAX_AGE, turn: int = TURN) -> None:
        self.most = most
        self.least = least
        self.max_age = max_age
        self.turn = turn
        self._order: deque[tuple[float, float]] = deque()
        """(when, seconds), oldest first."""
        self._sorted: list[float] = []
        self._summary: Summary | None = None
        self._below = 0
        self._above = 0
        """How many of the newest runs, in a row, were at the outer end of those before them."""
        self._fastest: float | None = None
        self._changed = 0.0
        self._learned = 0
        """Real runs so far."""
        self._baseline: tuple[float, float] | None = None
        """The quartiles at the target's best."""

    def add(self, seconds: float, now: float) -> None:
        """One measured run. What is no time (negative, infinite, not a number) is passed over."""
        if not 0.0 <= seconds < inf:
            return
        self._append(seconds, now)
        order, ordered = self._order, self._sorted
        while len(order) > self.least and order[0][0] < now - self.max_age:
            del ordered[bisect_left(ordered, order.popleft()[1])]
        low = ordered[len(ordered) // 20]
        if self._fastest is None or low < self._fastest:
            self._fastest = low
        else:
            gone = min(1.0, max(0.0, now - self._changed) / FORGET_FASTEST)
            self._fastest = min(low, self._fastest + gone * (low - self._fastest))
        self._changed = now
        self._learned += 1
        if self._learned % BLOCK == 0 and min(self._learned, len(order)) >= FIRST_RUNS:
            self._rebase()

    def add_at_least(self, seconds: float, now: float) -> None:
        """A run that was given up after so long, so it took at least that. No quantile becomes lower by it.

        As long as any before: a run like others. Else it takes the place of the oldest one that is not longer; where
        all are longer it says nothing new.
        """
        if not 0.0 <= seconds < inf:
            return
        if not self._sorted or seconds >= self._sorted[-1]:
            self._append(seconds, now)
            return
        for index, (_, known) in enumerate(self._order):
            if known <= seconds:
                self._summary = None
                del self._order[index]
                del self._sorted[bisect_left(self._sorted, known)]
                self._order.append((now, seconds))
                insort(self._sorted, seconds)
                self._below = self._above = 0
                return

    def calibrate(self, seconds: Sequence[float], now: float) -> None:
        """Warm-up runs of a process: all that was known is of another one. Empty: nothing is known.

        They are the first estimate, but not the ratio's baseline: they ran on zeros, and without the link.
        """
        self.clear()
        self._fastest = None
        for each in seconds:
            self.add(each, now)
        self._learned, self._baseline = 0, None

    def clear(self) -> None:
        """Forget the runs: they belong to a time that is over. What the target can do at its best stays known."""
        self._order.clear()
        self._sorted.clear()
        self._summary = None
        self._below = self._above = 0

    def quantile(self, q: float) -> float | None:
        """Run time that a next run should not exceed with probability ``q``; None before the first run.

        The k-th smallest of n has k / (n + 1) of all runs below it, on average, whatever their distribution.
        Source: Wilks, Ann. Math. Stat. 12 (1941), on tolerance limits.
        """
        n = len(self._sorted)
        if not n:
            return None
        rank = min(n, max(1, ceil(q * (n + 1))))
        if rank == n >= SETTLED and q <= ROBUST_UP_TO:
            rank -= 1
        return self._sorted[rank - 1]

    def summary(self) -> Summary | None:
        """p50, p95 and p99, looked up once until the next run; None before the first one."""
        if self._summary is None:
            half = self.quantile(0.5)
            if half is not None:
                self._summary = Summary(half, self.quantile(0.95) or half, self.quantile(0.99) or half)
        return self._summary

    @property
    def count(self) -> int:
        """Runs that the quantiles are of."""
        return len(self._sorted)

    @property
    def fastest(self) -> float | None:
        """Seconds that the target takes at its best, forgotten slowly: a budget below it is hopeless."""
        return self._fastest

    def ratio(self) -> float | None:
        """Present run time in units of the target's best; None while too little is known.

        Of the lower and the upper quartile the smaller ratio: heat makes all runs longer, another mix of short and
        long inputs moves only one of the two.
        """
        if self._baseline is None or len(self._order) < TURN:
            return None
        low, high = self._recent(BLOCK)
        return min(low / self._baseline[0], high / self._baseline[1])

    def _append(self, seconds: float, now: float) -> None:
        self._summary = None
        order, ordered = self._order, self._sorted
        turned = self._turned(seconds)
        if len(order) >= self.most:
            del ordered[bisect_left(ordered, order.popleft()[1])]
        order.append((now, seconds))
        insort(ordered, seconds)
        if turned:
            while len(order) > self.turn:
                order.popleft()
            ordered[:] = sorted(each for _, each in order)
            self._below = self._above = 0

    def _turned(self, seconds: float) -> bool:
        """Whether with this run the newest ones are all at the outer end of the older ones, on one side.

        The runs of such a row lie at that end of the sorted window, so the older ones begin right after them.
        """
        ordered = self._sorted
        older = len(ordered) - self._below
        is_below = older >= SETTLED and seconds < ordered[self._below + older // OUTER]
        self._below = self._below + 1 if is_below else 0
        older = len(ordered) - self._above
        is_above = older >= SETTLED and seconds > ordered[-1 - self._above - older // OUTER]
        self._above = self._above + 1 if is_above else 0
        return 0 < self.turn <= max(self._below, self._above)

    def _recent(self, runs: int) -> tuple[float, float]:
        """The quartiles of so many of the newest runs."""
        return _quartiles(sorted(seconds for _, seconds in islice(reversed(self._order), runs)))

    def _rebase(self) -> None:
        """The first real runs are the baseline; later ones only lower it: what was reached once can be again."""
        low, high = self._recent(self._learned)
        own_low, own_high = self._baseline or (low, high)
        self._baseline = own_low + SINKING * min(0.0, low - own_low), own_high + SINKING * min(0.0, high - own_high)

    def __repr__(self) -> str:
        p95, ratio = self.quantile(0.95), self.ratio()
        slower = "" if ratio is None else f", {ratio:.1f} x its best"
        return f"<RunEstimate {self.count} runs, p95 {'unknown' if p95 is None else f'{p95 * 1e3:.2f} ms'}{slower}>"


class Estimates:
    """A RunEstimate per size class: the bit length of the request's input bytes, so that each class spans a factor 2.

    A class without runs answers with the nearest smaller one's times beyond the cost of any run, in proportion; where
    all are larger, with the smallest one's as they are.
    """

    __slots__ = ("_classes", "_latest")

    def __init__(self) -> None:
        self._classes: dict[int, RunEstimate] = {}
        """The least recently used first."""
        self._latest = -1

    def of(self, nbytes: int) -> RunEstimate:
        """The series that a run with so many input bytes is added to."""
        size = nbytes.bit_length()
        if size == self._latest:
            return self._classes[size]
        series = self._classes.pop(size, None) or RunEstimate()
        while len(self._classes) >= MOST_CLASSES:
            del self._classes[next(iter(self._classes))]
        self._classes[size] = series
        self._latest = size
        return series

    def known(self, nbytes: int) -> bool:
        """Whether its class has runs of its own; else a prediction for it is a guess that no run can correct."""
        series = self._classes.get(nbytes.bit_length())
        return series is not None and series.count > 0

    def quantile(self, nbytes: int, q: float) -> float | None:
        """Seconds that a run with so many input bytes should not exceed with probability ``q``; None: nobody knows."""
        size = nbytes.bit_length()
        series = self._classes.get(size)
        if series is not None and series.count:
            return series.quantile(q)
        near = self._nearest(size)
        if near is None:
            return None
        seconds = self._classes[near].quantile(q)
        if seconds is None or near > size:
            return seconds
        return ANY_RUN + max(0.0, seconds - ANY_RUN) * 2.0 ** (size - near)

    def typical(self, q: float) -> float | None:
        """The quantile of the class that was used last, for people; None: nothing is known."""
        series = self._classes.get(self._latest)
        return None if series is None else series.quantile(q)

    def summary(self, nbytes: int) -> Summary | None:
        """The usual quantiles for so many input bytes; None: nobody knows."""
        series = self._classes.get(nbytes.bit_length())
        known = None if series is None else series.summary()
        if known is not None:
            return known
        half = self.quantile(nbytes, 0.5)
        if half is None:
            return None
        return Summary(half, self.quantile(nbytes, 0.95) or half, self.quantile(nbytes, 0.99) or half)

    def fastest(self, nbytes: int) -> float | None:
        """Seconds below which a budget is hopeless; None: nobody knows. Of a class without runs no proportion is
        assumed: a larger input is hardly faster than a smaller one, and that is all.
        """
        size = nbytes.bit_length()
        near = max((each for each, series in self._classes.items() if each <= size and series.fastest), default=None)
        return None if near is None else self._classes[near].fastest

    def calibrate(self, nbytes: int, seconds: Sequence[float], now: float) -> None:
        """Warm-up runs of a process: all that was known, of any size, is of another one."""
        self._classes.clear()
        self._latest = -1
        if seconds:
            self.of(nbytes).calibrate(seconds, now)

    def clear(self) -> None:
        """Forget the runs of every size; what the target can do at its best stays known."""
        for series in self._classes.values():
            series.clear()

    def ratio(self) -> float | None:
        """Of the class used last that knows one."""
        for series in reversed(self._classes.values()):
            ratio = series.ratio()
            if ratio is not None:
                return ratio
        return None

    def _nearest(self, size: int) -> int | None:
        seen = [each for each, series in self._classes.items() if series.count]
        return max((each for each in seen if each < size), default=min(seen, default=None))

    def __repr__(self) -> str:
        sizes = ", ".join(f"<2^{size} B: {self._classes[size]!r}" for size in sorted(self._classes))
        return f"<Estimates {sizes or 'of nothing yet'}>"


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    n = len(ordered)
    return max(TICK, ordered[n // 4]), max(TICK, ordered[3 * n // 4])
