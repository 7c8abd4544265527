"""Split, ranking and the time of an attempt: pure functions, checked against what they promise."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.budget import LATEST, LONGEST, Budget, budget_of
from gateway.admission.slots import InFlight
from gateway.errors import NotFound, Shed, TooLate, Unavailable
from gateway.request import Request, Signature
from gateway.routing.estimate import RunEstimate
from gateway.routing.policy import PreferredInTime, attempt_time
from gateway.routing.split import Split, shares_of
from gateway.routing.table import Route
from gateway.target import FIRST_SUSPICION, LONGEST_SUSPICION, STALE_AFTER, Target, Version


@dataclass
class FakeWorker:
    name: str = "w"
    backend: str = "cpu"
    kind: str = "cpu"
    state: str = "ready"
    reason: str = ""
    since: float = 0.0
    waits: float = 0.0

    def expected_wait(self) -> float:
        return self.waits


def target(preference: int, run: float | None = 0.005, wait: float = 0.0, state: str = "ready") -> Target:
    made = Target(f"t{preference}", preference, FakeWorker(state=state, waits=wait), handle=1)
    if run is not None:
        made.estimate.add(run)
    return made


def request(**fields) -> Request:
    return Request("m", fields.pop("version", ""), "", [], (), 100.0, 0, **fields)


targets = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(0.0001, 0.2)),
        st.floats(0, 0.2),
        st.sampled_from(["ready", "busy", "hot", "lost"]),
    ),
    min_size=1,
    max_size=5,
).map(lambda specs: [target(i, run, wait, state) for i, (run, wait, state) in enumerate(specs)])


@given(targets, st.floats(0.001, 0.5))
def test_a_ranking_holds_every_usable_target_once_and_no_other(given_targets, seconds):
    ranking = PreferredInTime().rank(given_targets, Budget(seconds, seconds, seconds), 0.0, "allow")
    usable = {t.name for t in given_targets if t.worker.state != "lost"}
    assert sorted(t.name for t in ranking.targets) == sorted(usable)


@given(targets, st.floats(0.001, 0.5))
def test_targets_in_time_come_first_then_the_rest_soonest_first(given_targets, seconds):
    policy = PreferredInTime()
    ranking = policy.rank(given_targets, Budget(seconds, seconds, seconds), 0.0, "allow")

    def expected(t: Target) -> float:
        return t.wait() + (t.estimate.quantile(0.95) or 0.0)

    late = [expected(t) > seconds - policy.margin for t in ranking.targets]
    assert late == sorted(late)
    assert ranking.feasible == (False in late)
    for healthy in (True, False):
        rest = [
            expected(t)
            for t, is_late in zip(ranking.targets, late, strict=True)
            if is_late and (t.worker.state == "ready") == healthy
        ]
        assert rest == sorted(rest)
        first = [
            t.preference
            for t, is_late in zip(ranking.targets, late, strict=True)
            if not is_late and (t.worker.state == "ready") == healthy
        ]
        assert first == sorted(first)


@given(targets)
def test_degrade_never_leaves_only_the_first_target(given_targets):
    ranking = PreferredInTime().rank(given_targets, Budget(1.0, 1.0, 1.0), 0.0, "never")
    assert set(ranking.targets) <= {given_targets[0]}


def test_a_target_that_let_an_attempt_expire_comes_last_for_a_while():
    first, second = target(0), target(1)
    first.expired(now=10.0)
    policy, budget = PreferredInTime(), Budget(11.0, 1.0, 11.0)
    assert [t.name for t in policy.rank([first, second], budget, 10.0, "allow").targets] == ["t1", "t0"]
    after = 10.0 + FIRST_SUSPICION + 0.01
    assert [t.name for t in policy.rank([first, second], budget, after, "allow").targets] == ["t0", "t1"]


def test_a_target_that_seemed_too_slow_is_tried_again_after_a_while():
    slow, quick = target(0, run=0.5), target(1)
    slow.tried = quick.tried = 10.0
    policy = PreferredInTime()

    def order(now: float) -> list[str]:
        return [t.name for t in policy.rank([slow, quick], Budget(now + 0.1, 0.1, now + 0.1), now, "allow").targets]

    assert order(10.0 + STALE_AFTER / 2) == ["t1", "t0"]
    assert order(10.0 + STALE_AFTER * 2) == ["t0", "t1"]
    assert policy.rank([slow], Budget(20.1, 0.1, 20.1), 20.0, "allow").feasible is False


def test_one_quick_answer_after_a_while_brings_a_slow_target_back():
    slow, quick = target(0, run=None), target(1)
    for _ in range(50):
        slow.answered(0.5)
    slow.attempted(10.0)
    slow.answered(0.4)
    assert slow.estimate.quantile(0.95) == 0.5
    slow.attempted(10.0 + STALE_AFTER * 2)
    slow.answered(0.01)
    slow.attempted(10.0 + STALE_AFTER * 2.1)
    budget = Budget(20.1, 0.1, 20.1)
    assert [t.name for t in PreferredInTime().rank([slow, quick], budget, 20.0, "allow").targets] == ["t0", "t1"]
    assert slow.estimate.quantile(0.95) == 0.01


def test_suspicion_doubles_up_to_a_limit_and_an_answer_ends_it():
    suspect = target(0)
    for _ in range(10):
        suspect.expired(0.0)
    assert suspect.suspect_until == LONGEST_SUSPICION
    suspect.answered(0.001)
    assert suspect.health(0.0) == ("ready", "")


@given(st.floats(0.001, 1.0), st.floats(0.0001, 0.5), st.floats(0.0001, 0.5), st.floats(0, 0.3))
def test_an_attempt_leaves_the_next_target_its_time_unless_it_needs_it_itself(remaining, own, run, wait):
    limit = attempt_time(remaining, target(0, own), target(1, run, wait), 0.001)
    assert 0 < limit <= remaining
    if remaining * 0.95 - (run + wait + 0.001) >= own:
        assert remaining - limit >= run + wait + 0.001
    else:
        assert limit >= remaining / 2


def test_the_last_target_has_no_limit_but_the_budget_and_an_unknown_one_gets_half():
    assert attempt_time(0.02, target(0), None, 0.001) is None
    assert attempt_time(0.02, target(0), target(1, None), 0.001) == 0.01
    assert attempt_time(0.02, target(0, None), target(1), 0.001) == 0.01


weights = st.lists(st.integers(1, 98), min_size=1, max_size=5).filter(lambda ws: sum(ws) < 100)


@given(weights, st.integers(0, 500))
def test_every_hundred_decisions_in_a_row_hold_the_percents_exactly(percents, skipped):
    shares = [(f"v{i}", p) for i, p in enumerate(percents)] + [("rest", 100 - sum(percents))]
    split = Split(shares)
    for _ in range(skipped):
        split.choose()
    seen = [split.choose() for _ in range(100)]
    assert {version: seen.count(version) for version, _ in shares} == dict(shares)


@given(weights, st.text())
def test_a_key_always_meets_the_same_version_and_takes_no_turn(percents, key):
    shares = [(f"v{i}", p) for i, p in enumerate(percents)] + [("rest", 100 - sum(percents))]
    split, twin = Split(shares), Split(shares)
    assert {split.choose(key) for _ in range(5)} == {twin.choose(key)}
    assert [split.choose() for _ in range(20)] == [twin.choose() for _ in range(20)]


@given(st.lists(st.one_of(st.none(), st.integers(0, 25)), max_size=4))
def test_shares_sum_to_a_hundred_and_declared_percents_are_kept(declared):
    ready = [(f"v{i}", percent) for i, percent in enumerate(declared)]
    shares = dict(shares_of(ready))
    assert sum(shares.values()) == (100 if ready else 0)
    heirs = [version for version, percent in ready if percent is None]
    for version, percent in ready:
        if percent and len(ready) > 1 and heirs:
            assert shares[version] == percent
    if heirs and len(ready) > 1:
        assert shares[heirs[-1]] == 100 - sum(percent or 0 for _, percent in ready)


def version(label: str) -> Version:
    return Version(label, Signature("p", (), ()), ())


def test_a_route_knows_pins_and_aliases():
    versions = {label: version(label) for label in ("1", "2")}
    route = Route("m", versions, frozenset({"1", "2", "3"}), Split([("2", 100)]), "2", "1")
    assert route.choose(request()).label == "2"
    assert route.choose(request(version="1")).label == "1"
    assert route.choose(request(version="previous")).label == "1"
    with pytest.raises(Unavailable, match="3 of model m is not ready"):
        route.choose(request(version="3"))
    with pytest.raises(NotFound, match="no version 4"):
        route.choose(request(version="4"))


limits = st.one_of(st.none(), st.floats(0.001, 100))


@given(limits, limits, limits)
def test_the_budget_is_the_smallest_limit_and_the_default_only_without_any(deadline, timeout, deployment):
    asked = request(deadline=None if deadline is None else 100.0 + deadline, timeout=timeout)
    given_limits = [limit for limit in (deadline, timeout, deployment) if limit is not None]
    budget = budget_of(asked, deployment, 7.0)
    assert budget.total == pytest.approx(min(given_limits, default=7.0))
    assert budget.remaining(100.0) == pytest.approx(budget.total)


def test_a_deadline_of_a_client_without_one_counts_as_none():
    assert budget_of(request(deadline=9.2e18), None, 2.0).total == 2.0
    assert budget_of(request(deadline=100.0 + LONGEST), None, 2.0).total == 2.0


def test_a_late_answer_is_worth_something_until_the_callers_own_limit_unless_late_ones_are_refused():
    with_limit = budget_of(request(deadline=101.0), 0.02, 5.0)
    assert (with_limit.deadline, with_limit.last) == (100.02, 101.0)
    assert with_limit.usable(100.01) == pytest.approx(0.01)
    assert with_limit.usable(100.5) == pytest.approx(0.5)
    assert budget_of(request(), 0.02, 5.0).last == 100.0 + LATEST
    strict = budget_of(request(deadline=101.0), 0.02, 5.0, late_is_refused=True)
    assert strict.last == strict.deadline == 100.02


def test_a_budget_that_is_over_is_refused():
    with pytest.raises(TooLate):
        budget_of(request(deadline=99.0), None, 1.0)


def test_a_full_gateway_sheds_and_takes_again_once_someone_left():
    places = InFlight(2, 100)
    places.enter(10)
    places.enter(10)
    with pytest.raises(Shed, match="maxInFlight"):
        places.enter(10)
    places.leave(10)
    with pytest.raises(Shed, match="maxInFlightMB"):
        places.enter(95)
    places.leave(10)
    places.enter(1000)  # one alone is never too big
    assert (places.requests, places.bytes) == (1, 1000)


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_that_enough_of_the_window_does_not_exceed(times, q):
    estimate = RunEstimate()
    for seconds in times:
        estimate.add(seconds)
    window = sorted(times[-100:]) if len(times) > 100 else sorted(times)
    found = estimate.quantile(q)
    assert found in times
    assert sum(t <= found for t in window) >= q * len(window) - 1e-9
