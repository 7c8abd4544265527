"""Sensor: what one temperature sensor has said of late, whether it is believed, and where it is heading."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from gateway.device.sensors import Reading

COLDEST, HOTTEST = -40.0, 150.0
"""Degrees C between which silicon works; -87.9, -256 and 255 are what absent sensors say."""
LOWEST_LIMIT = 40.0
"""Degrees C; no chip slows down below this, whatever its trip point says."""
FASTEST = 30.0
"""Degrees C per second: no die with its mass behind it warms faster for longer than a moment."""
_SLACK = 5.0
"""Degrees C of noise and of a real, short jump when a load begins."""
SETTLE = 1.0
"""Seconds for which values after an impossible jump must agree with each other, and move, to be believed."""
STUCK_SETTLE = 3.0
"""The same when they do not move at all: a lie is likely, but a hot chip must not be ignored for long."""
FROZEN_AFTER = 60.0
"""Seconds without any change, while load or service time moved, after which a sensor is frozen."""
_COARSE = 1.5
"""Degrees C: a sensor of such steps may rightly stay at one value for long; it gets ``_PATIENCE`` times as long."""
_PATIENCE = 5.0
_LOAD_MOVED = 0.3
_RATIO_MOVED = 1.3
_WITNESS_SECONDS = 10.0
"""Time constant of what load and ratio are compared by: a short burst warms nothing."""
POWER_ON = (0.0, 85.0)
"""Values that a sensor shows which never made a measurement."""
FILTER_SECONDS = 1.0
"""Time constant of the first-order filter."""
_GAP = 5.0
"""Seconds without a value after which filter and trend begin anew."""
_TREND_SECONDS = 5.0
_TREND_LEAST = 5
_TREND_SPAN = 2.0
_STEEP = 0.05
"""Degrees C per second below which nothing is forecast."""
_SURE = 4.0
"""Standard errors by which a slope must differ from none."""
_LEAST_NOISE = 0.05
"""Degrees C; so that a straight line of few values is not taken for certain."""


@dataclass(slots=True)
class _Span:
    """Smallest and largest smoothed value of a witness while the sensor stood still."""

    smooth: float | None = None
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float | None, dt: float) -> None:
        if value is None:
            return
        if self.smooth is None:
            self.smooth = value
        else:
            self.smooth += (value - self.smooth) * (1 - math.exp(-dt / _WITNESS_SECONDS))
        self.low, self.high = min(self.low, self.smooth), max(self.high, self.smooth)

    def restart(self) -> None:
        self.low, self.high = math.inf, -math.inf


class Sensor:
    """One source of temperatures. ``degrees`` is filtered, and None while ``problem`` says why it is not believed."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.degrees: float | None = None
        self.problem = "no reading yet"
        self.limit_c: float | None = None
        self._raw: float | None = None
        self._raw_at = -math.inf
        self._at = -math.inf
        self._believed: float | None = None
        self._moved = False
        self._step = math.inf
        self._still_since = 0.0
        self._jumped_at: float | None = None
        self._moved_since_jump = False
        self._load, self._ratio = _Span(), _Span()
        self._trend: deque[tuple[float, float]] = deque()

    def take(self, reading: Reading, load: float | None, ratio: float | None) -> None:
        """Take in a new reading. ``load`` and ``ratio`` are the witnesses against a frozen sensor."""
        if reading.at > self._at:
            self._take(reading, load, ratio)

    def grow_stale(self, stale_after: float, now: float) -> None:
        """Stop believing what was read too long ago."""
        if now - self._at > stale_after:
            self._distrust(f"no reading for {now - self._at:.0f} s" if math.isfinite(self._at) else "no reading yet")

    def missing(self) -> None:
        """It is not among the sensors any more."""
        self._distrust("missing")

    def slope(self) -> tuple[float, float] | None:
        """(degrees C per second, degrees C now) of a steady rise; None: there is none that is beyond doubt.

        Least squares over the last seconds; sure when the slope is ``_SURE`` of its standard errors.
        """
        count = len(self._trend)
        if self.degrees is None or count < _TREND_LEAST or self._trend[-1][0] - self._trend[0][0] < _TREND_SPAN:
            return None
        mean_at = sum(at for at, _ in self._trend) / count
        mean = sum(value for _, value in self._trend) / count
        spread = sum((at - mean_at) ** 2 for at, _ in self._trend)
        slope = sum((at - mean_at) * (value - mean) for at, value in self._trend) / spread
        if slope < _STEEP:
            return None
        left = sum((value - mean - slope * (at - mean_at)) ** 2 for at, value in self._trend)
        error = math.sqrt(max(left / (count - 2), _LEAST_NOISE**2) / spread)
        if slope < _SURE * error:
            return None
        return slope, mean + slope * (self._trend[-1][0] - mean_at)

    def _take(self, reading: Reading, load: float | None, ratio: float | None) -> None:
        gap = reading.at - self._raw_at
        dt = min(gap, _GAP)
        if reading.limit_c is not None and LOWEST_LIMIT <= reading.limit_c <= HOTTEST:
            self.limit_c = reading.limit_c
        self._at = reading.at
        raw = reading.temperature_c
        if raw is None or not math.isfinite(raw) or not COLDEST <= raw <= HOTTEST:
            self._distrust(reading.problem or ("no temperature" if raw is None else f"{raw:g} °C is impossible"))
            return
        before, self._raw, self._raw_at = self._raw, raw, reading.at
        self._load.add(load, dt)
        self._ratio.add(ratio, dt)
        if before is None or raw != before:
            self._step = min(self._step, abs(raw - before)) if before is not None else self._step
            self._moved = before is not None
            self._still_since = reading.at
            self._load.restart()
            self._ratio.restart()
        problem = self._doubt(reading, raw, before, gap)
        if problem:
            self._distrust(problem)
            return
        self._believed = raw
        self._filter(raw, dt, gap)

    def _doubt(self, reading: Reading, raw: float, before: float | None, gap: float) -> str:
        """Why a value within range is not believed; empty if it is."""
        now = reading.at
        if not reading.vouched and not self._moved and raw in POWER_ON:
            return f"{raw:g} °C, and never another value"
        fastest = FASTEST * gap + _SLACK
        if self._jumped_at is not None and self._believed is not None and abs(raw - self._believed) <= fastest:
            self._jumped_at = None  # back where it was: the values between were the lie
        elif before is not None and gap <= _GAP and abs(raw - before) > fastest:
            self._jumped_at, self._moved_since_jump = now, False
            return f"from {before:g} to {raw:g} °C in {gap:.1f} s"
        if self._jumped_at is not None:
            self._moved_since_jump |= before is not None and raw != before
            if now - self._jumped_at < (SETTLE if self._moved_since_jump else STUCK_SETTLE):
                return f"jumped to {raw:g} °C"
            self._jumped_at = None
        still = now - self._still_since
        patience = _PATIENCE if math.isfinite(self._step) and self._step >= _COARSE else 1.0
        if still >= FROZEN_AFTER * patience and self._witnessed():
            return f"frozen at {raw:g} °C for {still:.0f} s"
        return ""

    def _witnessed(self) -> bool:
        """Whether the load or the service time moved while the sensor stood still."""
        ratio = self._ratio
        return self._load.high - self._load.low >= _LOAD_MOVED or (
            0 < ratio.low < math.inf and ratio.high / ratio.low >= _RATIO_MOVED
        )

    def _filter(self, raw: float, dt: float, gap: float) -> None:
        if self.degrees is None or gap > _GAP:
            self.degrees = raw
            self._trend.clear()
        else:
            self.degrees += (raw - self.degrees) * (1 - math.exp(-dt / FILTER_SECONDS))
        self.problem = ""
        self._trend.append((self._at, raw))
        while self._trend[-1][0] - self._trend[0][0] > _TREND_SECONDS:
            self._trend.popleft()

    def _distrust(self, problem: str) -> None:
        self.degrees, self.problem = None, problem
        self._trend.clear()

    def __repr__(self) -> str:
        return f"<Sensor {self.source} {f'{self.degrees:.1f} C' if self.degrees is not None else self.problem}>"
