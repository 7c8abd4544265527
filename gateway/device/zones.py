"""Linux thermal zones and cooling devices: ``class/thermal`` of sysfs, on every kind of device."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from gateway.device.sensors import Reading, Unreadable, celsius, folders, join, read_int, read_text

_FIRST_TRIPS = ("passive", "hot")
"""Trip points at which the device is slowed down; ``active`` ones start a fan, ``critical`` switches off."""
_PLAUSIBLE_LIMIT = (40.0, 130.0)
_MOST_TRIPS = 16
_BOGUS_ZONES = ("pmic", "iwlwifi")
"""The PMIC zone of Jetsons holds a fixed value; a wireless card is no part of any accelerator."""
_SLOWING = ("processor", "cpufreq", "cpu", "devfreq", "gpu", "idle", "powerclamp")
"""Words in the type of a cooling device that slows the chip. Fans, displays, radios and TCC offsets do not count."""


class ThermalZones:
    """Temperatures of all zones whose type is wanted.

    Zones are found by type at every reading: their numbers change when a driver is loaded again.
    """

    def __init__(
        self, root: Path, wanted: Callable[[str], bool], expected: Collection[str] = (), source: str = "zones"
    ) -> None:
        """``wanted(type)`` chooses; each of ``expected`` is missed when no zone has that type."""
        self._root = root / "class/thermal"
        self._wanted = wanted
        self._expected = tuple(expected)
        self._source = source

    def read(self, now: float) -> Reading:
        parts: list[Reading] = []
        seen: dict[str, int] = {}
        for zone in folders(self._root, "thermal_zone*"):
            try:
                kind = read_text(zone / "type")
            except Unreadable:
                continue  # removed meanwhile; if it was one of ours, it is missed below or by the tracker
            bogus = kind.lower().startswith(_BOGUS_ZONES) and kind not in self._expected
            if bogus or not self._wanted(kind):
                continue
            seen[kind] = seen.get(kind, 0) + 1
            name = kind if seen[kind] == 1 else f"{kind}#{seen[kind]}"
            parts.append(_zone(zone, name, now))
        parts += [
            Reading(kind, now, problem=f"no thermal zone of type {kind!r}")
            for kind in self._expected
            if kind not in seen
        ]
        return join(self._source, now, parts)


class CoolingDevices:
    """Whether the kernel is slowing the chip down: a cooling device of it is not at rest."""

    def __init__(self, root: Path, words: Collection[str] = _SLOWING) -> None:
        """``words``: a cooling device counts when its type has one of them."""
        self._root = root / "class/thermal"
        self._words = tuple(words)

    def read(self, now: float) -> Reading:
        acting: list[str] = []
        problems: list[str] = []
        found = False
        for device in folders(self._root, "cooling_device*"):
            try:
                kind = read_text(device / "type")
                if "fan" in kind.lower() or not any(word in kind.lower() for word in self._words):
                    continue
                state = read_int(device / "cur_state")  # intel_powerclamp says -1 at rest
            except Unreadable as failed:
                problems.append(str(failed))
                continue
            found = True
            if state > 0:
                acting.append(kind)
        return Reading("cooling devices", now, throttled=bool(acting) if found else None, problem="; ".join(problems))


def zone_types(root: Path) -> list[str]:
    """Types of the zones that are there now."""
    kinds = []
    for zone in folders(root / "class/thermal", "thermal_zone*"):
        try:
            kinds.append(read_text(zone / "type"))
        except Unreadable:
            continue
    return kinds


def _zone(zone: Path, name: str, now: float) -> Reading:
    trips = _trips(zone)
    witness = next((raw for _, raw in trips if raw > 0), None)
    limit = _limit(trips)
    try:
        return Reading(name, now, celsius(read_int(zone / "temp"), witness), limit_c=limit)
    except Unreadable as failed:
        return Reading(name, now, limit_c=limit, problem=str(failed))


def _trips(zone: Path) -> list[tuple[str, int]]:
    """(type, raw temperature) of the zone's trip points."""
    trips = []
    for number in range(_MOST_TRIPS):
        try:
            trips.append((read_text(zone / f"trip_point_{number}_type"), read_int(zone / f"trip_point_{number}_temp")))
        except Unreadable:
            break
    return trips


def _limit(trips: list[tuple[str, int]]) -> float | None:
    """The lowest believable temperature at which the kernel slows the device; data sheets and devices disagree."""
    low, high = _PLAUSIBLE_LIMIT
    degrees = [raw / 1000 if raw >= 1000 else float(raw) for kind, raw in trips if kind in _FIRST_TRIPS]
    return min((value for value in degrees if low <= value <= high), default=None)
