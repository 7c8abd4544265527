"""Deadlines of runs under way: one timer for all of a link, set for the earliest."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Container

_TOLERATED = 64
"""Entries of runs that were answered: kept up to as many again as are under way, and these."""

RESOLUTION = 0.001
"""Seconds: the loop waits in whole milliseconds, rounded up. A run expires up to so much before its time rather than
after it: of a budget of 20 ms, each counts."""


class Expiry:
    """Tells which runs have outlived their time. A timer per run would cost 6 us of a small request's 100."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, under_way: Container[int], expire: Callable[[int], None]
    ) -> None:
        """Args:
        loop: its timers and its clock.
        under_way: numbers of the runs that have no answer yet.
        expire: called with the number of each run that is under way when its time is over.
        """
        self._loop = loop
        self._under_way = under_way
        self._expire = expire
        self._times: list[tuple[float, int]] = []
        self._alarm: asyncio.TimerHandle | None = None

    def watch(self, number: int, until: float, runs: int) -> None:
        """Expire the run at ``until`` (loop time); ``runs`` are under way in all."""
        if len(self._times) > 2 * runs + _TOLERATED:
            self._times = [entry for entry in self._times if entry[1] in self._under_way]
            heapq.heapify(self._times)
        heapq.heappush(self._times, (until, number))
        if self._alarm is None or until - RESOLUTION < self._alarm.when():
            self._set()

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._times.clear()

    def _set(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._times[0][0] - RESOLUTION, self._ring) if self._times else None

    def _ring(self) -> None:
        now = self._loop.time() + RESOLUTION
        self._alarm = None
        while self._times and (self._times[0][0] <= now or self._times[0][1] not in self._under_way):
            _, number = heapq.heappop(self._times)
            if number in self._under_way:
                self._expire(number)
        self._set()
