"""The simulated chip: joins script, heat and fake sensors. The time is passed in, in seconds of the script."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Optional

from workers.backend import BackendUnavailable, Heat
from workers.simulation.heat import Curve, ThermalMass, Throttle, curve_of
from workers.simulation.options import Options
from workers.simulation.script import Decision, Script
from workers.simulation.sysfs import FakeSysfs

VANISHED = "the simulated accelerator vanished"


class Chip:
    """What a run meets, and what the device says of itself. Any thread may ask."""

    def __init__(self, options: Options, name: str, origin: float, now: float) -> None:
        """``name``: of the worker; its thermal zone is of the type ``NAME-thermal``.

        Raises:
            BackendUnavailable: the fake sysfs tree can't be written.
        """
        self._script = Script(options)
        self._origin = origin
        self._curve: Optional[Curve] = None
        self._throttle = Throttle(options.heat.throttle if options.heat else ())
        self._sysfs: Optional[FakeSysfs] = None
        self._shown: Optional[float] = None
        """The last temperature that the sensor said."""
        self._runs = 0
        self._lock = threading.Lock()
        kept = None
        if options.sysfs_root:
            try:
                self._sysfs = FakeSysfs(Path(options.sysfs_root), options.zone, f"{name}-thermal", self._throttle.trips)
            except OSError as refused:
                raise BackendUnavailable(f"options.sysfsRoot: can't be written: {refused}") from refused
            kept = self._sysfs.kept(origin)
        if options.heat is not None:
            self._curve = curve_of(options.heat, kept[0] if kept else now, kept[1] if kept else None)
        self.report(now)

    def arrive(self, now: float) -> tuple[int, float]:
        """The number of a run, and the seconds that it waits for others' work."""
        with self._lock:
            self._runs += 1
            return self._runs, self._script.wait(self._runs, now)

    def begin(self, run: int, now: float) -> Decision:
        """What becomes of a run that begins, at present heat."""
        with self._lock:
            decision = self._script.decide(run, now)
            if self._curve is None:
                return decision
            return replace(decision, service=decision.service * self._throttle.slowdown(self._curve.celsius(now)))

    def end(self, now: float) -> None:
        """A run has ended, and left its heat."""
        if self._curve is not None:
            with self._lock:
                self._curve.absorb(now)

    def report(self, now: float) -> Heat:
        """What the device says of itself; the fake sysfs says the same. Raises OSError."""
        with self._lock:
            real = None if self._curve is None else self._curve.celsius(now)
            level = 0 if real is None else self._throttle.level(real)
            shown = real
            lie = self._script.lie(now)
            if lie is not None:
                if lie.throttled is not None:
                    level = max(1, level) if lie.throttled else 0
                if lie.missing:
                    shown = None
                elif lie.frozen:
                    shown = real if self._shown is None else self._shown
                elif lie.celsius is not None:
                    shown = lie.celsius
            self._shown = shown
            if self._sysfs is not None:
                self._sysfs.show(shown, level)
                if isinstance(self._curve, ThermalMass):
                    self._sysfs.keep(self._origin, now, self._curve.celsius(now))
            lost = VANISHED if self._script.vanished(now) else ""
            return Heat(shown, level > 0, self._script.backlog(now), lost)
