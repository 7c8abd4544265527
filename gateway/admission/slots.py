"""Bounded concurrency: how many requests of each class, and how many of their bytes, may be in the gateway at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from gateway.errors import EdgewayError, Shed

CLASSES = ("high", "normal", "low")
PRIORITIES_PER_CLASS = 3


class ClassLimits(NamedTuple):
    """Requests that each class may have in flight."""

    high: int
    normal: int
    low: int


def class_of(priority: int) -> int:
    """0 high (priorities 1-3), 1 normal (4-6), 2 low (7-9)."""
    return (priority - 1) // PRIORITIES_PER_CLASS


def class_limits(max_requests: int, high: int, normal: int, low: int) -> ClassLimits:
    """From percents of ``max_requests``, each rounded up: a small limit leaves every class a place."""
    return ClassLimits(*(-(-max_requests * percent // 100) for percent in (high, normal, low)))


class Place(Struct, eq=False):
    """One request's place. ``evict`` ends the request, unless a worker has begun it; whether it did."""

    which: int
    """Its class: 0 high, 1 normal, 2 low."""
    nbytes: int
    evict: Callable[[], bool]
    ended: EdgewayError | None = None
    """Why the request was ended by us before a worker began it."""


@dataclass(slots=True)
class InFlight:
    """Counts what is in flight, waiting or running. Shed at once beyond a limit: a full queue only makes late.

    When all is full, a request of a higher class takes the place of the youngest waiting one of the lowest class.
    """

    max_requests: int
    max_bytes: int
    limits: ClassLimits
    requests: int = 0
    bytes: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    _places: list[dict[Place, None]] = field(default_factory=lambda: [{} for _ in CLASSES])

    def enter(self, nbytes: int, priority: int, evict: Callable[[], bool]) -> Place:
        """Take a place for a request of ``nbytes``; give it back with ``leave``.

        Raises:
            Shed: a limit is reached. One request alone is never refused for its bytes.
        """
        which = class_of(priority)
        if self.counts[which] >= self.limits[which]:
            raise Shed(
                f"{self.counts[which]} requests of the {CLASSES[which]} class are in flight, its limit "
                f"(limits.maxInFlight, limits.classPercent.{CLASSES[which]})"
            )
        if self.requests and self.bytes + nbytes > self.max_bytes:
            raise Shed(
                f"{self.bytes} bytes of requests are in flight, {nbytes} more would pass the limit of "
                f"{self.max_bytes} (limits.maxInFlightMB)"
            )
        if self.requests >= self.max_requests and not self._turn_out(which):
            raise Shed(f"{self.requests} requests are in flight, the limit (limits.maxInFlight)")
        place = Place(which, nbytes, evict)
        self._places[which][place] = None
        self.counts[which] += 1
        self.requests += 1
        self.bytes += nbytes
        return place

    def leave(self, place: Place) -> None:
        """Give a place back; one that was turned out has none any more."""
        if place in self._places[place.which]:
            self._free(place)

    def _free(self, place: Place) -> None:
        which = place.which
        del self._places[which][place]
        self.counts[which] -= 1
        self.requests -= 1
        self.bytes -= place.nbytes

    def _turn_out(self, which: int) -> bool:
        """Whether somebody of a lower class could be turned out."""
        for lower in range(len(CLASSES) - 1, which, -1):
            for place in reversed(self._places[lower]):
                if place.evict():
                    place.ended = Shed("all places are taken, and a request of a higher class came")
                    self._free(place)
                    return True
        return False
