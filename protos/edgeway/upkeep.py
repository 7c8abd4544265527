"""Upkeep of a process that answers requests: its garbage is collected, and free memory given back, when it is idle."""

from __future__ import annotations

import gc
from collections.abc import Callable

from edgeway.process import trim

WORTH = 300
"""Objects that a collection can be about; with fewer it is not worth its 50 us. gRPC leaves some 14 a request."""
PRESSING = 1000
"""Objects from which on there is a collection under load too: a process that is never idle must not grow for ever. The
longer it waits, the longer it takes: 0.3 ms for so many, which is once in 70 requests."""
QUIET = 5.0
"""Seconds without a request after which memory is given back: the next request has to fault it in again."""


class Upkeep:
    """Takes the collector of garbage, and the allocator's, off the way of requests.

    Left alone, Python collects whenever so many objects were made, which is in the midst of a request, and once in a
    while looks at all there is: 17 ms for what a start leaves. After ``settle`` nothing of that happens by itself.
    Whoever owns a timer calls ``step``, and says what is going on; a step that has nothing to do takes 1 us.
    """

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        trim: Callable[[], None] = trim,
        count: Callable[[], int] = lambda: gc.get_count()[0],
    ) -> None:
        """``collect()`` and ``trim()`` do the work; ``count()``: objects made since the last collection, net."""
        self._collect = collect
        self._trim = trim
        self._count = count
        self._served = 0
        self._since = 0.0
        """When the number of requests last changed."""
        self._trimmed = 0
        """Number of requests at the last trim."""

    def settle(self) -> None:
        """What is there now stays: it is never looked at again. Called after a start and after a load."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def step(self, now: float, in_flight: int, served: int) -> None:
        """Do what there is time for.

        Args:
            now: monotonic seconds.
            in_flight: requests that wait or run.
            served: requests that have ended since the start of the process.
        """
        made = self._count()
        if in_flight:
            self._since = now
            if made >= PRESSING:
                self._collect()
            return
        if served != self._served:
            self._served, self._since = served, now
        if made >= WORTH:
            self._collect()
        if served != self._trimmed and now - self._since >= QUIET:
            self._trimmed = served
            self._trim()
