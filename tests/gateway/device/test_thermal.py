"""Heat: bands, dwell, forecasts and witnesses, on scripted clocks."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Bands
from gateway.device.sensors import Reading, join
from gateway.device.shedding import LEVELS, sheds
from gateway.device.thermal import Heat, ThermalTracker, banded

DWELL = 5.0
STEP = 0.5
RANK = {level: rank for rank, level in enumerate(LEVELS)}


def tracker(**changes) -> ThermalTracker:
    given_settings = {"bands": Bands(), "dwell_seconds": DWELL, "forecast_seconds": 5.0, "stale_seconds": 1.5}
    return ThermalTracker(**(given_settings | changes))


class Run:
    """A tracker that is stepped twice a second."""

    def __init__(self, **changes) -> None:
        self.tracker = tracker(**changes)
        self.now = 100.0
        self.history: list[tuple[float, Heat]] = []

    def step(self, celsius: float | None, ratio: float | None = None, **fields) -> Heat:
        self.now += STEP
        heat = self.tracker.step(Reading("zone", self.now, celsius, **fields), ratio, self.now)
        self.history.append((self.now, heat))
        return heat

    def hold(self, seconds: float, celsius: float | None, ratio: float | None = None, **fields) -> Heat:
        return self.play(seconds, lambda t: celsius, lambda t: ratio, **fields)

    def play(
        self,
        seconds: float,
        celsius: Callable[[float], float | None],
        ratio: Callable[[float], float | None] = lambda t: None,
        **fields,
    ) -> Heat:
        began = self.now
        heat = Heat()
        for _ in range(round(seconds / STEP)):
            heat = self.step(celsius(self.now - began), ratio(self.now - began), **fields)
        return heat

    def changes(self) -> list[tuple[float, str]]:
        changes, before = [], "nominal"
        for at, heat in self.history:
            if heat.sheds != before:
                changes.append((at, heat.sheds))
                before = heat.sheds
        return changes


# -- shedding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "leaving"),
    [("nominal", []), ("warm", [7, 8, 9]), ("hot", [4, 5, 6, 7, 8, 9]), ("critical", list(range(1, 10)))],
)
def test_low_priorities_leave_first_then_normal_then_high(level, leaving):
    assert [priority for priority in range(1, 10) if sheds(level, priority)] == leaving


def test_a_request_without_a_priority_is_normal():
    assert not sheds("warm", 0)
    assert sheds("hot", 0)


# -- bands ---------------------------------------------------------------------------------------------------------


def test_a_cool_sensor_is_nominal_and_sheds_nothing():
    heat = Run().hold(5, 45.0)
    assert (heat.band, heat.sheds, heat.reason, heat.distrusted) == ("nominal", "nominal", "", "")
    assert heat.temperature_c == pytest.approx(45.0)


@pytest.mark.parametrize(("celsius", "band"), [(66, "warm"), (76, "hot"), (86, "critical")])
def test_a_hot_chip_is_believed_from_the_first_reading_on(celsius, band):
    heat = Run().step(float(celsius))
    assert (heat.band, heat.sheds, heat.witness) == (band, band, "sensor")
    assert heat.reason == f"{band} at {celsius} °C"


def test_a_band_is_left_only_below_its_lower_limit():
    run = Run()
    run.hold(10, 66.0)
    assert run.hold(30, 61.0).band == "warm"
    assert run.hold(10, 59.0).band == "nominal"


def test_without_any_sensor_heat_is_unknown_and_nothing_is_shed():
    heat = tracker().step(None, None, 1.0)
    assert (heat.band, heat.sheds, heat.temperature_c) == ("unknown", "nominal", None)


def test_a_chip_that_slows_down_early_is_hot_before_that():
    run = Run()
    assert run.hold(5, 68.0, limit_c=70.0).band == "hot"


@pytest.mark.parametrize("limit", [-273.0, 0.0, 20.0, math.nan, 1e6])
def test_a_limit_that_makes_no_sense_changes_nothing(limit):
    assert Run().hold(5, 50.0, limit_c=limit).band == "nominal"


def test_a_limit_far_above_the_bands_changes_nothing():
    run = Run()
    assert run.hold(5, 68.0, limit_c=97.0).band == "warm"


@given(st.floats(-50, 200), st.integers(0, 3))
def test_a_value_has_one_level_whatever_it_was_before_unless_it_lies_between_enter_and_leave(value, level):
    limits = ((65, 60), (75, 70), (85, 80))
    result = banded(value, level, limits)
    between = any(leave < value < enter for enter, leave in limits)
    assert between or result == sum(value >= enter for enter, _ in limits)
    assert banded(value, result, limits) == result


# -- over time -----------------------------------------------------------------------------------------------------


def ramp(points: list[tuple[float, float]]) -> Callable[[float], float]:
    def celsius(t: float) -> float:
        for (at, value), (end, last) in itertools.pairwise(points):
            if t <= end:
                return value + (last - value) * (t - at) / (end - at)
        return points[-1][1]

    return celsius


def test_a_ramp_to_throttling_and_back_goes_through_the_levels_in_order_and_back_again():
    run = Run()
    run.play(180, ramp([(0, 45), (60, 90), (80, 90), (140, 40), (180, 40)]))
    assert [level for _, level in run.changes()] == ["warm", "hot", "critical", "hot", "warm", "nominal"]


def test_a_ramp_is_met_before_the_band_is_entered():
    run = Run()
    run.play(60, ramp([(0, 45), (60, 90)]))
    first, level = run.changes()[0]
    assert level == "warm"
    assert 45 + 0.75 * (first - 100.0) < 65
    heat = dict(run.history)[first]
    assert heat.witness == "forecast"
    assert heat.reason.startswith("reaches warm in ")


def test_a_forecast_says_when_a_band_is_reached_also_when_it_is_too_far_to_act():
    run = Run()
    heat = run.play(20, lambda t: 50 + 0.25 * t)
    assert heat.sheds == "nominal"
    seconds = int(heat.forecast.removeprefix("reaches warm in ").removesuffix(" s"))
    assert seconds == pytest.approx(40, abs=2)


def test_noise_around_a_constant_forecasts_nothing():
    noise = random.Random(7)
    run = Run()
    run.play(300, lambda t: 58 + noise.uniform(-2, 2))
    assert run.changes() == []


def test_without_forecast_seconds_nothing_is_done_before_a_band_is_entered():
    run = Run(forecast_seconds=0.0)
    run.play(60, ramp([(0, 45), (60, 90)]))
    assert {heat.witness for _, heat in run.history} == {"", "sensor"}


def test_a_forecast_that_did_not_come_true_is_taken_back_and_the_next_ones_do_not_act():
    run = Run()
    run.play(12, ramp([(0, 55), (10, 63), (12, 63)]))
    run.hold(30, 63.0)
    run.play(20, ramp([(0, 63), (5, 56), (15, 63), (20, 63)]))
    assert [level for _, level in run.changes()] == ["warm", "nominal"]


def test_a_forecast_never_takes_everything_away():
    run = Run()
    run.play(20, ramp([(0, 76), (8, 84), (20, 84)]))
    assert "critical" not in {heat.sheds for _, heat in run.history}


@pytest.mark.parametrize("centre", [60, 65, 70, 75])
@pytest.mark.parametrize("period", [2, 4, 10, 15, 20, 40])
def test_a_saw_tooth_around_a_limit_does_not_flap(centre, period):
    def tooth(t: float) -> float:
        phase = (t % period) / period
        return centre - 2 + 4 * (2 * phase if phase < 0.5 else 2 - 2 * phase)

    run = Run()
    run.hold(10, centre - 2)
    run.play(300, tooth)
    assert len(run.changes()) <= 2 * 5


def test_at_most_one_change_per_dwell_time():
    noise = random.Random(3)
    run = Run()
    run.play(300, lambda t: 62 + 8 * math.sin(t / 4) + noise.uniform(-1, 1))
    times = [at for at, _ in run.changes()]
    assert times
    assert all(after - before >= DWELL for before, after in itertools.pairwise(times))


def test_it_goes_down_one_level_per_dwell_time():
    run = Run()
    run.hold(10, 90.0)
    run.hold(40, 89.0)
    run.play(5, ramp([(0, 89), (5, 40)]))
    run.hold(40, 40.0)
    levels = [level for _, level in run.changes()]
    assert levels == ["critical", "hot", "warm", "nominal"]
    times = [at for at, _ in run.changes()]
    assert all(after - before >= DWELL for before, after in itertools.pairwise(times))


# -- throttling ----------------------------------------------------------------------------------------------------


def test_a_chip_that_throttles_acts_at_once_though_it_is_cold():
    run = Run()
    run.hold(10, 36.0, throttled=False)
    heat = run.step(36.0, throttled=True)
    assert (heat.band, heat.sheds, heat.witness, heat.throttle_events) == ("nominal", "hot", "throttle", 1)
    assert heat.reason == "throttled by the device at 36 °C"


def test_a_flickering_throttle_bit_does_not_flap():
    run = Run()
    for _ in range(60):
        run.step(50.0, throttled=True)
        run.step(50.0, throttled=False)
    assert [level for _, level in run.changes()] == ["hot"]


def test_a_throttle_bit_is_believed_though_the_temperature_is_not():
    run = Run()
    run.hold(5, -87.9, throttled=False)
    heat = run.step(-87.9, throttled=True)
    assert (heat.band, heat.sheds) == ("unknown", "hot")


def test_a_throttle_bit_that_nobody_renews_is_unknown():
    run = Run()
    run.step(50.0, throttled=True)
    run.now += 10
    heat = run.tracker.step(None, None, run.now)
    assert heat.throttled is None


def test_critical_acts_at_once_within_a_dwell_time():
    run = Run()
    run.play(3, ramp([(0, 60), (1, 66), (3, 96)]))
    assert run.hold(2, 96.0).sheds == "critical"


# -- service times -------------------------------------------------------------------------------------------------


def test_a_throttle_that_shows_only_in_service_times_is_caught_within_two_seconds():
    run = Run()
    run.hold(10, 45.0, 1.0)
    began = run.now
    run.hold(2, 45.0, 3.2)
    heat = run.history[-1][1]
    assert (heat.band, heat.sheds, heat.witness) == ("nominal", "hot", "service-time")
    assert heat.reason == "service time 3.2 x its baseline"
    assert run.changes()[0][0] - began <= 2.0


def test_service_times_alone_are_enough_where_there_is_no_sensor():
    thermal = tracker()
    heats = [thermal.step(None, 3.0 if now > 5 else 1.0, now) for now in (at * 0.1 for at in range(80))]
    assert heats[49].sheds == "nominal"
    assert heats[-1].sheds == "hot"


def test_one_slow_moment_is_no_throttling():
    run = Run()
    run.hold(5, 45.0, 1.0)
    run.step(45.0, 4.0)
    run.hold(5, 45.0, 1.0)
    assert run.changes() == []


def test_service_times_alone_never_say_critical():
    run = Run()
    assert run.hold(30, 45.0, 50.0).sheds == "hot"


def test_a_ratio_is_left_below_where_it_was_entered():
    run = Run()
    run.hold(5, 45.0, 1.6)
    assert run.hold(20, 45.0, 1.4).sheds == "warm"
    assert run.hold(20, 45.0, 1.1).sheds == "nominal"


def test_an_accelerator_that_serves_nothing_any_more_is_tried_again():
    run = Run()
    run.hold(5, 45.0, 3.0)
    assert run.hold(30, 45.0, None).sheds == "nominal"


# -- distrust ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-87.9, -256.0, 255.0, 1e9, math.nan, math.inf, -math.inf, None])
def test_an_impossible_or_missing_temperature_is_neither_cold_nor_hot(value):
    run = Run()
    heat = run.hold(120, value, 1.0)
    assert (heat.band, heat.sheds, heat.temperature_c) == ("unknown", "nominal", None)
    assert run.changes() == []


@pytest.mark.parametrize("value", [0.0, 85.0])
def test_a_value_of_a_sensor_that_never_measured_is_not_believed_until_it_moves(value):
    run = Run()
    heat = run.hold(60, value)
    assert (heat.band, heat.sheds) == ("unknown", "nominal")
    assert "never another value" in heat.distrusted
    assert run.hold(5, value + 0.5).band != "unknown"


def test_a_worker_that_reports_such_a_value_itself_is_believed():
    assert Run().hold(2, 85.0, vouched=True).band == "critical"


@pytest.mark.parametrize("witness", ["ratio", "load"])
def test_a_frozen_sensor_is_distrusted(witness):
    run = Run()
    run.hold(40, 50.0, 1.0, load=0.1)
    heat = run.hold(60, 50.0, 1.4 if witness == "ratio" else 1.0, load=0.1 if witness == "ratio" else 0.9)
    assert heat.band == "unknown"
    assert "frozen at 50 °C" in heat.distrusted
    assert run.step(50.5, 1.0, load=0.9).band == "nominal"


def test_a_sensor_that_stands_still_while_nothing_changes_is_believed():
    assert Run().hold(600, 50.0, 1.0, load=0.5).band == "nominal"


def test_a_short_burst_does_not_prove_a_sensor_frozen():
    run = Run()
    run.hold(50, 50.0, 1.0, load=0.1)
    run.hold(1, 50.0, 1.0, load=1.0)
    assert run.hold(30, 50.0, 1.0, load=0.1).band == "nominal"


def test_a_coarse_sensor_may_stand_still_for_long():
    run = Run()
    run.hold(10, 45.0, load=0.1)
    run.hold(20, 50.0, load=0.1)
    assert run.hold(120, 50.0, load=0.9).band == "nominal"


def test_a_jump_that_no_chip_can_make_is_not_believed():
    run = Run()
    run.play(10, lambda t: 45 + 0.1 * (t % 1))
    heat = run.step(120.0)
    assert (heat.band, heat.sheds) == ("unknown", "nominal")
    assert run.step(45.0).band == "nominal"


def test_what_a_jump_led_to_is_believed_once_it_moves_like_a_chip():
    run = Run()
    run.play(10, lambda t: 45 + 0.1 * (t % 1))
    run.play(3, lambda t: 90 + t)
    assert run.history[-1][1].band == "critical"


def test_what_a_jump_led_to_is_believed_later_if_it_stands_still_there():
    run = Run()
    run.play(10, lambda t: 45 + 0.1 * (t % 1))
    assert run.hold(2.5, 90.0).band == "unknown"
    assert run.hold(2, 90.0).band == "critical"


def test_while_it_cools_the_reason_says_until_when():
    run = Run()
    run.hold(10, 80.0)
    run.play(6, ramp([(0, 80), (3, 55), (6, 55)]))
    assert run.history[-1][1].reason == "hot until it has been cooler for 5 s, now at 56 °C"


def test_the_loss_of_a_hot_sensor_keeps_the_level_for_a_while_and_no_longer():
    run = Run()
    run.play(20, lambda t: 77 + 0.1 * (t % 1))
    heat = run.hold(20, None)
    assert (heat.band, heat.sheds) == ("unknown", "hot")
    assert heat.reason.startswith("was hot when its sensor was lost")
    assert run.hold(40, None).sheds == "nominal"


def test_the_loss_of_a_cool_sensor_moves_nothing():
    run = Run()
    run.play(20, lambda t: 50 + 0.1 * (t % 1))
    run.hold(100, None)
    assert run.changes() == []


def test_a_reading_that_grows_old_is_unknown():
    thermal = tracker()
    thermal.step(Reading("zone", 1.0, 50.0), None, 1.0)
    assert thermal.step(None, None, 2.0).band == "nominal"
    heat = thermal.step(None, None, 3.0)
    assert heat.band == "unknown"
    assert "no reading for 2 s" in heat.distrusted


def test_the_same_reading_again_is_no_new_one():
    thermal = tracker()
    reading = Reading("zone", 1.0, 50.0, throttled=True, throttle_events=1)
    heats = [thermal.step(reading, None, 1.0 + at / 10) for at in range(10)]
    assert heats[-1].throttle_events == 1


def test_one_lying_sensor_does_not_hide_the_others():
    thermal = tracker()
    for step in range(20):
        now = step * STEP
        parts = [Reading("liar", now, -87.9), Reading("honest", now, 77.0 + step % 2 * 0.1)]
        heat = thermal.step(join("sensors", now, parts), None, now)
    assert (heat.band, heat.sheds) == ("hot", "hot")
    assert heat.distrusted == "liar: -87.9 °C is impossible"


def test_a_zone_that_vanishes_is_missing():
    thermal = tracker()
    thermal.step(join("sensors", 1.0, [Reading("a", 1.0, 50.0), Reading("b", 1.0, 51.0)]), None, 1.0)
    heat = thermal.step(join("sensors", 1.5, [Reading("a", 1.5, 50.0)]), None, 1.5)
    assert heat.band == "nominal"
    assert heat.distrusted == "b: missing"


def test_sensors_and_reports_of_the_worker_stand_beside_each_other():
    thermal = tracker()
    thermal.step(Reading("sensors", 1.0, 50.0), None, 1.0)
    heat = thermal.step(Reading("report", 1.1, 77.0, vouched=True), None, 1.1)
    assert heat.band == "hot"
    assert heat.distrusted == ""


def test_what_could_not_be_read_is_told():
    heat = tracker().step(Reading("apex", 1.0, problem="no apex_*"), None, 1.0)
    assert (heat.band, heat.distrusted) == ("unknown", "apex: no apex_*")


# -- properties ----------------------------------------------------------------------------------------------------

anything = st.one_of(st.none(), st.floats(), st.sampled_from([-87.9, 0.0, 85.0, 45.0, 66.0, 77.0, 88.0]))
steps = st.lists(
    st.tuples(
        anything,
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.floats()),
        st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.5, 3.0, 20.0]),
    ),
    max_size=120,
)
"""Temperature, throttle bit, service-time ratio, and seconds since the step before."""


def play(given_steps: Iterable[tuple[float | None, bool | None, float | None, float]]) -> list[tuple[float, Heat]]:
    thermal, history, now = tracker(), [], 0.0
    for celsius, throttled, ratio, dt in given_steps:
        now += dt
        reading = Reading("zone", now, celsius, throttled, limit_c=celsius, load=celsius)
        history.append((now, thermal.step(reading, ratio, now)))
    return history


@given(steps)
def test_whatever_is_read_a_change_comes_once_per_dwell_time_or_because_of_the_chip_itself(given_steps):
    before, changed = "nominal", -math.inf
    for now, heat in play(given_steps):
        assert heat.temperature_c is None or -40 <= heat.temperature_c <= 150
        if heat.sheds != before:
            urgent = RANK[heat.sheds] > RANK[before] and (heat.throttled or heat.band == "critical")
            assert urgent or now - changed >= DWELL
            assert RANK[heat.sheds] >= RANK[before] - 1
            before, changed = heat.sheds, now


@given(steps)
def test_readings_that_are_not_believed_never_raise_the_level(given_steps):
    before = "nominal"
    for _, heat in play((celsius, False, None, dt) for celsius, _, _, dt in given_steps):
        if heat.band == "unknown":
            assert RANK[heat.sheds] <= RANK[before]
        before = heat.sheds


@given(st.lists(st.floats(0, 3), min_size=10, max_size=200))
def test_a_rising_temperature_never_lowers_the_level_but_where_a_forecast_had_raised_it(rises):
    run, celsius = Run(forecast_seconds=0.0), 40.0
    for rise in rises:
        celsius = min(celsius + rise, 110.0)
        run.step(celsius)
    ranks = [RANK[heat.sheds] for _, heat in run.history]
    assert ranks == sorted(ranks)


@given(st.floats(0.2, 2.0))
def test_a_steady_rise_goes_through_every_level_in_order(slope):
    run = Run(dwell_seconds=2.0)
    run.play(60 / slope, lambda t: 45 + slope * t)
    assert [level for _, level in run.changes()] == ["warm", "hot", "critical"]
