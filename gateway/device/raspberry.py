"""Raspberry Pi: the firmware's throttled bits."""

from __future__ import annotations

from pathlib import Path

from gateway.device.sensors import Reading, Unreadable, read_int

_NOW = 0xF
"""Bits 0-3: under-voltage, frequency capped, throttled, soft temperature limit; as it is now."""
_EVER_SHIFT = 16
"""Bits 16-19: the same, has happened since boot."""


class ThrottledBits:
    """``get_throttled`` of the firmware driver: hexadecimal, with or without 0x."""

    def __init__(self, root: Path) -> None:
        self._path = root / "devices/platform/soc/soc:firmware/get_throttled"
        self._acting: int | None = None
        self._ever: int | None = None

    @property
    def present(self) -> bool:
        return self._path.is_file()

    def read(self, now: float) -> Reading:
        try:
            bits = read_int(self._path, 16)
        except Unreadable as failed:
            return Reading("throttled bits", now, problem=str(failed))
        if bits < 0 or bits >> 20:
            return Reading("throttled bits", now, problem=f"get_throttled: {bits:#x} has bits that mean nothing")
        acting, ever = bits & _NOW, bits >> _EVER_SHIFT & _NOW
        # What happened and ended between two readings shows in the bits that stay; what is on for long is one event.
        begun = acting & ~(acting if self._acting is None else self._acting)
        flashed = ever & ~(ever if self._ever is None else self._ever) & ~acting
        self._acting, self._ever = acting, ever
        return Reading("throttled bits", now, throttled=acting != 0, throttle_events=(begun | flashed).bit_count())
