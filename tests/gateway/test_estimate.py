"""Run-time estimates: what their quantiles promise, how they follow a change, and what moves them not."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.estimate import (
    ANY_RUN,
    FIRST_RUNS,
    LEAST,
    MAX_AGE,
    MOST,
    MOST_CLASSES,
    TURN,
    Estimates,
    RunEstimate,
)

QS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
seconds = st.floats(1e-4, 1.0)
gaps = st.floats(0.0, 2.0)
series = st.lists(st.tuples(seconds, gaps), min_size=1, max_size=300)


def fed(runs, estimate=None, start=0.0, gap=0.02):
    """An estimate that has seen these runs, one each ``gap`` seconds."""
    estimate = estimate or RunEstimate()
    for index, each in enumerate(runs):
        estimate.add(each, start + index * gap)
    return estimate


def steady(count, level=0.004, spread=0.15, seed=1):
    source = random.Random(seed)
    return [level * math.exp(source.gauss(0, spread)) for _ in range(count)]


def remembered(runs):
    """The window by its definition, without the rule of the turn: the last MOST, and of these the young or LEAST."""
    newest = runs[-1][1]
    last = runs[-MOST:]
    return [each for index, (each, at) in enumerate(last) if len(last) - index <= LEAST or at >= newest - MAX_AGE]


@given(series)
def test_a_quantile_is_bracketed_by_the_exact_quantiles_of_the_window(runs):
    estimate, now, seen = RunEstimate(turn=0), 0.0, []
    for each, gap in runs:
        now += gap
        estimate.add(each, now)
        seen.append((each, now))
    window = sorted(remembered(seen))
    assert estimate.count == len(window)
    for q in QS:
        found = estimate.quantile(q)
        below, up_to = sum(each < found for each in window), sum(each <= found for each in window)
        assert below <= q * (len(window) + 1)  # no smaller one would do
        assert up_to >= min(q * len(window), len(window) - 1)  # it covers its share, but for one run at most
    assert min(window) <= estimate.quantile(0.01) <= estimate.quantile(1.0) == max(window)


@given(series)
def test_a_turn_leaves_only_runs_of_the_window(runs):
    estimate, now, seen = RunEstimate(), 0.0, []
    for each, gap in runs:
        now += gap
        estimate.add(each, now)
        seen.append((each, now))
    newest = [each for each, _ in seen[-estimate.count :]]
    assert min(TURN, len(seen)) <= estimate.count <= MOST
    assert (estimate.quantile(0.0), estimate.quantile(1.0)) == (min(newest), max(newest))


@given(series, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=10))
def test_a_higher_quantile_is_never_a_shorter_time(runs, qs):
    estimate = fed([each for each, _ in runs])
    found = [estimate.quantile(q) for q in sorted(qs)]
    assert found == sorted(found)


@given(st.lists(seconds, min_size=8, max_size=MOST), st.floats(1.0, 100.0), st.sampled_from([0.5, 0.9, 0.95]))
def test_one_outlier_moves_no_quantile_by_more_than_one_rank(runs, outlier, q):
    estimate = RunEstimate(turn=0)
    fed(runs, estimate, gap=0.001)
    before = estimate.quantile(q)
    estimate.add(outlier, 1.0)
    window = sorted(([*runs, outlier])[-MOST:])
    found = estimate.quantile(q)
    assert found < outlier or outlier in runs
    # At most one run of the new window lies between; where one left the window to make room, that one too.
    between = [each for each in window if min(before, found) < each < max(before, found)]
    assert len(between) <= 1


def test_one_run_of_ten_times_the_length_among_64_does_not_move_the_p95():
    calm = steady(64)
    estimate = fed(calm)
    before = estimate.quantile(0.95)
    estimate.add(0.04, 64 * 0.02)
    ordered = sorted(calm)
    assert before in ordered
    assert estimate.quantile(0.95) <= ordered[ordered.index(before) + 1] < 0.008
    assert estimate.quantile(0.5) == pytest.approx(ordered[32], rel=0.05)


@given(
    st.lists(st.tuples(seconds, gaps, st.booleans()), max_size=200),
    st.one_of(seconds, st.floats(1.0, 60.0)),
    st.floats(0.0, 100.0),
)
def test_a_run_that_was_given_up_never_lowers_a_quantile(runs, at_least, later):
    estimate, now = RunEstimate(), 0.0
    for each, gap, ended in runs:
        now += gap
        (estimate.add if ended else estimate.add_at_least)(each, now)
    before = [estimate.quantile(q) for q in QS]
    estimate.add_at_least(at_least, now + later)
    for old, new in zip(before, [estimate.quantile(q) for q in QS], strict=True):
        assert old is None or new >= old


def test_runs_that_are_given_up_again_and_again_become_the_estimate():
    estimate = fed(steady(100))
    for index in range(TURN):
        estimate.add_at_least(0.05, 2.0 + index)
    assert estimate.quantile(0.5) == 0.05


def test_runs_given_up_in_their_usual_time_raise_the_middle_but_not_the_top():
    estimate = fed(steady(MOST))
    before = estimate.quantile(1.0), estimate.quantile(0.5)
    for index in range(MOST // 2):
        estimate.add_at_least(before[1], 2.6 + index * 0.02)
    assert estimate.quantile(1.0) == before[0]
    assert estimate.quantile(0.25) == before[1]
    assert estimate.count == MOST


@pytest.mark.parametrize("per_second", [1, 5, 60, 300])
def test_a_step_up_shows_in_the_p95_within_eight_runs(per_second):
    estimate = fed(steady(400), gap=1 / per_second)
    now = 400 / per_second
    for index, each in enumerate(steady(8, level=0.016, seed=2)):
        estimate.add(each, now + index / per_second)
    assert estimate.quantile(0.95) > 0.75 * 0.016 * math.exp(1.645 * 0.15)


@pytest.mark.parametrize("per_second", [1, 5, 60, 300])
def test_a_step_down_shows_in_the_p95_within_five_runs(per_second):
    estimate = fed(steady(400, level=0.016), gap=1 / per_second)
    now = 400 / per_second
    for index, each in enumerate(steady(5, seed=2)):
        assert estimate.quantile(0.95) > 0.012
        estimate.add(each, now + index / per_second)
    assert estimate.quantile(0.95) < 0.008


def test_a_change_that_is_too_small_for_a_turn_is_followed_by_age():
    estimate = RunEstimate(turn=0)
    fed(steady(200, level=0.006, spread=0.05), estimate, gap=1 / 40)
    fed(steady(130, level=0.005, spread=0.05), estimate, start=5.0, gap=1 / 40)
    assert estimate.quantile(0.95) < 0.0058


def test_an_idle_target_keeps_an_estimate():
    estimate = fed(steady(MOST))
    estimate.add(0.004, 3600.0)
    assert estimate.count == LEAST
    assert 0.003 < estimate.quantile(0.5) < 0.005


def test_a_burst_of_long_runs_is_over_when_short_ones_are_back():
    estimate = fed(steady(MOST))
    fed(steady(12, level=0.05), estimate, start=2.6)
    assert estimate.quantile(0.5) > 0.04
    fed(steady(12, seed=3), estimate, start=3.0)
    assert estimate.quantile(0.95) < 0.008


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -0.001])
def test_what_is_no_time_is_passed_over(nonsense):
    estimate = fed([0.004] * 10)
    estimate.add(nonsense, 1.0)
    estimate.add_at_least(nonsense, 1.0)
    assert (estimate.count, estimate.quantile(1.0)) == (10, 0.004)


def test_before_the_first_run_nothing_is_known():
    estimate = RunEstimate()
    assert (estimate.quantile(0.95), estimate.fastest, estimate.ratio(), estimate.count) == (None, None, None, 0)
    assert repr(estimate) == "<RunEstimate 0 runs, p95 unknown>"


def test_calibration_replaces_everything():
    estimate = fed(steady(200, level=0.1))
    estimate.calibrate([0.003, 0.004, 0.002], 10.0)
    assert (estimate.count, estimate.quantile(0.95), estimate.fastest) == (3, 0.004, 0.002)
    assert estimate.ratio() is None
    estimate.calibrate([], 11.0)
    assert (estimate.count, estimate.fastest) == (0, None)


def test_clearing_forgets_the_runs_but_not_what_the_target_can_do():
    estimate = fed(steady(200))
    fastest = estimate.fastest
    estimate.clear()
    assert (estimate.count, estimate.quantile(0.95), estimate.fastest) == (0, None, fastest)
    fed(steady(20, level=0.016), estimate, start=4.0)
    assert estimate.ratio() == pytest.approx(4.0, rel=0.2)


@given(series)
def test_the_fastest_time_is_never_above_the_present_low_end(runs):
    estimate, now = RunEstimate(), 0.0
    for each, gap in runs:
        now += gap
        estimate.add(each, now)
        assert 0 < estimate.fastest <= estimate.quantile(0.06)


def test_the_fastest_time_is_forgotten_slowly():
    estimate = fed(steady(100))
    fed(steady(500, level=0.04), estimate, start=2.0)  # ten seconds of load
    assert estimate.fastest < 0.012
    fed(steady(15000, level=0.04), estimate, start=12.0)  # five minutes: the chip has changed
    assert estimate.fastest > 0.025


def test_real_inputs_that_take_longer_than_zeros_do_not_look_like_a_throttled_chip():
    estimate = RunEstimate()
    estimate.calibrate([0.001] * 3, 0.0)
    for index, each in enumerate(steady(1000, level=0.005)):
        estimate.add(each, 0.1 + index * 0.02)
        assert estimate.ratio() is None or estimate.ratio() < 1.5
    assert estimate.ratio() is not None


def test_many_warm_up_runs_are_no_baseline_either():
    estimate = RunEstimate(turn=0)
    estimate.calibrate([0.001] * 60, 0.0)
    fed([0.005] * (FIRST_RUNS - 1), estimate, start=0.1)
    assert estimate.ratio() is None
    fed([0.005] * 16, estimate, start=1.0)
    assert estimate.ratio() > 0.9
    fed([0.005] * 100, estimate, start=1.5)
    assert estimate.ratio() < 1.5


@pytest.mark.parametrize("per_second", [30, 60, 300])
def test_a_chip_throttled_to_half_its_speed_is_seen_within_two_seconds(per_second):
    estimate = fed(steady(20 * per_second), gap=1 / per_second)
    assert estimate.ratio() == pytest.approx(1.0, abs=0.3)
    fed(steady(2 * per_second, level=0.008, seed=2), estimate, start=20.0, gap=1 / per_second)
    assert estimate.ratio() == pytest.approx(2.0, rel=0.25)


def test_the_baseline_sinks_but_never_rises():
    estimate = fed(steady(200, level=0.016))  # throttled from the start
    fed(steady(1000), estimate, start=4.0)
    assert estimate.ratio() == pytest.approx(1.0, abs=0.3)
    fed(steady(3000, level=0.016), estimate, start=24.0)
    assert estimate.ratio() > 3


def test_a_ratio_is_of_the_chip_and_not_of_the_mix_of_inputs():
    source = random.Random(4)
    even = [each * (5 if source.random() < 0.5 else 1) for each in steady(2000, level=0.002)]
    mostly_long = [each * (5 if source.random() < 0.9 else 1) for each in steady(500, level=0.002, seed=5)]
    estimate = fed(even)
    fed(mostly_long, estimate, start=40.0)
    assert estimate.quantile(0.5) > 0.008
    assert estimate.ratio() < 1.5


def test_a_baseline_of_zero_divides_nothing():
    estimate = fed([0.0] * 100)
    fed([0.001] * 50, estimate, start=2.0)
    assert math.isfinite(estimate.ratio())


@given(st.lists(st.tuples(seconds, gaps, st.sampled_from(["add", "add_at_least", "clear"])), max_size=200))
def test_the_same_inputs_give_the_same_state(inputs):
    one, other = RunEstimate(), RunEstimate()
    for estimate in (one, other):
        now = 0.0
        for each, gap, what in inputs:
            now += gap
            if what == "clear":
                estimate.clear()
            else:
                getattr(estimate, what)(each, now)
    assert [getattr(one, slot) for slot in RunEstimate.__slots__] == [
        getattr(other, slot) for slot in RunEstimate.__slots__
    ]


def test_each_size_class_has_its_own_times():
    estimates = Estimates()
    estimates.of(1000).add(0.002, 0.0)
    estimates.of(1_000_000).add(0.2, 0.0)
    assert estimates.of(1000) is estimates.of(600)
    assert estimates.quantile(1023, 0.95) == 0.002
    assert estimates.quantile(600_000, 0.95) == 0.2


def test_a_size_never_seen_is_guessed_in_proportion_upwards_and_as_it_is_downwards():
    estimates = Estimates()
    assert estimates.quantile(1000, 0.95) is None
    estimates.of(1000).add(0.002 + ANY_RUN, 0.0)
    assert estimates.quantile(4000, 0.95) == pytest.approx(4 * 0.002 + ANY_RUN)
    assert estimates.quantile(3, 0.95) == 0.002 + ANY_RUN
    assert (estimates.known(1000), estimates.known(4000)) == (True, False)
    estimates.of(2)
    assert estimates.quantile(2, 0.95) == 0.002 + ANY_RUN, "a class without runs knows nothing"


def test_a_guess_makes_no_budget_hopeless():
    estimates = Estimates()
    estimates.of(1000).add(0.002, 0.0)
    assert estimates.fastest(1000) == 0.002
    assert estimates.fastest(64_000) == 0.002
    assert estimates.fastest(10) is None


def test_calibration_forgets_the_sizes_of_another_process():
    estimates = Estimates()
    estimates.of(1_000_000).add(0.2, 0.0)
    estimates.calibrate(1000, [0.001, 0.002], 1.0)
    assert not estimates.known(1_000_000)
    assert estimates.quantile(1000, 1.0) == 0.002
    estimates.calibrate(1000, [], 2.0)
    assert (estimates.quantile(1000, 0.95), repr(estimates)) == (None, "<Estimates of nothing yet>")


def test_clearing_all_classes_forgets_their_runs_but_not_their_best():
    estimates = Estimates()
    estimates.of(1000).add(0.002, 0.0)
    estimates.clear()
    assert estimates.quantile(1000, 0.95) is None
    assert not estimates.known(1000)
    assert estimates.fastest(1000) == 0.002


@given(st.lists(st.integers(0, 1 << 40), max_size=100))
def test_the_number_of_size_classes_is_bounded_and_the_latest_stay(sizes):
    estimates = Estimates()
    for now, size in enumerate(sizes):
        estimates.of(size).add(0.001, float(now))
    latest = list(dict.fromkeys(size.bit_length() for size in reversed(sizes)))
    for size in sizes:
        assert estimates.known(size) == (size.bit_length() in latest[:MOST_CLASSES])


def test_the_ratio_is_that_of_the_size_used_last():
    estimates = Estimates()
    for now in range(100):
        estimates.of(1000).add(0.002, now * 0.02)
        estimates.of(100_000).add(0.02, now * 0.02)
    for now in range(20):
        estimates.of(1000).add(0.008, 2 + now * 0.02)
    assert estimates.ratio() == pytest.approx(4.0)
    estimates.of(100_000).add(0.02, 2.5)
    assert estimates.ratio() == pytest.approx(1.0)
    estimates.of(50).add(0.001, 2.6)
    assert estimates.ratio() == pytest.approx(1.0), "one run of a new size says nothing yet"
