"""A fake sysfs tree: the simulated chip's thermal zone and cooling device, under the kernel's names and in its units.

Source of names and units: Documentation/ABI/testing/sysfs-class-thermal of the Linux kernel.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Optional, Sequence


class FakeSysfs:
    """Writes ``class/thermal`` below a root: each file whole and at once, so that no reader sees half a number."""

    def __init__(self, root: Path, zone: int, zone_type: str, trips: Sequence[float]) -> None:
        """``trips``: degrees C from which on the chip throttles. Raises OSError."""
        thermal = root / "class" / "thermal"
        self._zone = thermal / f"thermal_zone{zone}"
        self._cooling = thermal / f"cooling_device{zone}"
        self._kept = root / ".simulated" / self._zone.name
        for folder in (self._zone, self._cooling, self._kept.parent):
            folder.mkdir(parents=True, exist_ok=True)
        _write(self._zone / "type", zone_type)
        _write(self._zone / "mode", "enabled")
        for number, celsius in enumerate(trips):
            _write(self._zone / f"trip_point_{number}_type", "passive")
            _write(self._zone / f"trip_point_{number}_temp", _millidegrees(celsius))
            _write(self._zone / f"trip_point_{number}_hyst", "0")
        link = self._zone / "cdev0"
        if not link.is_symlink():
            link.symlink_to(f"../{self._cooling.name}")
        _write(self._zone / "cdev0_trip_point", "0" if trips else "-1")
        _write(self._cooling / "type", "devfreq-sim")
        _write(self._cooling / "max_state", str(len(trips)))
        _write(self._cooling / "cur_state", "0")

    def show(self, celsius: Optional[float], state: int) -> None:
        """What the sensors say from now on; None: the temperature is not there. Raises OSError."""
        if celsius is None:
            (self._zone / "temp").unlink(missing_ok=True)
        else:
            _write(self._zone / "temp", "nan" if math.isnan(celsius) else _millidegrees(celsius))
        _write(self._cooling / "cur_state", str(state))

    def keep(self, origin: float, now: float, celsius: float) -> None:
        """Note how warm the chip really is, for the process that replaces this one. Raises OSError."""
        _write(self._kept, f"{origin!r} {now!r} {celsius!r}")

    def kept(self, origin: float) -> Optional[Sequence[float]]:
        """(when, degrees C) that a process before this one noted in the same play of the script."""
        try:
            noted = [float(word) for word in self._kept.read_text().split()]
        except (OSError, ValueError):
            return None
        return noted[1:] if len(noted) == 3 and noted[0] == origin else None


def _millidegrees(celsius: float) -> str:
    return str(round(celsius * 1e3))


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(f"{text}\n")
    part.replace(path)
