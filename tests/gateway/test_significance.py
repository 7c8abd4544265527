"""Tests that may be looked at after every observation, over streams whose truth is known."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.models.significance import Comparison, above, below, bounds

STREAMS = 300


def stream(seed, share, other_share, length, part=0.1):
    """The comparison after each observation of a canary with a part of the traffic."""
    dice, comparison = random.Random(seed), Comparison()
    for _ in range(length):
        if dice.random() < part:
            comparison.add(dice.random() < share)
        else:
            comparison.add_other(dice.random() < other_share)
    return comparison


@pytest.mark.parametrize(("share", "part"), [(0.02, 0.1), (0.5, 0.1), (0.1, 0.5)])
def test_streams_of_the_same_share_are_told_apart_no_more_often_than_alpha_however_often_one_looks(share, part):
    # The p value is the least over all times, so looking at the end is looking after each of them.
    found = [stream(seed, share, share, 800, part).p for seed in range(STREAMS)]
    for alpha in (0.2, 0.05, 0.01):
        assert sum(p <= alpha for p in found) <= alpha * STREAMS
    assert min(found) < 1  # it was looking


def test_a_fixed_size_test_that_is_looked_at_as_often_is_wrong_far_more_often():
    wrong = 0
    for seed in range(100):
        dice, hits = random.Random(seed), 0
        for total in range(1, 801):
            hits += dice.random() < 0.5
            if total >= 20 and abs(hits - total / 2) > 1.96 * math.sqrt(total / 4):
                wrong += 1
                break
    assert wrong > 20  # what our p value is spared


@pytest.mark.parametrize(
    ("share", "other", "length", "part"), [(0.2, 0.01, 1500, 0.1), (1.0, 0.0, 150, 0.1), (0.8, 0.9, 2000, 0.5)]
)
def test_a_real_difference_is_found_and_its_direction_too(share, other, length, part):
    ended = [stream(seed, share, other, length, part) for seed in range(100)]
    found = [each for each in ended if (each.more if share > other else each.fewer)(0.05)]
    assert len(found) >= 95
    assert not any((each.fewer if share > other else each.more)(0.05) for each in ended)


def test_the_rates_are_those_of_the_streams():
    comparison = Comparison()
    assert (comparison.rate, comparison.other_rate, comparison.p) == (None, None, 1.0)
    for hit in (True, False, False, False):
        comparison.add(hit)
    comparison.add_other(True)
    assert (comparison.rate, comparison.other_rate) == (0.25, 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_p_never_rises_and_equals_the_ratio_computed_one_observation_at_a_time(seen):
    comparison, last = Comparison(), 1.0
    counts, log_mixture = {True: [0, 0], False: [0, 0]}, 0.0
    best = 0.0
    for first, hit in seen:
        (comparison.add if first else comparison.add_other)(hit)
        arm = counts[first]
        log_mixture += math.log((arm[hit] + 0.5) / (sum(arm) + 1))  # the predictions of Krichevsky and Trofimov
        arm[hit] += 1
        pooled = [a + b for a, b in zip(*counts.values(), strict=True)]
        same = sum(n * math.log(n / sum(pooled)) for n in pooled if n)
        best = max(best, log_mixture - same)
        assert comparison.p <= last
        last = comparison.p
    assert last == pytest.approx(math.exp(-best), rel=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_bound_is_ever_wrong_no_more_often_than_alpha(share):
    wrong = 0
    for seed in range(STREAMS):
        dice, hits = random.Random(seed), 0
        for total in range(1, 401):
            hits += dice.random() < share
            if below(share, hits, total, 0.1) or above(share, hits, total, 0.1):
                wrong += 1
                break
    assert 0 < wrong <= 0.1 * STREAMS


def test_a_share_that_is_far_too_low_is_seen_within_tens():
    assert below(0.9, 0, 20)
    assert below(0.9, 40, 60)
    assert not below(0.9, 54, 60)
    assert not below(0.9, 50, 60)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 0.5))
def test_bounds_hold_the_rate_and_are_where_the_answer_turns(hits, misses, alpha):
    total = hits + misses
    low, high = bounds(hits, total, alpha)
    assert 0 <= low <= (hits / total if total else 0.5) <= high <= 1
    if high < 0.999:
        assert below(min(1.0, high + 1e-6), hits, total, alpha)
        assert not below(high - 1e-6, hits, total, alpha)
    if low > 0.001:
        assert above(low - 1e-6, hits, total, alpha)


@pytest.mark.parametrize(
    ("share", "hits", "total", "told"), [(1.0, 19, 20, True), (1.0, 20, 20, False), (0.0, 0, 9, False)]
)
def test_the_ends_of_the_scale_are_shares_too(share, hits, total, told):
    assert below(share, hits, total) is told
