"""How warm the simulated chip is, and how much slower that makes it: pure, with the time passed in."""

from __future__ import annotations

import math
from typing import Optional, Protocol, Sequence, Tuple

import numpy as np

from workers.simulation.options import HeatOptions, Thermal


class Curve(Protocol):
    """A temperature over time, in seconds of the script."""

    def celsius(self, now: float) -> float: ...

    def absorb(self, now: float) -> None:
        """A run has ended, and left its heat."""
        ...


class ReplayedCurve:
    """Points of a recorded or invented curve, straight lines between them; runs change nothing."""

    def __init__(self, points: Sequence[Tuple[float, float]]) -> None:
        self._times = [at for at, _ in points]
        self._degrees = [celsius for _, celsius in points]

    def celsius(self, now: float) -> float:
        return float(np.interp(now, self._times, self._degrees))

    def absorb(self, now: float) -> None:
        """The curve is what it is."""


class ThermalMass:
    """One mass that power warms and the air cools: ``mass * dT/dt = power - cooling * (T - ambient)``.

    Exact between runs, whatever the distance of the looks at it. A run's heat comes as a whole at its end: one is much
    shorter than the time constant ``mass / cooling``, which is some 100 s for a chip with a heat sink.
    """

    def __init__(self, thermal: Thermal, now: float, celsius: Optional[float] = None) -> None:
        """``celsius``: how warm it is at ``now``; None: as the options say."""
        self._thermal = thermal
        self._settles_at = thermal.ambient + thermal.idle / thermal.cooling
        given = thermal.start if celsius is None else celsius
        self._celsius = self._settles_at if given is None else given
        self._at = now

    def celsius(self, now: float) -> float:
        passed = max(0.0, now - self._at)  # threads may look in another order than they took the time
        share = math.exp(-passed * self._thermal.cooling / self._thermal.mass)
        self._celsius = self._settles_at + (self._celsius - self._settles_at) * share
        self._at = max(self._at, now)
        return self._celsius

    def absorb(self, now: float) -> None:
        self._celsius = self.celsius(now) + self._thermal.run / self._thermal.mass


class Throttle:
    """Steps of a chip that protects itself: from a temperature on, every run takes so many times as long."""

    def __init__(self, steps: Sequence[Tuple[float, float]]) -> None:
        """``steps``: (degrees C, slowdown), ascending."""
        self._steps = steps
        self.trips = [celsius for celsius, slowdown in steps if slowdown > 1]
        """Degrees C from which on the chip is slower than it could be."""

    def slowdown(self, celsius: float) -> float:
        reached = [slowdown for at, slowdown in self._steps if celsius >= at]
        return reached[-1] if reached else 1.0

    def level(self, celsius: float) -> int:
        """How many steps are in force; 0: the chip runs at full speed."""
        return sum(celsius >= at for at in self.trips)


def curve_of(options: HeatOptions, now: float, celsius: Optional[float] = None) -> Curve:
    """The chip's temperature from ``now`` on. ``celsius``: how warm the process before this one left it."""
    if options.thermal is None:
        return ReplayedCurve(options.points)
    return ThermalMass(options.thermal, now, celsius)
