"""Turns of calls: every system under test gets a few, then the next, so that a disturbance meets all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.bench.process import cpu_seconds, minor_faults

TURNS = 8
"""Turns of each system in a round."""


@dataclass(frozen=True)
class Party:
    """One system. ``pid``: the process whose CPU time and page faults count; None: nobody's do."""

    name: str
    call: Callable[[], object]
    pid: int | None = None


@dataclass
class Spent:
    """By one party in one round."""

    seconds: list[float] = field(default_factory=list)
    """Of each call."""
    cpu: float = 0.0
    faults: list[float] = field(default_factory=list)
    """A call, of each turn."""

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.seconds) * 1e3

    @property
    def cpu_us(self) -> float:
        """Microseconds a call."""
        return self.cpu / len(self.seconds) * 1e6

    @property
    def faults_each(self) -> float:
        """Of the median turn: in the first one after a silence, memory that was given back is taken again."""
        return statistics.median(self.faults)


def alternate(parties: Sequence[Party], calls: int, number: int) -> dict[str, Spent]:
    """``calls`` timed ones of each, in turns. ``number`` of the round: odd ones go in the opposite order.

    Every turn begins with calls that don't count, because the one before has left its own data in the caches.
    """
    each = max(2, calls // TURNS)
    spent = {party.name: Spent() for party in parties}
    order = parties if number % 2 == 0 else list(reversed(parties))
    gc.disable()  # the client's own collections are nobody's latency
    try:
        for _ in range(TURNS):
            for party in order:
                _turn(party, each, spent[party.name])
    finally:
        gc.enable()
    return spent


def _turn(party: Party, calls: int, spent: Spent) -> None:
    for _ in range(1 + calls // 8):
        party.call()
    pid = party.pid
    cpu, faults = (cpu_seconds(pid), minor_faults(pid)) if pid is not None else (0.0, 0)
    for _ in range(calls):
        began = time.perf_counter()
        party.call()
        spent.seconds.append(time.perf_counter() - began)
    if pid is not None:
        spent.cpu += cpu_seconds(pid) - cpu
        spent.faults.append((minor_faults(pid) - faults) / calls)
