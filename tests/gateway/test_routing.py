"""Split, ranking and the time of an attempt: pure functions, checked against what they promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.budget import LATEST, LONGEST, budget_of
from gateway.errors import NotFound, TooLate, Unavailable
from gateway.request import Request, Signature
from gateway.routing.policy import Candidate, PreferredInTime, Ranking, attempt_time, may_hedge, slack
from gateway.routing.split import Split, shares_of
from gateway.routing.table import Route
from gateway.target import Version


def request(**fields) -> Request:
    return Request("m", fields.pop("version", ""), "", [], (), 100.0, 0, **fields)


def candidate(position: int, run: float | None = 0.005, wait: float = 0.0, shut: str = "", **more) -> Candidate:
    return Candidate(f"t{position}", more.pop("usable", True), shut, run, more.pop("fastest", run), wait, **more)


candidates = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(0.0001, 0.2)),
        st.floats(0, 0.2),
        st.sampled_from(["", "", "hot", "slow", "failed"]),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
).map(
    lambda specs: [
        candidate(i, run, wait, shut, usable=usable, unproven=unproven)
        for i, (run, wait, shut, usable, unproven) in enumerate(specs)
    ]
)
policy = PreferredInTime()


def names(ranking: Ranking) -> list[str]:
    return [f"t{index}" for index in ranking.order]


@given(candidates, st.floats(0.001, 0.5))
def test_a_ranking_holds_every_usable_target_once_and_no_other(given_candidates, seconds):
    ranking = policy.rank(given_candidates, seconds, "allow")
    assert sorted(names(ranking)) == sorted(c.name for c in given_candidates if c.usable)
    assert {c.name for c in given_candidates if not c.usable} <= set(ranking.skipped)


@given(candidates, st.floats(0.001, 0.5))
def test_targets_in_time_come_first_then_the_rest_soonest_first(given_candidates, seconds):
    ranking = policy.rank(given_candidates, seconds, "allow")
    ranked = [given_candidates[index] for index in ranking.order]
    late = [c.wait + (c.run or 0.0) > seconds - policy.margin for c in ranked]
    assert late == sorted(late)
    for shut in (True, False):
        rest = [
            c.wait + (c.run or 0.0) for c, is_late in zip(ranked, late, strict=True) if is_late and bool(c.shut) == shut
        ]
        assert rest == sorted(rest)
        first = [c.name for c, is_late in zip(ranked, late, strict=True) if not is_late and bool(c.shut) == shut]
        assert first == sorted(first)


@given(candidates, st.floats(0.001, 0.5))
def test_what_should_be_in_time_makes_a_request_feasible(given_candidates, seconds):
    ranking = policy.rank(given_candidates, seconds, "allow")
    usable = [c for c in given_candidates if c.usable]
    if any(c.wait + (c.run or 0.0) <= seconds - policy.margin for c in usable):
        assert ranking.feasible
    elif not any(c.unproven for c in usable):
        assert not ranking.feasible
    expected = [c.wait + c.run for c in usable if c.run is not None]
    assert ranking.soonest == min(expected, default=None)


@given(candidates, st.floats(0.001, 0.5))
def test_a_probe_is_a_better_target_that_does_not_serve(given_candidates, seconds):
    ranking = policy.rank(given_candidates, seconds, "allow")
    if ranking.probe is not None:
        assert given_candidates[ranking.probe].unproven
        assert given_candidates[ranking.probe].usable
        assert ranking.probe < ranking.order[0]


@given(candidates, st.floats(0.001, 0.5))
def test_degrade_never_leaves_only_the_first_target(given_candidates, seconds):
    ranking = policy.rank(given_candidates, seconds, "never")
    assert set(ranking.order) <= {0}
    assert ranking.probe is None


@given(candidates, st.floats(0.001, 0.5))
def test_the_same_candidates_make_the_same_ranking(given_candidates, seconds):
    assert policy.rank(given_candidates, seconds, "allow") == policy.rank(list(given_candidates), seconds, "allow")


def test_a_target_that_is_shut_comes_last_but_stays():
    ranking = policy.rank([candidate(0, shut="hot"), candidate(1)], 1.0, "allow")
    assert names(ranking) == ["t1", "t0"]
    assert ranking.skipped == {"t0": "hot"}
    assert names(policy.rank([candidate(0, shut="hot")], 1.0, "allow")) == ["t0"]


def test_a_target_that_seemed_too_slow_is_probed_beside_the_one_that_serves():
    slow = candidate(0, run=0.5, unproven=True)
    ranking = policy.rank([slow, candidate(1)], 0.1, "allow")
    assert (names(ranking), ranking.probe, ranking.skipped) == (["t1", "t0"], 0, {"t0": "slow"})


def test_an_old_estimate_alone_never_refuses_for_ever_but_a_hopeless_budget_does():
    assert policy.rank([candidate(0, run=0.5, fastest=0.05, unproven=True)], 0.1, "allow").feasible
    assert not policy.rank([candidate(0, run=0.5, fastest=0.05, unproven=False)], 0.1, "allow").feasible
    assert not policy.rank([candidate(0, run=0.5, fastest=0.05, unproven=True)], 0.04, "allow").feasible


@given(st.floats(0.001, 1.0), st.floats(1.0, 3.0), st.floats(0.0001, 0.5), st.floats(0.0001, 0.5), st.floats(0, 0.3))
def test_an_attempt_leaves_the_next_target_its_time_unless_it_needs_it_itself(remaining, more, own, run, wait):
    total = remaining * more
    limit = attempt_time(remaining, total, own, wait, run, 0.001)
    assert 0 < limit <= remaining
    if remaining - slack(total) - (run + wait + 0.001) >= own:
        assert remaining - limit >= run + wait + 0.001 + 0.99 * slack(total)
    else:
        assert limit >= remaining / 2


def test_the_slack_is_a_tenth_of_the_budget_but_some_milliseconds_of_a_short_one():
    assert [slack(total) for total in (1.0, 0.05, 0.02, 0.005)] == pytest.approx([0.1, 0.005, 0.004, 0.001])


def test_an_unknown_target_gets_half_of_the_time():
    assert attempt_time(0.02, 0.02, 0.005, 0.0, None, 0.001) == 0.01
    assert attempt_time(0.02, 0.02, None, 0.0, 0.005, 0.001) == 0.01


@given(st.integers(0, 100), st.integers(0, 100))
def test_doubled_requests_are_a_share_of_those_in_flight_with_a_floor(hedged, walking):
    assert may_hedge(hedged, walking, 0.2, 3) == (hedged < 3 or hedged < walking / 5)


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


def test_a_late_answer_is_worth_something_until_the_caller_is_gone_unless_late_ones_are_refused():
    with_limit = budget_of(request(deadline=101.0), 0.02, 5.0)
    assert (with_limit.deadline, with_limit.last) == (100.02, 101.0)
    asked = budget_of(request(deadline=101.0, timeout=0.01), 0.02, 5.0)
    assert (asked.deadline, asked.last) == (100.01, 101.0)
    assert budget_of(request(timeout=0.01), 0.02, 5.0).last == 100.0 + LATEST
    assert budget_of(request(), 0.02, 5.0).last == 100.0 + LATEST
    strict = budget_of(request(deadline=101.0), 0.02, 5.0, late_is_refused=True)
    assert strict.last == strict.deadline == 100.02


def test_a_budget_that_is_over_is_refused():
    with pytest.raises(TooLate):
        budget_of(request(deadline=99.0), None, 1.0)
