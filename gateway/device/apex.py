"""Coral Edge TPU on PCIe or M.2: ``class/apex`` of sysfs. One on USB shows no temperature at all."""

from __future__ import annotations

from pathlib import Path

from gateway.device.sensors import Reading, Unreadable, celsius, folders, join, read_int


class ApexTpus:
    """Temperature of the Edge TPUs, and whether their driver has slowed the clock.

    The driver has no hysteresis and looks every 5 s (``temp_poll_interval``): at its first trip point it halves the
    clock. So the temperature at or above that point is the throttling.
    """

    def __init__(self, root: Path, index: int | None = None) -> None:
        """``index``: of the device; None: all there are."""
        self._root = root / "class/apex"
        self._pattern = "apex_*" if index is None else f"apex_{index}"

    @property
    def present(self) -> bool:
        return bool(folders(self._root, self._pattern))

    def read(self, now: float) -> Reading:
        devices = folders(self._root, self._pattern)
        if not devices:
            return Reading("apex", now, problem=f"no {self._pattern}: on USB, or the driver is not loaded")
        return join("apex", now, [_apex(device, now) for device in devices])


def _apex(device: Path, now: float) -> Reading:
    try:
        trip: int | None = read_int(device / "trip_point0_temp")
    except Unreadable:
        trip = None
    limit = trip / 1000 if trip is not None and 40_000 <= trip <= 130_000 else None
    try:
        degrees = celsius(read_int(device / "temp"), trip)
    except Unreadable as failed:  # the driver that once was in the kernel has no temperature files
        return Reading(device.name, now, limit_c=limit, problem=str(failed))
    throttled = None if limit is None else degrees >= limit
    return Reading(device.name, now, degrees, throttled=throttled, limit_c=limit)
