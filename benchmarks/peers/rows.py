"""What is compared and how it is judged."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDS = 5
"""Fewer of them give no verdict on what could not be measured: see ``exit_code``."""


@dataclass(frozen=True)
class Row:
    """One figure: Edgeway's value over the peer's. Lower is better."""

    name: str
    peer: str
    kind: str
    """``latency`` (p50 of a closed loop of one, ms), ``open`` (p99 at Poisson arrivals, ms), ``cpu`` (of the server's
    processes, ms per request), ``memory`` (proportional, MB) or ``start`` (seconds to the first right answer).
    """
    load: str
    """Name of the request: a key of ``loads.LOADS``; empty for memory and start."""
    bound: float
    aim: float
    text: str


ROWS = (
    Row("mlserver-small", "mlserver", "latency", "small", 0.9, 0.6, "64 B, p50"),
    Row("mlserver-frame", "mlserver", "latency", "frame", 0.1, 0.05, "0.9 MB in the message, p50"),
    Row("kserve-small", "kserve", "latency", "small", 0.9, 0.6, "64 B, p50"),
    Row("kserve-frame", "kserve", "latency", "frame", 0.65, 0.5, "0.9 MB in the message, p50"),
    Row("triton-small", "triton", "latency", "small", 1.5, 1.0, "64 B, p50"),
    Row("triton-frame", "triton", "latency", "frame", 1.2, 1.0, "0.9 MB in the message, p50"),
    Row("triton-frame-shm", "triton", "latency", "frame-shm", 1.1, 1.0, "0.9 MB in shared memory, p50"),
    Row("triton-big", "triton", "latency", "big", 1.3, 1.0, "4.9 MB both ways in the message, p50"),
    Row("triton-open", "triton", "open", "vision", 1.15, 0.9, "9 ms CNN at 60/s Poisson, p99"),
    Row("triton-cpu-small", "triton", "cpu", "small", 1.5, 1.0, "CPU per request of 64 B"),
    Row("triton-cpu-frame", "triton", "cpu", "frame", 1.5, 1.0, "CPU per request of 0.9 MB"),
    Row("triton-memory", "triton", "memory", "", 0.8, 0.5, "proportional memory, all models answered once"),
    Row("triton-start", "triton", "start", "", 0.4, 0.2, "start to the first right answer"),
)
UNITS = {"latency": "ms", "open": "ms", "cpu": "ms", "memory": "MB", "start": "s"}


@dataclass(frozen=True)
class Figure:
    """The values of a row's rounds, both sides in the same order; or why there are none."""

    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    missing: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(mine / other for mine, other in zip(self.ours, self.theirs, strict=True))


@dataclass(frozen=True)
class Judged:
    """A row with its verdict: ``ok``, ``short`` or ``not measured``."""

    row: Row
    figure: Figure
    state: str
    ratio: float | None
    """Median of the rounds' ratios."""

    @property
    def aim_reached(self) -> bool:
        return self.ratio is not None and self.ratio <= self.row.aim


def judge(row: Row, figure: Figure) -> Judged:
    """A row without a round is not measured; else its median ratio is held against the bound."""
    if figure.missing or not figure.ours:
        return Judged(row, figure, "not measured", None)
    ratio = statistics.median(figure.ratios)
    return Judged(row, figure, "ok" if ratio <= row.bound else "short", ratio)


def exit_code(judged: Sequence[Judged], rounds: int) -> int:
    """1 when a row is short, or nothing was measured; with ``ROUNDS`` rounds or more also when any row is missing."""
    states = [each.state for each in judged]
    if "short" in states or "ok" not in states:
        return 1
    return int(rounds >= ROUNDS and "not measured" in states)


def chosen(peers: Sequence[str], names: Sequence[str]) -> tuple[Row, ...]:
    """Rows of these peers and names; none given: all.

    Raises:
        ValueError: a name that no row has.
    """
    for given, known in ((peers, {row.peer for row in ROWS}), (names, {row.name for row in ROWS})):
        if unknown := set(given) - known:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return tuple(row for row in ROWS if (not peers or row.peer in peers) and (not names or row.name in names))
