"""Reading: what one sensor, or the sensors of one accelerator, say at one moment; how their files are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_LONGEST = 16384
"""Bytes; a sysfs attribute is at most a page, and what we want of proc files is in their beginning."""
_CELSIUS_AT_MOST = 200
"""A whole number up to here may be degrees or thousandths of one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, and what could not be: ``None`` is unknown, which is neither cold nor 0.

    ``parts`` are the single sensors of a joined reading: each is believed, or not, by itself.
    """

    source: str
    at: float
    """Monotonic seconds at which it was read."""
    temperature_c: float | None = None
    throttled: bool | None = None
    """The device says that it runs slower than it could because of heat or power."""
    limit_c: float | None = None
    """Where the device itself begins to slow down: first passive trip point or slowdown threshold."""
    load: float | None = None
    """Share of time busy, 0 to 1, averaged by the device: too slow to say whether it is busy now."""
    problem: str = ""
    """Why something that should be there could not be read."""
    lost: str = ""
    """Why the device is gone, as its driver says; empty if it is not."""
    throttle_events: int = 0
    """Times that the device began to throttle since the reading before."""
    vouched: bool = False
    """The driver of the device gave this value itself, so a constant is no sign of a sensor that never worked."""
    parts: tuple[Reading, ...] = ()


class Reader(Protocol):
    """One way to read. Never raises; may block for tens of milliseconds, so it belongs on a thread."""

    def read(self, now: float) -> Reading: ...


class Unreadable(Exception):
    """A file can't be read, or does not hold what it should; the message says which and why."""


def join(source: str, now: float, readings: Iterable[Reading]) -> Reading:
    """One reading of several sensors of the same device. The sensors stay apart in ``parts``."""
    parts = tuple(part for reading in readings for part in (reading.parts or (reading,)))
    flags = [part.throttled for part in parts if part.throttled is not None]
    loads = [part.load for part in parts if part.load is not None]
    temperatures = [part.temperature_c for part in parts if part.temperature_c is not None]
    limits = [part.limit_c for part in parts if part.limit_c is not None]
    return Reading(
        source,
        now,
        temperature_c=max(temperatures, default=None),
        throttled=any(flags) if flags else None,
        limit_c=min(limits, default=None),
        load=max(loads, default=None),
        problem="; ".join(part.problem for part in parts if part.problem),
        lost=next((part.lost for part in parts if part.lost), ""),
        throttle_events=sum(part.throttle_events for part in parts),
        parts=parts,
    )


def read_all(source: str, readers: Sequence[Reader], now: float) -> Reading:
    """One reading of everything that tells about a device."""
    return join(source, now, [reader.read(now) for reader in readers])


def reported(worker: str, now: float, temperature_c: float | None, throttled: bool | None) -> Reading:
    """A reading that the worker itself sent: its runtime knows the device (Hailo, the simulation)."""
    return Reading(f"report of {worker}", now, temperature_c, throttled, vouched=True)


def read_text(path: Path) -> str:
    """The stripped text of a sysfs or proc file. Raises Unreadable: missing, a folder, EIO, EAGAIN, not text."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO in its place must not block
        try:
            return os.read(fd, _LONGEST).decode("ascii").strip()
        finally:
            os.close(fd)
    except OSError as failed:
        raise Unreadable(f"{_short(path)}: {failed.strerror or failed}") from failed
    except UnicodeDecodeError as failed:
        raise Unreadable(f"{_short(path)}: not text") from failed


def read_int(path: Path, base: int = 10) -> int:
    """Raises Unreadable."""
    text = read_text(path)
    try:
        return int(text, base)
    except ValueError as failed:
        found = f"{text[:20]!r}" if text else "nothing"
        raise Unreadable(f"{_short(path)}: expected a whole number, found {found}") from failed


def folders(parent: Path, pattern: str) -> list[Path]:
    """Entries of a folder by pattern, numbers in order; empty if it can't be listed."""
    try:
        return sorted(parent.glob(pattern), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []


def celsius(raw: int, witness: int | None) -> float:
    """Degrees C of a value that the kernel's ABI says is in thousandths, though some drivers give whole degrees.

    Args:
        raw: as read.
        witness: a trip point of the same sensor, in the same unit; None: it has none.

    Raises:
        Unreadable: too small for thousandths, and no trip point says that it is in degrees.
    """
    if raw == 0 or abs(raw) >= _CELSIUS_AT_MOST:
        return raw / 1000
    if witness is not None and 0 < witness < _CELSIUS_AT_MOST:
        return float(raw)
    if witness is not None:
        return raw / 1000
    raise Unreadable(f"{raw} may be degrees or thousandths of one")


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])
