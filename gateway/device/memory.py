"""Memory: how much is available to us, whether tasks wait for it, and whether a model may be loaded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.device.sensors import Unreadable, read_text

_MB = 1 << 20
_UNLIMITED = 1 << 60
"""Bytes; version 1 of cgroups says "no limit" by a number close to 2^63."""
_WINDOW = 2.0
"""Seconds over which the share of waiting is taken: ``avg10`` of the kernel answers too late."""
_RELEASE = 0.5
"""Share of the limit below which pressure ends ..."""
_CALM = 5.0
"""... after so many seconds."""
INTERVAL = 0.5
"""Seconds between samples; a unit without privileges may not set the kernel's own triggers everywhere."""


@dataclass(frozen=True, slots=True)
class Available:
    """Bytes that may still be used; None: unknown."""

    free: int | None
    limit: int | None = None
    """Of the cgroup, where that is what leaves the least."""


@dataclass(frozen=True, slots=True)
class MemoryState:
    """How short memory is. ``pressure_percent``: share of time in which some task waited for it; None: unknown."""

    pressure_percent: float | None = None
    pressed: bool = False
    available: Available = Available(None)


def refuse_load(min_memory: int, available: Available, reserve: int, pressed: bool, promised: int = 0) -> str:
    """Why a model may not be loaded now, in words; empty if it may. Bytes; unknown refuses nothing.

    Args:
        min_memory: what the model needs; 0: it does not say.
        available: what is there.
        reserve: what must be left to others.
        pressed: tasks wait for memory already.
        promised: what loads that are under way were granted and may not have taken yet.
    """
    if pressed:
        return "the device is short of memory: tasks wait for it"
    if not min_memory or available.free is None:
        return ""
    if min_memory + promised + reserve <= available.free:
        return ""
    of = f" (cgroup limit {available.limit // _MB} MB)" if available.limit is not None else ""
    kept = f", of which {reserve // _MB} MB stay free" if reserve else ""
    taken = f" and {promised // _MB} MB are promised to other loads" if promised else ""
    return f"needs {min_memory // _MB} MB, {available.free // _MB} MB are available{of}{kept}{taken}"


def mem_available(meminfo: str) -> int | None:
    """Bytes that can be had without swapping, by ``/proc/meminfo``."""
    return _field(meminfo, "MemAvailable:", 1024)


def stalled_us(pressure: str) -> int | None:
    """Microseconds, since boot, in which some task waited, by a file of pressure stall information."""
    for line in pressure.splitlines():
        if line.startswith("some "):
            for part in line.split():
                name, _, value = part.partition("=")
                if name == "total" and value.isdecimal():
                    return int(value)
    return None


def cgroup_paths(text: str) -> tuple[str | None, str | None]:
    """Our memory cgroup in version 2 and in version 1, by ``/proc/self/cgroup``; None: there is none."""
    second, first = None, None
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        if parts[0] == "0" and not parts[1]:
            second = parts[2]
        elif "memory" in parts[1].split(","):
            first = parts[2]
    return second, first


class MemoryReader:
    """Reads what is available, and how long tasks have waited. Never raises; what can't be read is None."""

    def __init__(self, proc_root: Path = Path("/proc"), cgroup_root: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc_root
        self._cgroups = cgroup_root

    def available(self) -> Available:
        """The least of what the machine has and what each cgroup above us leaves; caches that can go do not count."""
        whole = mem_available(_read(self._proc / "meminfo"))
        rooms = [room for room in map(_room, self._folders()) if room is not None]
        if not rooms:
            return Available(whole)
        room, limit = min(rooms)
        return Available(whole) if whole is not None and whole <= room else Available(room, limit)

    def stalled(self) -> dict[str, int]:
        """Microseconds of waiting for memory, by place: the machine and our cgroup."""
        places = {"machine": self._proc / "pressure/memory"}
        second, _ = cgroup_paths(_read(self._proc / "self/cgroup"))
        if second is not None:
            places["cgroup"] = self._cgroups / second.lstrip("/") / "memory.pressure"
        return {name: total for name, path in places.items() if (total := stalled_us(_read(path))) is not None}

    def _folders(self) -> list[Path]:
        """Folders of our cgroup and of those above it. In a container the path may not exist: then the root is ours."""
        second, first = cgroup_paths(_read(self._proc / "self/cgroup"))
        folders = _upwards(self._cgroups, second) if second is not None else []
        return folders + (_upwards(self._cgroups / "memory", first) if first is not None else [])


class Pressure:
    """Whether memory is short, from the growth of waiting time. Pure: totals and time in, state out."""

    def __init__(self, limit_percent: float) -> None:
        self._limit = limit_percent
        self._samples: list[tuple[float, dict[str, int]]] = []
        self._pressed = False
        self._calm_since: float | None = None

    def step(self, totals: dict[str, int], now: float) -> tuple[float | None, bool]:
        """(percent of the last seconds in which some task waited, or None; whether memory is short)."""
        self._samples.append((now, totals))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW:
            del self._samples[0]
        percent = self._percent()
        if percent is None or percent < self._limit * _RELEASE:
            if self._calm_since is None:
                self._calm_since = now
            if now - self._calm_since >= _CALM:
                self._pressed = False
        else:
            self._calm_since = None
            self._pressed |= percent >= self._limit
        return percent, self._pressed

    def _percent(self) -> float | None:
        (began, before), (now, totals) = self._samples[0], self._samples[-1]
        if now - began < min(INTERVAL, _WINDOW) * 0.5:
            return None
        grown = [totals[place] - before[place] for place in totals if place in before]
        if not grown:
            return None
        return min(100.0, max(0.0, max(grown) / ((now - began) * 1e6) * 100))


class MemoryWatch:
    """Samples memory on a thread and tells the loop. ``state`` belongs to the loop."""

    def __init__(
        self,
        reader: MemoryReader,
        pressure_percent: float,
        changed: Callable[[MemoryState], None],
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``changed(state)`` is called on the loop after each sample."""
        self._reader = reader
        self._pressure = Pressure(pressure_percent)
        self._changed = changed
        self._interval = interval
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.state = MemoryState()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._thread = threading.Thread(target=self._watch, args=(loop,), name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nothing is told after this."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Whether the thread has ended within so many seconds. Blocks."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def refuse(self, min_memory: int, reserve: int, promised: int = 0) -> str:
        """Why a load of so many bytes is refused now; empty if it is not. Reads what is available anew."""
        available = self._reader.available() if min_memory else Available(None)
        return refuse_load(min_memory, available, reserve, self.state.pressed, promised)

    def sample(self, now: float) -> MemoryState:
        """A new state, not told to anybody."""
        percent, pressed = self._pressure.step(self._reader.stalled(), now)
        return MemoryState(percent, pressed, self._reader.available())

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            state = self.sample(self._clock())
            try:
                loop.call_soon_threadsafe(self._deliver, state)
            except RuntimeError:  # closed
                return
            self._stop.wait(self._interval)

    def _deliver(self, state: MemoryState) -> None:
        if not self._stop.is_set():
            self.state = state
            self._changed(state)

    def __repr__(self) -> str:
        return f"<MemoryWatch {self.state.pressure_percent} % {'pressed' if self.state.pressed else 'calm'}>"


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a cgroup path and its parents up to the root, which are there."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return [folder for end in range(len(parts), -1, -1) if (folder := root.joinpath(*parts[:end])).is_dir()]


def _room(folder: Path) -> tuple[int, int] | None:
    """(bytes left, limit) of one cgroup of either version; None: it has no limit, or can't be read."""
    stat = _read(folder / "memory.stat")
    limits = [_number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    limit = min((each for each in limits if each is not None and each < _UNLIMITED), default=None)
    used = _number(folder / "memory.current")
    cache = _field(stat, "inactive_file", 1)
    if used is None:
        used = _number(folder / "memory.usage_in_bytes")
        cache = _field(stat, "total_inactive_file", 1)
    if limit is None or used is None:
        return None
    return max(0, limit - max(0, used - (cache or 0))), limit


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _field(text: str, name: str, unit: int) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdecimal():
            return int(words[1]) * unit
    return None


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except Unreadable:
        return ""
