"""Shares of versions: exact in every hundred decisions in a row, kept by keys, and changed with the fewest moves."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.places import place_of, reassign
from gateway.routing.split import Split

LABELS = ["1", "2.3", "b", "2026-11-26", "7"]


@st.composite
def shares(draw):
    """Up to five versions in any order, each with at least one percent, a hundred in all."""
    labels = draw(st.permutations(LABELS))[: draw(st.integers(1, len(LABELS)))]
    cuts = sorted(draw(st.sets(st.integers(1, 99), min_size=len(labels) - 1, max_size=len(labels) - 1)))
    return [(label, high - low) for label, (low, high) in zip(labels, pairwise([0, *cuts, 100]), strict=True)]


def decided(split, count):
    return [split.choose() for _ in range(count)]


@given(shares(), st.integers(0, 500))
def test_every_hundred_decisions_in_a_row_hold_the_percents_exactly(wanted, skipped):
    split = Split(wanted)
    decided(split, skipped)
    assert Counter(decided(split, 100)) == dict(wanted)


@given(shares(), st.lists(st.integers(0, 130), max_size=4))
def test_a_split_that_is_made_anew_with_the_same_shares_goes_on_as_if_it_were_not(wanted, lengths):
    split, undisturbed = Split(wanted), Split(wanted)
    for length in lengths:
        assert decided(split, length) == decided(undisturbed, length)
        split = Split.continuing(split, wanted[::-1])
    assert decided(split, 100) == decided(undisturbed, 100)


@given(st.lists(shares(), min_size=2, max_size=4), st.integers(0, 99), st.integers(0, 100))
def test_a_hundred_in_a_row_across_a_change_hold_between_the_two_shares(history, skipped, before_change):
    split = None
    for wanted in history[:-1]:
        split = Split.continuing(split, wanted)
        decided(split, skipped)
    seen = decided(split, before_change)
    split = Split.continuing(split, history[-1])
    counts, old, new = Counter(seen + decided(split, 100 - before_change)), dict(history[-2]), dict(history[-1])
    for label in LABELS:
        known = sorted((old.get(label, 0), new.get(label, 0)))
        assert known[0] <= counts[label] <= known[1]


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 99))
def test_a_canary_meets_requests_at_even_distances_also_after_its_share_has_changed(first, then, skipped):
    split = Split.continuing(Split.continuing(None, of_two(first)), of_two(then))
    decided(split, skipped)
    seen = decided(split, 100)
    for length in range(1, 101):
        assert abs(seen[:length].count("canary") - length * then / 100) < 2.5


def of_two(percent):
    return [(label, each) for label, each in (("stable", 100 - percent), ("canary", percent)) if each]


def test_a_hundred_to_nothing_is_that():
    split = Split([("a", 100), ("b", 0)])
    assert {*decided(split, 1000), *(split.choose(str(key)) for key in range(1000))} == {"a"}
    assert Split([]).choose() is None
    assert Split([]).choose("key") is None


@given(shares(), st.text())
def test_a_key_always_meets_the_same_version_and_takes_no_turn(wanted, key):
    split, twin = Split(wanted), Split(wanted)
    assert {split.choose(key) for _ in range(5)} == {twin.choose(key)}
    assert decided(split, 20) == decided(twin, 20)


@given(shares(), st.text())
def test_keys_take_turns_where_they_are_not_to_stick(wanted, key):
    split = Split(wanted, sticky=False)
    assert Counter(split.choose(key) for _ in range(100)) == dict(wanted)


@given(st.lists(shares(), min_size=1, max_size=6))
def test_shares_are_reached_with_the_fewest_moves_that_can_do(history):
    places = reassign((), history[0])
    for wanted in history[1:]:
        moved = reassign(places, wanted)
        before, after = Counter(places), Counter(moved)
        assert after == dict(wanted)
        difference = sum(abs(before[label] - after[label]) for label in LABELS)
        assert 2 * sum(old != new for old, new in zip(places, moved, strict=True)) == difference
        places = moved


@given(shares())
def test_shares_that_are_in_force_move_nothing(wanted):
    places = reassign((), wanted)
    assert reassign(places, wanted[::-1]) == places


@given(shares())
def test_a_version_that_leaves_moves_its_own_keys_only(wanted):
    places = reassign((), wanted)
    (gone, percent), *others = wanted
    if not others:
        return
    moved = reassign(places, [(others[0][0], others[0][1] + percent), *others[1:]])
    assert all(old in (new, gone) for old, new in zip(places, moved, strict=True))


def test_keys_come_back_to_a_version_that_was_away_for_a_while():
    stored = reassign(reassign((), [("1", 60), ("2", 40)]), [("1", 30), ("2", 40), ("3", 30)])
    alone = Split.continuing(None, [("1", 100)], stored)
    pair = Split.continuing(alone, [("1", 70), ("3", 30)], stored)
    assert Split.continuing(pair, [("3", 30), ("1", 30), ("2", 40)], stored).places == stored


def test_only_the_keys_that_must_move_do_when_a_canary_goes_from_10_to_20_percent():
    keys = [f"user-{number}" for number in range(10_000)]
    before = Split([("stable", 90), ("canary", 10)])
    after = Split.continuing(before, [("stable", 80), ("canary", 20)])
    moves = Counter((before.choose(key), after.choose(key)) for key in keys)
    assert ("canary", "stable") not in moves
    assert 800 < moves["stable", "canary"] < 1200
    assert moves["canary", "canary"] == sum(before.choose(key) == "canary" for key in keys)


def test_the_place_of_a_key_is_the_same_in_every_process_and_release():
    assert [place_of(key) for key in ("", "camera-1", "ü", "\ud800")] == [56, 6, 25, 14]


def test_keys_spread_evenly_over_the_places():
    counts = Counter(place_of(f"key {number}") for number in range(100_000))
    assert sum((counts[place] - 1000) ** 2 / 1000 for place in range(100)) < 149  # chi-squared, 99 degrees, 0.1 %


@pytest.mark.parametrize(("places", "wanted"), [((), [("a", 60)]), (("a",) * 99, [("a", 100)])])
def test_shares_or_places_that_are_not_a_hundred_are_refused(places, wanted):
    with pytest.raises(ValueError, match="100"):
        reassign(places, wanted)
