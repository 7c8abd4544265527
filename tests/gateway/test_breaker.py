"""Breaker: a machine of values, driven through time by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.breaker import FAULTS, FIRST_EJECTION, LONGEST_EJECTION, PROBE_LIMIT, Breaker, ejection


def ejected(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert breaker.expired(now)
    return breaker


def test_one_expired_attempt_is_enough_and_single_faults_are_not():
    assert ejected().gate(0.0) == "shut"
    breaker = Breaker()
    assert [breaker.fault(0.0, "failed") for _ in range(FAULTS)] == [False] * (FAULTS - 1) + [True]
    assert (breaker.gate(0.0), breaker.reason) == ("shut", "failed")


def test_an_answer_between_two_faults_starts_the_count_again():
    breaker = Breaker()
    for now in range(20):
        breaker.fault(now, "lost")
        breaker.answered(now + 0.5)
    assert breaker.gate(20.0) == "closed"


def test_after_its_ejection_a_target_gets_one_probe_and_no_more():
    breaker = ejected()
    assert breaker.gate(FIRST_EJECTION) == "probe"
    breaker.probing(FIRST_EJECTION)
    assert breaker.gate(FIRST_EJECTION + 0.1) == "shut"
    assert breaker.gate(FIRST_EJECTION + PROBE_LIMIT + 0.1) == "probe"


def test_a_failed_probe_ejects_for_twice_as_long_up_to_a_limit():
    breaker, now, lengths = ejected(), 0.0, []
    for _ in range(12):
        now = breaker.open_until
        breaker.probing(now)
        assert breaker.fault(now, "failed")
        lengths.append(breaker.open_until - now)
    assert lengths[:3] == [0.5, 1.0, 2.0]
    assert lengths[-1] == LONGEST_EJECTION


def test_a_good_probe_brings_the_target_back_by_degrees():
    breaker = ejected()
    breaker.probing(FIRST_EJECTION)
    assert breaker.answered(FIRST_EJECTION, probe=True)
    assert breaker.gate(FIRST_EJECTION) == "ramp"
    early = sum(breaker.admit(FIRST_EJECTION) for _ in range(100))
    late = sum(breaker.admit(FIRST_EJECTION * 1.9) for _ in range(100))
    assert 8 <= early <= 12
    assert 85 <= late <= 95
    assert breaker.gate(2 * FIRST_EJECTION + 0.01) == "closed"


def test_an_expired_attempt_that_answers_after_all_brings_the_target_back_whole():
    breaker = ejected()
    assert breaker.answered(0.1)
    assert breaker.gate(0.1) == "closed"


def test_a_calm_time_forgets_how_often_it_was_ejected():
    breaker = ejected()
    breaker.answered(0.1)
    breaker.expired(0.2)
    assert breaker.open_until - 0.2 == pytest.approx(ejection(2))
    breaker.answered(0.3)
    breaker.answered(10.0)
    breaker.expired(11.0)
    assert breaker.open_until - 11.0 == pytest.approx(ejection(1))


def test_faults_of_attempts_from_before_the_ejection_do_not_prolong_it():
    breaker = ejected()
    until = breaker.open_until
    assert not breaker.expired(0.1)
    assert not breaker.fault(0.1, "lost")
    assert breaker.open_until == until


def test_a_new_process_is_probed_at_once():
    breaker = ejected()
    breaker.renewed(0.1)
    assert breaker.gate(0.1) == "probe"


events = st.lists(
    st.tuples(st.floats(0.001, 2.0), st.sampled_from(["fault", "expired", "answered", "probe", "renewed", "lost"])),
    max_size=60,
)


def play(steps) -> list[tuple[str, str]]:
    breaker, now, seen = Breaker(), 0.0, []
    for after, event in steps:
        now += after
        gate = breaker.gate(now)
        if event == "fault":
            breaker.fault(now, "failed")
        elif event == "expired":
            breaker.expired(now)
        elif event == "answered":
            breaker.answered(now, probe=bool(breaker.probed_at))
        elif event == "renewed":
            breaker.renewed(now)
        elif event == "probe" and gate == "probe":
            breaker.probing(now)
        elif event == "lost":
            breaker.inconclusive()
        assert 0 <= breaker.open_until - now <= LONGEST_EJECTION or breaker.open_until <= now
        assert (breaker.gate(now) in ("shut", "probe")) == bool(breaker.reason)
        seen.append((gate, breaker.reason))
    return seen


@given(events)
def test_an_ejection_is_bounded_and_the_same_events_give_the_same_states(steps):
    assert play(steps) == play(steps)


@given(events)
def test_whatever_happened_a_target_that_answers_again_gets_all_requests_in_the_end(steps):
    breaker, now = Breaker(), 0.0
    for after, event in steps:
        now += after
        if event == "fault":
            breaker.fault(now, "failed")
        elif event == "expired":
            breaker.expired(now)
    for _ in range(3):
        now += LONGEST_EJECTION + 1
        if breaker.gate(now) == "probe":
            breaker.probing(now)
            breaker.answered(now, probe=True)
    assert breaker.gate(now + 10.0) == "closed"
