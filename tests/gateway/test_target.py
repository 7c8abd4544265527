"""Target: how it looks to a request, from its worker, its heat, its breaker and what it has measured."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.admission.gradient import GradientLimit
from gateway.routing.breaker import FIRST_EJECTION
from gateway.target import LEARN_EVERY, STALE_AFTER, Target


@dataclass
class FakeWorker:
    name: str = "w"
    backend: str = "simulated"
    kind: str = "simulated"
    state: str = "ready"
    reason: str = ""
    since: float = 100.0
    sheds: str = "nominal"
    waits: float = 0.0

    def expected_wait(self, priority: int, now: float) -> float:
        return self.waits


def target(run: float = 0.004, **of_worker) -> Target:
    made = Target("w", 0, FakeWorker(**of_worker), handle=1)
    made.calibrate(64, [run] * 3, now=0.0)
    return made


def test_a_target_that_is_not_loaded_or_whose_worker_is_gone_is_unusable_and_says_why():
    assert target(state="lost").candidate(64, 5, 0.1)[1:3] == (False, "lost")
    refused = target()
    refused.failure = "not a model"
    assert refused.candidate(64, 5, 0.1)[1:3] == (False, "failed")
    assert Target("coral", 0, None).candidate(64, 5, 0.1)[1:3] == (False, "lost")


def test_heat_moves_the_low_priorities_first_and_leaves_the_target_usable():
    warm, hot, critical = (
        target(state=state, sheds=sheds) for state, sheds in (("ready", "warm"), ("hot", "hot"), ("hot", "critical"))
    )
    seen = [[each.candidate(64, priority, 0.1).shut for priority in (1, 5, 9)] for each in (warm, hot, critical)]
    assert seen == [["", "", "hot"], ["", "hot", "hot"], ["hot", "hot", "hot"]]
    assert critical.candidate(64, 5, 0.1).usable


def test_an_ejected_target_is_shut_with_its_reason_and_wants_a_probe_when_its_time_is_up():
    ejected = target()
    ejected.breaker.expired(1.0)
    assert ejected.candidate(64, 5, 1.1)[2] == "slow"
    assert not ejected.candidate(64, 5, 1.1).unproven
    assert ejected.candidate(64, 5, 1.0 + FIRST_EJECTION).unproven


def test_the_learned_limit_shuts_a_target_that_has_as_much_as_it_can_take():
    bounded = target()
    bounded.limit = GradientLimit(initial=2)
    assert bounded.candidate(64, 5, 0.1).shut == ""
    bounded.in_flight = bounded.limit.limit
    assert bounded.candidate(64, 5, 0.1).shut == "busy"


def test_the_runs_that_wait_before_it_widen_what_a_run_may_take():
    alone, behind = target(), target(waits=0.02)
    for each in (alone, behind):
        each.calibrate(64, [0.002, 0.004, 0.006], now=0.0)
    assert behind.candidate(64, 5, 0.1).run > alone.candidate(64, 5, 0.1).run > 0.004


def test_an_estimate_of_long_ago_is_unproven_and_names_the_least_that_was_ever_needed():
    idle = target()
    assert not idle.candidate(64, 5, STALE_AFTER / 2).unproven
    late = idle.candidate(64, 5, STALE_AFTER * 2)
    assert (late.unproven, late.fastest) == (True, pytest.approx(0.004))


def test_one_quick_run_after_a_while_forgets_the_slow_ones():
    slow = target(run=0.5)
    for step in range(20):
        slow.measured(64, 0.5, 0.5, 0.0, now=step * 0.1)
    slow.measured(64, 0.01, 0.01, 0.0, now=2.0 + STALE_AFTER)
    assert slow.candidate(64, 5, 3.0).run == pytest.approx(0.01)


def test_of_many_runs_a_part_is_learned_from_and_a_change_is_still_seen_in_milliseconds():
    quick = target(run=0.0001)
    for step in range(1000):
        quick.measured(64, 0.0001, 0.0001, 0.0, now=1.0 + step * LEARN_EVERY / 10)
    assert quick.estimates.of(64).count <= 3 + 101
    for step in range(100):
        quick.measured(64, 0.0005, 0.0005, 0.0, now=2.0 + step * LEARN_EVERY / 10)
    assert quick.candidate(64, 5, 2.1).run == pytest.approx(0.0005)


def test_state_reason_and_since_tell_the_worst_that_is_known():
    fine = target()
    assert fine.health(0.1)[:2] == ("ready", "")
    fine.breaker.expired(1.0)
    state, reason, since = fine.health(1.1)
    assert state == "busy"
    assert "let an attempt expire" in reason
    assert since > 100.0
    fine.worker.state, fine.worker.reason = "lost", "killed by SIGKILL"
    assert fine.health(1.1) == ("lost", "killed by SIGKILL", 100.0)
    assert Target("coral", 0, None).health(1.0)[:2] == ("lost", "this device has no worker coral")


def test_what_is_believed_of_shared_runs_follows_the_answers_and_such_runs_are_no_sign_of_heat():
    sim = target()
    for number in range(64):
        sim.measured(64, 0.004, 0.003, 0.0, number * 0.01)
    assert sim.service.ratio() == pytest.approx(1.0)
    for number in range(64, 164):
        sim.ran_with(8)
        sim.measured(64, 0.020, None, 0.0, number * 0.01)
    assert sim.shared == pytest.approx(8, rel=0.05)
    assert sim.service.ratio() == pytest.approx(1.0)
    assert sim.estimates.quantile(64, 0.95) == pytest.approx(0.020)
