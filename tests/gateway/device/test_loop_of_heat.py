"""A chip that warms by its work and throttles, with the tracker deciding which classes it serves: the closed loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from gateway.config import Bands
from gateway.device.sensors import Reading
from gateway.device.shedding import sheds
from gateway.device.thermal import ThermalTracker

DWELL = 5.0
STEP = 0.1
SENSED = 0.5
RUN_MS = 3.0
BUDGET_MS = 10.0
THROTTLES_AT = 80.0
SLOWDOWN = 4.0
CLASSES = {"high": (2, 0.3), "normal": (5, 0.4), "low": (8, 0.3)}
"""Priority, and share of the chip's full load."""


@dataclass
class Chip:
    """First-order heat: the temperature goes to ``ambient + rise x load`` with the time constant ``tau`` seconds."""

    celsius: float = 45.0
    ambient: float = 25.0
    rise: float = 60.0
    tau: float = 30.0
    slow: bool = False

    def step(self, load: float, dt: float) -> None:
        self.celsius += (self.ambient + self.rise * load - self.celsius) * dt / self.tau
        self.slow = self.celsius >= (THROTTLES_AT - 4 if self.slow else THROTTLES_AT)

    @property
    def run_ms(self) -> float:
        return RUN_MS * (SLOWDOWN if self.slow else 1.0)


@dataclass
class Played:
    """What happened: when each class left and returned, changes of level, and the longest time each ran slow."""

    left: dict[str, float] = field(default_factory=dict)
    returned: dict[str, float] = field(default_factory=dict)
    changes: list[float] = field(default_factory=list)
    late: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0.0))
    longest_late: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0.0))
    hottest: float = 0.0
    slow_from: float | None = None


def play(ambient_at, seconds: float, sensor=lambda celsius: celsius) -> Played:
    tracker = ThermalTracker(Bands(), DWELL, forecast_seconds=5.0, stale_seconds=1.5)
    chip, played, level = Chip(), Played(), "nominal"
    reading = None
    for tick in range(round(seconds / STEP)):
        now = tick * STEP
        if tick % round(SENSED / STEP) == 0:
            reading = Reading("zone", now, sensor(chip.celsius))
        heat = tracker.step(reading, chip.run_ms / RUN_MS if level != "critical" else None, now)
        if heat.sheds != level:
            played.changes.append(now)
        for name, (priority, _) in CLASSES.items():
            if sheds(heat.sheds, priority) and not sheds(level, priority):
                played.left.setdefault(name, now)
            if sheds(level, priority) and not sheds(heat.sheds, priority):
                played.returned[name] = now
            slow = not sheds(heat.sheds, priority) and chip.run_ms > BUDGET_MS
            played.late[name] = played.late[name] + STEP if slow else 0.0
            played.longest_late[name] = max(played.longest_late[name], played.late[name])
        if chip.slow and played.slow_from is None:
            played.slow_from = now
        level = heat.sheds
        chip.ambient = ambient_at(now)
        chip.step(sum(share for priority, share in CLASSES.values() if not sheds(level, priority)), STEP)
        played.hottest = max(played.hottest, chip.celsius)
    return played


def hot_hall(now: float) -> float:
    """A hall that warms from 15 to 70 degrees C in two minutes, stays so for one, and cools again."""
    return 15 + 55 * max(0.0, min(1.0, now / 120, (300 - now) / 120))


def test_traffic_leaves_before_the_chip_throttles_in_the_order_low_normal_high_and_returns_in_the_other():
    played = play(hot_hall, 420)
    assert played.left["low"] < played.left["normal"] < played.left.get("high", 421.0)
    assert played.returned["normal"] < played.returned["low"]
    assert played.longest_late["low"] == played.longest_late["normal"] == 0


def test_levels_change_at_most_once_per_dwell_time_also_where_shedding_itself_cools_the_chip():
    played = play(lambda now: 20.0, 600)
    assert all(after - before >= DWELL for before, after in pairwise(played.changes))
    assert len(played.changes) <= 2 * 10
    assert played.hottest < THROTTLES_AT


def test_with_a_frozen_sensor_the_service_times_move_traffic_within_two_seconds_of_throttling():
    frozen = play(hot_hall, 420, sensor=lambda celsius: -87.9)
    assert frozen.slow_from is not None
    assert 0 < frozen.left["low"] - frozen.slow_from <= 2.0
    assert 0 < frozen.left["normal"] - frozen.slow_from <= 2.0
    # Where a class has just returned, its next move has to wait for the dwell time.
    assert frozen.longest_late["low"] <= DWELL + 1.0
