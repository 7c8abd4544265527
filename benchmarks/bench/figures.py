"""From the readings of the rounds to one figure a row, with what it is worth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.bench.rows import Row

_SURE = 2.3


class NotMeasured(Exception):
    """A row can't be measured here and now; the message says why."""


@dataclass(frozen=True)
class Reading:
    """What one round says of one row. ``parts``: what the figure was made of, with units in the names."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One row, measured or not. ``missing``: why it was not; ``failed``: it should have been."""

    row: Row
    readings: tuple[Reading, ...] = ()
    missing: str = ""
    failed: bool = False

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(reading.value for reading in self.readings)

    @property
    def low(self) -> float:
        return min(reading.value for reading in self.readings)

    @property
    def high(self) -> float:
        return max(reading.value for reading in self.readings)

    @property
    def noise(self) -> float:
        """How far two measurements of the same thing may lie apart.

        The middle half of five rounds is as wide as one standard deviation of a round; three of the difference of two
        medians of five are 2.3 of those. A single round that was disturbed changes neither.
        """
        quarters = np.percentile([reading.value for reading in self.readings], (25, 75))
        return max(_SURE * float(quarters[1] - quarters[0]), self.row.grain, 0.0 if self.row.unit else self.value / 20)

    @property
    def parts(self) -> dict[str, float]:
        """Medians over the rounds."""
        return {name: statistics.median(r.parts[name] for r in self.readings) for name in self.readings[0].parts}

    @property
    def state(self) -> str:
        """``ok``, ``SHORT``, ``info`` (not judged), ``absent`` or ``FAILED``."""
        if self.missing:
            return "FAILED" if self.failed else "absent"
        if self.row.bound is None:
            return "info"
        return "ok" if self.row.holds(self.value) else "SHORT"

    def line(self) -> str:
        row = self.row
        unit = f" {row.unit}" if row.unit else ""
        limit = "not judged"
        if row.bound is not None:
            limit = f"at {'least' if row.at_least else 'most'} {row.bound:g}, aim {row.aim:g}{unit}"
        if self.missing:
            return f"{self.state:6} {row.name:12} {self.missing} ({limit}): {row.title}"
        spread = f"{self.low:.2f} to {self.high:.2f}"
        parts = ", ".join(f"{name} {value:.4g}" for name, value in self.parts.items())
        return f"{self.state:6} {row.name:12} {self.value:.2f}{unit} ({spread}; {limit}): {row.title} [{parts}]"

    def plain(self) -> dict[str, Any]:
        """For ``-o json``."""
        row = self.row
        known: dict[str, Any] = {"name": row.name, "title": row.title, "unit": row.unit or "ratio"}
        known |= {"bound": row.bound, "aim": row.aim, "atLeast": row.at_least, "state": self.state}
        if self.missing:
            return known | {"missing": self.missing}
        return known | {
            "value": round(self.value, 4),
            "rounds": [round(reading.value, 4) for reading in self.readings],
            "noise": round(self.noise, 4),
            "parts": {name: round(value, 6) for name, value in self.parts.items()},
        }
