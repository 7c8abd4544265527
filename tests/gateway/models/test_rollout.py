"""Roll-out: commands and verdicts as steps from value to value."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Conflict, EdgewayError, InvalidRequest, NotFound
from gateway.models import rollout as steps
from gateway.models.rollout import Rollout, Standing, first_share


def standing(label: str, sequence: int, percent: int | None = None, **more) -> Standing:
    return Standing(label, more.pop("content", f"content of {label}"), (1, sequence), percent, **more)


def rollout(*standings: Standing) -> Rollout:
    made = Rollout()
    for each in standings:
        made = steps.declare(made, each)
    return made


OLD, NEW = standing("1", 1), standing("2", 2)
CANARY = standing("3", 3, 10)
ALL = {"1", "2", "3"}


def shares(made: Rollout, ready=frozenset(ALL)) -> dict[str, int]:
    return dict(made.shares(ready))


def test_the_newest_ready_version_takes_all_and_the_one_before_is_previous():
    made = rollout(OLD, NEW)
    assert (shares(made), made.previous(ALL).label) == ({"2": 100}, "1")
    assert shares(made, {"1"}) == {"1": 100}


def test_a_canary_takes_its_percent_and_the_current_version_the_rest():
    made = rollout(OLD, NEW, CANARY)
    assert shares(made) == {"2": 90, "3": 10}
    assert (made.current(ALL).label, made.previous(ALL).label) == ("2", "1")


def test_a_shadow_without_a_percent_gets_no_share():
    assert shares(rollout(OLD, standing("2", 2, shadow=True))) == {"1": 100}


def test_promotion_ends_trials_and_makes_the_current_version_previous():
    made = steps.promote(rollout(OLD, NEW, CANARY, standing("4", 4, 20)), "3", (1, 9), ALL | {"4"})
    assert shares(made, ALL | {"4"}) == {"3": 100}
    assert (made.current(ALL).label, made.previous(ALL).label) == ("3", "2")
    assert made.get("4").percent == 0


def test_promotion_of_an_older_version_goes_back_to_it():
    made = steps.promote(rollout(OLD, NEW), "1", (1, 9), ALL)
    assert (made.current(ALL).label, made.previous(ALL).label) == ("1", "2")


def test_an_unknown_version_is_named_with_those_that_are_known():
    with pytest.raises(NotFound, match="known: 1, 2"):
        steps.promote(rollout(OLD, NEW), "7", (1, 9), ALL)


def test_a_roll_back_cancels_a_canary_first_and_then_returns_to_the_previous_version():
    made, left, serves = steps.roll_back(rollout(OLD, NEW, CANARY), "", (1, 9), ALL, (), "why")
    assert (left, serves, shares(made)) == ("3", "2", {"2": 100})
    made, left, serves = steps.roll_back(made, "", (1, 10), ALL, (), "why")
    assert (left, serves, shares(made)) == ("2", "1", {"1": 100})
    with pytest.raises(Conflict, match="no version before 1"):
        steps.roll_back(made, "", (1, 11), ALL, (), "why")


def test_a_roll_back_while_a_newer_version_comes_up_cancels_that_one():
    _, left, serves = steps.roll_back(rollout(OLD, NEW), "", (1, 9), {"1"}, {"2"}, "why")
    assert (left, serves) == ("2", "1")


def test_a_roll_back_goes_to_the_version_that_the_manifest_names():
    named = standing("3", 3, previous_version="1")
    _, left, serves = steps.roll_back(rollout(OLD, NEW, named), "", (1, 9), ALL, (), "why")
    assert (left, serves) == ("3", "1")


def test_a_roll_back_to_a_given_version_leaves_canary_and_current():
    made, left, serves = steps.roll_back(rollout(OLD, NEW, CANARY), "1", (1, 9), ALL, (), "why")
    assert (left, serves, shares(made)) == ("2", "1", {"1": 100})
    assert made.get("3").left == "why"


def test_what_was_left_comes_back_by_promotion_or_with_other_content_but_not_with_the_same():
    made, *_ = steps.verdict(rollout(OLD, NEW), "2", (1, 9), ALL, "errors")
    assert shares(made) == {"1": 100}
    assert steps.declare(made, NEW) == made
    again = steps.declare(made, standing("2", 12, content="other"))
    assert shares(again) == {"2": 100}
    assert shares(steps.promote(made, "2", (1, 13), ALL)) == {"2": 100}


def test_a_verdict_on_a_canary_leaves_the_others_as_they_are():
    made, left, serves = steps.verdict(rollout(OLD, NEW, CANARY), "3", (1, 9), ALL, "errors")
    assert (left, serves, shares(made)) == ("3", "2", {"2": 100})


def test_a_verdict_on_the_only_version_is_impossible():
    with pytest.raises(Conflict):
        steps.verdict(rollout(OLD), "1", (1, 9), {"1"}, "errors")


def test_steps_lead_to_promotion():
    percent, ahead = first_share(None, (1, 10, 100))
    made = rollout(OLD, standing("2", 2, percent, steps=ahead))
    assert shares(made) == {"1": 99, "2": 1}
    made = steps.advance(made, "2", (1, 9), ALL, 50.0)
    assert (shares(made), made.get("2").step_since) == ({"1": 90, "2": 10}, 50.0)
    made = steps.advance(made, "2", (1, 10), ALL, 60.0)
    assert (shares(made), made.current(ALL).label, made.previous(ALL).label) == ({"2": 100}, "2", "1")


def test_steps_that_a_percent_has_passed_are_left_out():
    assert first_share(10, (1, 10, 50)) == (10, (50,))
    assert first_share(None, ()) == (None, ())


def test_traffic_over_100_percent_is_refused_with_the_sum():
    with pytest.raises(InvalidRequest, match="110"):
        steps.set_traffic(rollout(OLD, NEW, CANARY), {"1": 50, "2": 50})


def test_zero_percent_is_reached_by_pins_only_and_stays_loaded():
    made = steps.set_traffic(rollout(OLD, NEW, CANARY), {"3": 0})
    assert shares(made) == {"2": 100}
    assert made.kept(ALL) == ALL


def test_only_current_previous_and_what_has_a_percent_are_kept_loaded():
    made = rollout(OLD, NEW, standing("3", 3))
    assert made.kept(ALL) == {"2", "3"}
    named = rollout(OLD, NEW, standing("3", 3, previous_version="1"))
    assert named.kept(ALL) == ALL


labels = st.sampled_from(["1", "2", "3", "4"])
commands = st.lists(
    st.one_of(
        st.tuples(st.just("declare"), labels, st.sampled_from([None, 0, 10, 30]), st.booleans()),
        st.tuples(st.just("promote"), labels),
        st.tuples(st.just("roll_back"), st.one_of(st.just(""), labels)),
        st.tuples(st.just("verdict"), labels),
        st.tuples(st.just("traffic"), labels, st.integers(0, 100)),
        st.tuples(st.just("withdraw"), labels),
    ),
    max_size=25,
)


def do(made: Rollout, command: tuple, number: int, ready: set[str]) -> Rollout:
    kind, *rest = command
    rank = (1, number)
    if kind == "declare":
        label, percent, shadow = rest
        return steps.declare(made, standing(label, number, percent, shadow=shadow, content=str(number)))
    if kind == "promote":
        return steps.promote(made, rest[0], rank, ready)
    if kind == "roll_back":
        return steps.roll_back(made, rest[0], rank, ready, (), "why")[0]
    if kind == "verdict":
        return steps.verdict(made, rest[0], rank, ready, "why")[0]
    if kind == "traffic":
        return steps.set_traffic(made, {rest[0]: rest[1]})
    return steps.withdraw(made, [rest[0]])


@given(commands, st.sets(labels))
def test_whatever_is_commanded_shares_sum_to_100_and_none_goes_to_a_version_that_was_left(given_commands, able):
    made = Rollout()
    for number, command in enumerate(given_commands, 1):
        ready = able & {s.label for s in made.standings}
        try:
            made = do(made, command, number, ready)
        except EdgewayError:
            continue
        ready = able & {s.label for s in made.standings}
        alive = {s.label for s in made.standings if not s.left and s.label in ready}
        split = dict(made.shares(ready))
        if sum(made.percents().values()) <= 100:
            assert sum(split.values()) == (100 if alive else 0)
        assert set(split) <= alive
        assert made.kept(ready) <= set(ready)
        if alive:
            assert made.current(ready).label in made.kept(ready)


@given(commands)
def test_a_roll_out_comes_back_from_disk_as_it_was(given_commands):
    made = Rollout()
    for number, command in enumerate(given_commands, 1):
        try:
            made = do(made, command, number, {s.label for s in made.standings})
        except EdgewayError:
            continue
    assert msgspec.json.decode(msgspec.json.encode(made), type=Rollout) == made
