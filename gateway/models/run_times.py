"""Run times of one version as ratios to another's on the same worker at the same time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from statistics import median

from gateway.models.samples import Sample

MOST_RATIOS = 1000
"""Ratios remembered. The newest say it all."""
EVERY = 0.005
"""Seconds between two runs that are looked at, of one version on one worker: more of them say no more, and each costs
some microseconds."""
NEAR = 5.0
"""Seconds between two runs that count as of the same time."""
NEIGHBOURS = 9
"""Runs of the other version, nearest in time, whose median is what a run is compared with: a stall is one of them."""
LEAST_NEIGHBOURS = 3
SETTLING = 1.0
"""Seconds after which a run is compared: by then the other version has run after it, too, and a device event that is
seen late (a throttle that no sensor shows: within a second) is known."""
AROUND = 2.0
"""Seconds around a device event in which no run is compared with an estimate, which is of another time."""
ALONE_EVERY = 0.5
"""Seconds between two runs that are compared with an estimate: ten of them then span five seconds. Something else that
has the cores for a moment must not look like a slow version where no run of the other one shows it."""
HELD = 4000
"""Runs of one version on one worker that are kept to be compared with, at most."""


@dataclass(slots=True)
class RunTimes:
    """Which of a version's runs took more than ``limit`` times as long as the other version's there and then.

    A run is compared with the median of the other version's nearest ones on its worker: what slows the worker slows
    both. Where there are none near, with the other version's usual run on that worker, unless a device event was near
    on any worker of the deployment. An attempt that expired is compared with what the other's felt there, waiting
    included, and counts only if it was given long enough to be over the limit.
    """

    version: str
    against: str
    limit: float
    window: float
    """Seconds that a ratio counts."""
    over: int = 0
    """Of the ratios, those over the limit."""
    _runs: dict[str, _Runs] = field(default_factory=dict)
    """By worker."""
    _alone: float = -inf
    """When the newest run was that was compared with an estimate."""
    _events: deque[float] = field(default_factory=deque)
    """When device events were near, of late."""
    _ratios: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, ratio), the ratio of an expired attempt being at least that."""

    @property
    def count(self) -> int:
        """Ratios known in the window."""
        return len(self._ratios)

    def typical(self) -> float:
        """The median ratio, of at least one."""
        return median(ratio for _, ratio in self._ratios)

    def take(self, sample: Sample) -> None:
        """A sample of either version; constant time."""
        if not sample.clean and (not self._events or sample.at - self._events[-1] > AROUND / 4):
            self._events.append(sample.at)
        if sample.run is None and not sample.expired:
            return
        runs = self._runs.get(sample.worker)
        if runs is None:
            runs = self._runs[sample.worker] = _Runs()
        runs.take(sample, sample.version == self.version)

    def settle(self, now: float, expected: Mapping[tuple[str, str], float]) -> None:
        """Compare the runs that are old enough, and forget what is too old.

        Args:
            now: monotonic seconds.
            expected: (version, worker) -> seconds of a usual run.
        """
        until = now - SETTLING
        for worker, runs in self._runs.items():
            for sample in runs.due(until):
                ratio = self._ratio(sample, runs.near(sample.at), expected.get((self.against, worker)))
                if ratio is not None and (ratio > self.limit or not sample.expired):
                    self._ratios.append((sample.at, ratio))
                    self.over += ratio > self.limit
        while self._ratios and (self._ratios[0][0] < now - self.window or len(self._ratios) > MOST_RATIOS):
            self.over -= self._ratios.popleft()[1] > self.limit
        while self._events and self._events[0] < until - 2 * AROUND:
            self._events.popleft()

    def _ratio(self, sample: Sample, near: list[Sample], expected: float | None) -> float | None:
        """None: there is nothing that it can be compared with."""
        took = sample.felt if sample.expired else sample.run
        other: float | None = None
        if len(near) >= LEAST_NEIGHBOURS:
            other = median(_felt(each) if sample.expired or each.run is None else each.run for each in near)
        elif not sample.expired and self._calm(sample.at) and sample.at - self._alone >= ALONE_EVERY:
            other, self._alone = expected, sample.at
        return took / other if took is not None and other else None

    def _calm(self, at: float) -> bool:
        """Whether no device event was near."""
        return not any(abs(event - at) <= AROUND for event in self._events)


@dataclass(slots=True)
class _Runs:
    """Runs of both versions on one worker, of the last seconds, oldest first."""

    own: deque[Sample] = field(default_factory=lambda: deque(maxlen=HELD))
    """Not yet compared."""
    others: list[Sample] = field(default_factory=list)

    def take(self, sample: Sample, own: bool) -> None:
        runs = self.own if own else self.others
        if runs and 0 <= sample.at - runs[-1].at < EVERY:
            return
        runs.append(sample)
        if not own and len(self.others) > HELD:
            del self.others[: HELD // 2]

    def due(self, until: float) -> list[Sample]:
        """The version's runs until then, which are compared once."""
        due = []
        while self.own and self.own[0].at <= until:
            due.append(self.own.popleft())
        del self.others[: bisect_left(self.others, until - 2 * NEAR, key=_when)]
        return due

    def near(self, at: float) -> list[Sample]:
        """The other version's runs that are nearest in time."""
        middle = bisect_left(self.others, at, key=_when)
        around = self.others[max(0, middle - NEIGHBOURS) : middle + NEIGHBOURS]
        near = [each for each in around if abs(each.at - at) <= NEAR]
        return sorted(near, key=lambda each: abs(each.at - at))[:NEIGHBOURS]


def _when(sample: Sample) -> float:
    return sample.at


def _felt(sample: Sample) -> float:
    return sample.felt or sample.run or 0.0
