"""The adaptive concurrency limit: its bounds, what makes it grow and sink, and that it comes to rest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.gradient import FORGET_MINIMUM, WINDOW_SAMPLES, GradientLimit

samples = st.lists(
    st.tuples(st.one_of(st.floats(0.0, 10.0), st.sampled_from([math.nan, math.inf, -1.0])), st.integers(0, 5000)),
    max_size=400,
)
gaps = st.floats(0.0, 1.0)


def play(limit, seconds, rtt, in_flight=None, start=0.0, rate=100.0):
    """Runs at ``rate`` for so long; ``rtt(limit)`` is what one takes while as many as the limit are in flight."""
    now = start
    for index in range(int(seconds * rate)):
        now = start + index / rate
        limit.sample(rtt(limit.limit), limit.limit if in_flight is None else in_flight, now)
    return now


def queueing(at_once, service=0.01):
    """Of a chip that does so many at once: more of them take longer, in proportion."""
    return lambda held: service * max(1.0, held / at_once)


@given(samples, gaps, st.integers(1, 50), st.integers(0, 500), st.integers(0, 500))
def test_the_limit_stays_within_its_bounds_whatever_is_measured(runs, gap, lowest, more, initial):
    limit = GradientLimit(initial, lowest, lowest + more)
    now = 0.0
    for rtt, in_flight in runs:
        now += gap
        limit.sample(rtt, in_flight, now)
        assert lowest <= limit.limit <= lowest + more


@given(samples, gaps)
def test_one_window_takes_at_most_half_and_adds_at_most_the_root(runs, gap):
    limit = GradientLimit(100, 1, 10_000)
    now, since_move, before = 0.0, 0, limit.limit
    for rtt, in_flight in runs:
        now += gap
        limit.sample(rtt, in_flight, now)
        since_move += 1
        if limit.limit != before:
            assert since_move >= min(WINDOW_SAMPLES, len(runs))
            assert before / 2 - 1 <= limit.limit <= before + math.sqrt(before) + 1
            since_move, before = 0, limit.limit


@given(samples, gaps)
def test_the_same_samples_give_the_same_state(runs, gap):
    one, other = GradientLimit(10, 2, 100), GradientLimit(10, 2, 100)
    for limit in (one, other):
        for index, (rtt, in_flight) in enumerate(runs):
            limit.sample(rtt, in_flight, index * gap)
    state = [[getattr(limit, slot) for slot in GradientLimit.__slots__] for limit in (one, other)]
    assert state[0] == state[1]


def test_a_chip_that_does_one_at_a_time_ends_with_a_short_queue():
    limit = GradientLimit(4)
    play(limit, 0.2, lambda held: 0.01, in_flight=1)
    play(limit, 20.0, queueing(1), start=0.2)
    assert 2 <= limit.limit <= 6


def test_lasting_load_does_not_pass_for_a_slower_chip():
    limit = GradientLimit(4)
    play(limit, 0.2, lambda held: 0.01, in_flight=1)
    play(limit, 600.0, queueing(1), start=0.2)
    assert limit.minimum == 0.01
    assert limit.limit <= 6


def test_a_target_that_works_in_parallel_is_given_as_much_as_it_takes():
    limit = GradientLimit(2)
    play(limit, 20.0, queueing(32))
    assert 32 <= limit.limit <= 80


def test_it_does_not_grow_while_it_is_not_used():
    limit = GradientLimit(20)
    play(limit, 10.0, lambda held: 0.01, in_flight=3)
    assert limit.limit == 20
    play(limit, 10.0, lambda held: 0.01, start=10.0)
    assert limit.limit > 40


def test_it_never_falls_below_the_instances():
    limit = GradientLimit(16, lowest=4)
    play(limit, 1.0, lambda held: 0.01)
    play(limit, 60.0, lambda held: 5.0, in_flight=20, start=1.0)
    assert limit.limit == 4


def test_one_slow_run_does_not_move_it():
    limit = GradientLimit(20)
    play(limit, 1.0, lambda held: 0.01, in_flight=5)
    limit.sample(0.04, 5, 1.0)
    play(limit, 1.0, lambda held: 0.01, in_flight=5, start=1.01)
    assert limit.limit == 20


def test_the_fastest_time_is_forgotten_slowly():
    limit = GradientLimit(4, highest=4)
    play(limit, 1.0, lambda held: 0.01)
    play(limit, 3.0, lambda held: 0.03, in_flight=1, start=1.0)
    assert limit.minimum < 0.013
    play(limit, 4 * FORGET_MINIMUM, lambda held: 0.03, in_flight=1, start=4.0)
    assert limit.minimum > 0.028


def test_a_faster_run_is_believed_with_its_window():
    limit = GradientLimit(4)
    play(limit, 1.0, lambda held: 0.03)
    play(limit, 0.5, lambda held: 0.01, start=1.0)
    assert limit.minimum == 0.01


def test_runs_of_no_time_at_all_are_harmless():
    limit = GradientLimit(4)
    play(limit, 1.0, lambda held: 0.0)
    assert limit.limit >= 4


@pytest.mark.parametrize(("lowest", "highest"), [(0, 10), (5, 4)])
def test_bounds_out_of_order_are_refused(lowest, highest):
    with pytest.raises(ValueError, match="lowest <= highest"):
        GradientLimit(4, lowest, highest)


def test_its_repr_shows_where_it_stands():
    limit = GradientLimit(4, 2, 8)
    assert repr(limit) == "<GradientLimit 4 of 2 to 8, fastest unknown>"
