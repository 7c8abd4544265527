"""ThermalTracker: from readings and service times to how warm an accelerator is and what has to leave it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.config import Bands, HeatSettings
from gateway.device.sensors import Reading
from gateway.device.shedding import LEVELS
from gateway.device.trust import Sensor

NOMINAL, WARM, HOT, CRITICAL = range(4)
_BEFORE_LIMIT = 3.0
"""Degrees C below the device's own first trip point at which it counts as hot, even if the bands say later."""
_RATIO_LIMITS = ((1.5, 1.25), (2.5, 2.0))
"""Service time over its baseline that is entered and left as warm and as hot. By itself it never says critical: a slow
accelerator still is better than none."""
_RATIO_SUSTAINED = 0.6
"""Seconds for which the ratio must stay beyond a limit; with steps each half second it acts within 1 s."""
_RATIO_GAP = 1.0
"""Seconds without a ratio after which what it began to say is forgotten."""
_RATIO_KEPT = 10.0
"""Seconds without a ratio (nothing ran) after which what it said is over: only traffic can tell."""
_LOST_KEPT = 30.0
"""Seconds for which the level of a sensor that was lost while warm is kept; then the service times must say."""
_MUTED = 120.0
"""Seconds for which forecasts do not act after one that did not come true."""
_FORETOLD = 60.0
"""Seconds: a crossing that is further away is not worth telling."""

_STALE_INTERVALS = 3
_LEAST_STALE = 1.0
"""Seconds; reports of workers come ten times a second, whatever the interval of the sensors is."""


@dataclass(frozen=True, slots=True)
class Heat:
    """How warm an accelerator is, and why."""

    band: str = "unknown"
    """What the sensors say: unknown, nominal, warm, hot or critical."""
    sheds: str = "nominal"
    """What shedding acts on, after dwell: nominal, warm, hot or critical."""
    temperature_c: float | None = None
    """Of the hottest sensor that is believed, filtered."""
    throttled: bool | None = None
    forecast: str = ""
    """Like ``reaches hot in 12 s``."""
    reason: str = ""
    """Why something is shed, for people."""
    witness: str = ""
    """Who says so: sensor, forecast, throttle, service-time; empty while nothing is shed."""
    distrusted: str = ""
    """Which sensors are not believed, and why."""
    load: float | None = None
    throttle_events: int = 0
    """Since the tracker began."""
    lost: str = ""
    """Why the device is gone, as its driver says."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """One witness's word for a level."""

    level: int
    witness: str
    reason: str
    at_once: bool = False


class ThermalTracker:
    """The heat of one accelerator over time. Pure: no clock and no files; ``step`` it at least twice a second."""

    def __init__(self, bands: Bands, dwell_seconds: float, forecast_seconds: float, stale_seconds: float = 3.0) -> None:
        """``stale_seconds``: age at which a reading says nothing any more; three intervals of reading."""
        self._limits = (bands.warm, bands.hot, bands.critical)
        self._dwell = dwell_seconds
        self._horizon = forecast_seconds
        self._stale = stale_seconds
        self._latest: dict[str, Reading] = {}
        self._sensors: dict[tuple[str, str], Sensor] = {}
        self._bands: dict[tuple[str, str], int] = {}
        self._kept: dict[tuple[str, str], tuple[int, float]] = {}
        self._ratio = _RatioWitness()
        self._level = NOMINAL
        self._changed_at = -math.inf
        self._lower_since: float | None = None
        self._foretold = False
        self._muted_until = -math.inf
        self._why = _Claim(NOMINAL, "", "")
        self._events = 0
        self._was_throttled = False

    def step(self, reading: Reading | None, ratio: float | None, now: float) -> Heat:
        """How warm it is now.

        Args:
            reading: the newest one, which may be the same as at the step before; None: there is none. Readings of
                different ``source`` (the device's sensors, the worker's reports) stand beside each other.
            ratio: service time over its calibrated baseline, of what ran of late; None: nothing did.
            now: monotonic seconds.
        """
        ratio = ratio if ratio is not None and math.isfinite(ratio) and ratio > 0 else None
        if reading is not None:
            self._take(reading, ratio)
        fresh = [each for each in self._latest.values() if now - each.at <= self._stale]
        throttled = _any(each.throttled for each in fresh)
        self._judge(now)
        claims = [*self._of_sensors(throttled, now), *self._of_ratio(ratio, now), *self._of_lost_sensors(now)]
        top = max(claims, key=lambda claim: claim.level, default=_Claim(NOMINAL, "", ""))
        self._move(top, claims, now)
        return self._heat(top, throttled, fresh)

    # -- what the sensors say ----------------------------------------------------------------------------------

    def _take(self, reading: Reading, ratio: float | None) -> None:
        before = self._latest.get(reading.source)
        if before is not None and reading.at <= before.at:
            return
        self._latest[reading.source] = reading
        self._events += max(0, reading.throttle_events)
        if reading.throttled and not self._was_throttled and not reading.throttle_events:
            self._events += 1
        self._was_throttled = bool(_any(each.throttled for each in self._latest.values()))
        load = reading.load if reading.load is not None and math.isfinite(reading.load) else None
        present = set()
        for part in reading.parts or (reading,):
            key = (reading.source, part.source)
            if part.temperature_c is not None and key not in self._sensors:
                self._sensors[key] = Sensor(part.source)
            if key in self._sensors:
                present.add(key)
                self._sensors[key].take(part, load, ratio)
        for key, sensor in self._sensors.items():
            if key[0] == reading.source and key not in present:
                sensor.missing()

    def _judge(self, now: float) -> None:
        """The band of each sensor that is believed; what a lost one said is kept for a while."""
        for key, sensor in self._sensors.items():
            sensor.grow_stale(self._stale, now)
            if sensor.degrees is not None:
                limits = self._limits_of(sensor)
                self._bands[key] = banded(sensor.degrees, self._bands.get(key, NOMINAL), limits)
                self._kept.pop(key, None)
                continue
            lost = min(self._bands.pop(key, NOMINAL), self._level)
            if lost > NOMINAL:
                self._kept[key] = lost, now + _LOST_KEPT
        self._kept = {key: (level, until) for key, (level, until) in self._kept.items() if now < until}

    def _limits_of(self, sensor: Sensor) -> tuple[tuple[float, float], ...]:
        """The bands, with warm and hot lowered where the chip itself slows down before."""
        warm, hot, critical = self._limits
        shift = 0.0 if sensor.limit_c is None else max(0.0, hot[0] - (sensor.limit_c - _BEFORE_LIMIT))
        return ((warm[0] - shift, warm[1] - shift), (hot[0] - shift, hot[1] - shift), critical)

    def _of_sensors(self, throttled: bool | None, now: float) -> list[_Claim]:
        claims = []
        hottest = self._hottest()
        degrees = "" if hottest is None else f" at {self._sensors[hottest].degrees:.0f} °C"
        if throttled:
            claims.append(_Claim(HOT, "throttle", f"throttled by the device{degrees}", at_once=True))
        if hottest is not None:
            key = max(self._bands, key=lambda each: self._bands[each])
            band = self._bands[key]
            at = f"{self._sensors[key].degrees:.0f} °C"
            claims.append(_Claim(band, "sensor", f"{LEVELS[band]} at {at}", at_once=band == CRITICAL))
            for each in self._bands:
                seconds = self._seconds_to_next(each)
                if seconds is None or seconds >= self._horizon or self._bands[each] >= HOT or now < self._muted_until:
                    continue
                claims.append(_Claim(self._bands[each] + 1, "forecast", self._forecast_text(each, seconds)))
        return claims

    def _seconds_to_next(self, key: tuple[str, str]) -> float | None:
        """Until the sensor enters the next band at its present slope; None: it is not on its way there."""
        sensor, band = self._sensors[key], self._bands[key]
        trend = sensor.slope()
        if trend is None or band >= CRITICAL:
            return None
        slope, degrees = trend
        return max(0.0, (self._limits_of(sensor)[band][0] - degrees) / slope)

    def _forecast_text(self, key: tuple[str, str], seconds: float) -> str:
        return f"reaches {LEVELS[self._bands[key] + 1]} in {max(1, round(seconds))} s"

    def _forecast(self) -> str:
        coming = [(seconds, key) for key in self._bands if (seconds := self._seconds_to_next(key)) is not None]
        if not coming or min(coming)[0] > _FORETOLD:
            return ""
        seconds, key = min(coming)
        return self._forecast_text(key, seconds)

    def _hottest(self) -> tuple[str, str] | None:
        believed = [(sensor.degrees, key) for key, sensor in self._sensors.items() if sensor.degrees is not None]
        return max(believed)[1] if believed else None

    def _of_ratio(self, ratio: float | None, now: float) -> list[_Claim]:
        level = self._ratio.step(ratio, now)
        return [_Claim(level, "service-time", f"service time {self._ratio.last:.1f} x its baseline")] if level else []

    def _of_lost_sensors(self, now: float) -> list[_Claim]:
        if not self._kept:
            return []
        level, until = max(self._kept.values())
        text = f"was {LEVELS[level]} when its sensor was lost {now - until + _LOST_KEPT:.0f} s ago"
        return [_Claim(level, "sensor", text)]

    # -- what follows ------------------------------------------------------------------------------------------

    def _move(self, top: _Claim, claims: Sequence[_Claim], now: float) -> None:
        """One change per dwell time at most, down by one level at a time; what the chip itself does acts at once."""
        urgent = max((claim for claim in claims if claim.at_once), key=lambda claim: claim.level, default=None)
        rested = now - self._changed_at >= self._dwell
        if top.level >= self._level:
            self._lower_since = None
        elif self._lower_since is None:
            self._lower_since = now
        if urgent is not None and urgent.level > self._level:
            self._change(max(urgent, top if rested else urgent, key=lambda claim: claim.level), now)
        elif top.level > self._level and rested:
            self._change(top, now)
        elif self._lower_since is not None and rested and now - self._lower_since >= self._dwell:
            if self._foretold:
                self._muted_until = now + _MUTED
            self._change(_Claim(self._level - 1, self._why.witness, self._why.reason), now)
        if top.level >= self._level > NOMINAL:
            self._why = top
        if max(self._bands.values(), default=NOMINAL) >= self._level:
            self._foretold = False  # it came true

    def _change(self, claim: _Claim, now: float) -> None:
        self._foretold = claim.witness == "forecast" and claim.level > self._level
        self._level, self._changed_at, self._why = claim.level, now, claim

    def _heat(self, top: _Claim, throttled: bool | None, fresh: Sequence[Reading]) -> Heat:
        hottest = self._hottest()
        reason = self._why.reason if self._level else ""
        if top.level < self._level:
            degrees = "" if hottest is None else f", now at {self._sensors[hottest].degrees:.0f} °C"
            reason = f"{LEVELS[self._level]} until it has been cooler for {self._dwell:g} s{degrees}"
        loads = [each.load for each in fresh if each.load is not None and math.isfinite(each.load)]
        return Heat(
            band=LEVELS[max(self._bands.values())] if self._bands else "unknown",
            sheds=LEVELS[self._level],
            temperature_c=None if hottest is None else self._sensors[hottest].degrees,
            throttled=throttled,
            forecast=self._forecast(),
            reason=reason,
            witness=self._why.witness if self._level else "",
            distrusted=self._distrusted(),
            load=max(loads, default=None),
            throttle_events=self._events,
            lost=next((each.lost for each in fresh if each.lost), ""),
        )

    def _distrusted(self) -> str:
        """Of every sensor that is not believed, and of what could not be read at all."""
        doubts = [f"{sensor.source}: {sensor.problem}" for sensor in self._sensors.values() if sensor.degrees is None]
        for reading in self._latest.values():
            for part in reading.parts or (reading,):
                if part.problem and (reading.source, part.source) not in self._sensors:
                    doubts.append(f"{part.source}: {part.problem}")
        return "; ".join(doubts)

    def __repr__(self) -> str:
        return f"<ThermalTracker {LEVELS[self._level]} {list(self._sensors.values())}>"


def tracker_of(heat: HeatSettings) -> ThermalTracker:
    """One with the settings of the device config."""
    stale = max(_LEAST_STALE, _STALE_INTERVALS * heat.interval_seconds)
    return ThermalTracker(heat.bands, heat.dwell_seconds, heat.forecast_seconds, stale)


class _RatioWitness:
    """A level by the service-time ratio: entered and left at different values, each sustained."""

    def __init__(self) -> None:
        self.last = 0.0
        self._level = NOMINAL
        self._beyond_since: float | None = None
        self._told_at = -math.inf

    def step(self, ratio: float | None, now: float) -> int:
        if ratio is None:
            if now - self._told_at >= _RATIO_GAP:
                self._beyond_since = None
            if now - self._told_at >= _RATIO_KEPT:
                self._level = NOMINAL
            return self._level
        self.last, self._told_at = ratio, now
        level = banded(ratio, self._level, _RATIO_LIMITS)
        if level == self._level:
            self._beyond_since = None
        elif self._beyond_since is None:
            self._beyond_since = now
        elif now - self._beyond_since >= _RATIO_SUSTAINED:
            self._level, self._beyond_since = level, None
        return self._level


def banded(value: float, level: int, limits: Sequence[tuple[float, float]]) -> int:
    """The level of a value, given the present one: (enter, leave) of level 1, 2, ... ; between the two it stays."""
    while level < len(limits) and value >= limits[level][0]:
        level += 1
    while level > 0 and value <= limits[level - 1][1]:
        level -= 1
    return level


def _any(flags: Iterable[bool | None]) -> bool | None:
    known = [flag for flag in flags if flag is not None]
    return any(known) if known else None
