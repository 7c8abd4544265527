"""When a version is left by itself: for its own outcomes, and never for what happened to the device."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.models.judge import Trial
from gateway.models.manifest import Rollback
from gateway.models.run_times import RunTimes
from gateway.models.samples import Sample, samples_of
from gateway.observation.figures import Accuracy, Agreement, Drift, Figures
from gateway.request import AttemptRecord, Outcome

NOTHING = Figures()


def trial(**rules):
    return Trial("new", "old", Rollback(**rules))


def on_error(threshold=5, window=60.0):
    return trial(auto_rollback_on_error=True, error_threshold=threshold, error_window_seconds=window)


def ending(at, outcome="failed", version="new"):
    return Sample(version, at, outcome)


# -- errors ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["ok", "failed", "other"])), max_size=60),
    st.integers(1, 6),
    st.floats(1, 100),
)
def test_the_threshold_acts_on_the_very_failure_that_reaches_it_within_the_window(gaps, threshold, window):
    judged, now, failures = on_error(threshold, window), 0.0, []
    for gap, outcome in gaps:
        now += gap
        verdict = judged.observe(ending(now, outcome))
        failures += [now] if outcome == "failed" else []
        reached = outcome == "failed" and sum(at >= now - window for at in failures) >= threshold
        assert (verdict is not None) == reached
        if reached:
            assert (verdict.version, verdict.rule) == ("new", "errorThreshold")
            assert all(judged.observe(ending(now)) is None for _ in range(10))  # once is enough
            return


@given(st.lists(st.booleans(), max_size=80), st.integers(0, 40))
def test_a_rate_needs_twenty_requests(failed, percent):
    judged = on_error(f"{percent}%")
    for count in range(1, len(failed) + 1):
        verdict = judged.observe(ending(count * 0.01, "failed" if failed[count - 1] else "ok"))
        bad = sum(failed[:count])
        assert (verdict is not None) == (count >= 20 and bad > 0 and bad * 100 >= percent * count)
        if verdict is not None:
            assert verdict.evidence["requests"] == count
            return


def test_a_rate_forgets_what_is_older_than_the_window():
    judged = on_error("50%", window=10)
    assert not any(judged.observe(ending(0.1 * i)) for i in range(19))
    assert not any(judged.observe(ending(20 + 0.1 * i, "ok")) for i in range(30))


def test_what_the_other_version_does_and_what_says_nothing_is_not_laid_to_its_charge():
    judged = on_error(1)
    assert not any(judged.observe(ending(i, "failed", "old")) for i in range(50))
    assert not any(judged.observe(ending(i, "other")) for i in range(50))
    assert judged.observe(ending(60)) is not None


def test_errors_are_only_counted_where_the_manifest_says_so():
    judged = trial(error_threshold=1)
    assert not any(judged.observe(ending(i)) for i in range(50))


# -- times -----------------------------------------------------------------------------------------------------------


def device(seconds, slowness, old, new, seed=0, rate=25, share=0.1, clean=lambda at: True, spread=0.2):
    """Samples of a split on the workers that ``old`` and ``new`` name: (worker, seconds of a run) by time."""
    dice = random.Random(seed)
    for number in range(int(seconds * rate)):
        at = number / rate
        label, served = ("new", new) if number % round(1 / share) == 0 else ("old", old)
        worker, run = served(at)
        took = run * slowness(at) * dice.lognormvariate(0, spread)
        yield Sample(label, at, "ok", worker, took, took + 0.001, clean=clean(at))


def judged_times(samples, expected=None, limit=2.0, seconds=60.0):
    """The verdict and when it came, of a review each half second."""
    judged, due = trial(max_latency_ratio=limit, error_window_seconds=60.0), 0.5
    last = 0.0
    for sample in samples:
        judged.observe(sample)
        last = sample.at
        while last >= due:
            verdict = judged.review(due, NOTHING, expected or {})
            if verdict is not None:
                return verdict, due
            due += 0.5
    for extra in range(1, 6):
        verdict = judged.review(last + extra / 2, NOTHING, expected or {})
        if verdict is not None:
            return verdict, last + extra / 2
    return None, last


def steady(at):
    return 1.0


def on(worker, run):
    return lambda at: (worker, run)


def throttled(at):
    return 3.0 if 20 <= at < 45 else 1.0


def test_a_canary_ten_times_as_slow_is_left_within_seconds():
    verdict, at = judged_times(device(60, steady, on("tpu", 0.004), on("tpu", 0.04)))
    assert verdict.rule == "maxLatencyRatio"
    assert verdict.evidence["ratio"] == pytest.approx(10, rel=0.3)
    assert at <= 7  # ten of its requests, at 2.5 a second, and what they take to settle


@pytest.mark.parametrize("seed", range(5))
def test_a_throttled_accelerator_is_nobodys_fault(seed):
    samples = device(60, throttled, on("tpu", 0.004), on("tpu", 0.004), seed)
    assert judged_times(samples)[0] is None


def test_a_slow_canary_is_found_on_a_throttled_accelerator_too():
    samples = device(60, throttled, on("tpu", 0.004), on("tpu", 0.02), clean=lambda at: at < 20)
    assert judged_times(samples)[0].rule == "maxLatencyRatio"


@pytest.mark.parametrize("seed", range(5))
def test_a_ratio_that_goes_up_and_down_with_a_flickering_clock_is_not_the_versions(seed):
    def flickering(at):
        return 1.0 + 2.0 * (int(at / 0.7) % 2)

    assert judged_times(device(60, flickering, on("tpu", 0.004), on("tpu", 0.004), seed, rate=60))[0] is None


def test_both_falling_to_the_cpu_is_no_ones_fault_though_it_is_slow_there():
    def served(at):
        return ("cpu", 0.03) if 20 <= at < 45 else ("tpu", 0.004)

    samples = device(60, steady, served, served)
    assert judged_times(samples, {("old", "cpu"): 0.006, ("old", "tpu"): 0.004})[0] is None


def test_a_canary_that_the_cpu_serves_is_held_against_the_others_usual_run_there():
    samples = device(60, steady, on("tpu", 0.004), on("cpu", 0.06))
    verdict, _ = judged_times(samples, {("old", "cpu"): 0.006})
    assert verdict.evidence["ratio"] == pytest.approx(10, rel=0.3)
    assert judged_times(device(60, steady, on("tpu", 0.004), on("cpu", 0.06)), {})[0] is None  # nothing to compare with


def test_a_usual_run_is_of_another_time_so_it_says_nothing_near_a_device_event():
    samples = device(60, steady, on("tpu", 0.004), on("cpu", 0.06), clean=lambda at: False)
    assert judged_times(samples, {("old", "cpu"): 0.006})[0] is None


def test_the_first_slow_runs_of_a_throttle_are_not_used_though_it_is_known_only_later():
    # All traffic is the new version's, so only the old one's usual run is there to compare with.
    samples = device(60, throttled, on("tpu", 0.004), on("tpu", 0.004), share=1.0, clean=lambda at: not 20.8 <= at < 45)
    assert judged_times(samples, {("old", "tpu"): 0.004})[0] is None


def test_a_version_that_has_all_traffic_is_held_against_the_one_before():
    samples = device(60, steady, on("tpu", 0.004), on("tpu", 0.02), share=1.0)
    assert judged_times(samples, {("old", "tpu"): 0.004})[0].rule == "maxLatencyRatio"


def test_a_machine_that_is_busy_for_some_seconds_is_not_the_version_where_nothing_else_runs_to_show_it():
    def busy(at):
        return 4.0 if at < 4 else 1.0

    samples = device(60, busy, on("cpu", 0.004), on("cpu", 0.004), share=1.0, rate=100)
    assert judged_times(samples, {("old", "cpu"): 0.004})[0] is None


def expiring(old_felt, new_felt, seconds=40):
    for number in range(seconds * 25):
        at = number / 25
        if number % 10 == 0:
            yield Sample("new", at, worker="tpu", felt=new_felt, expired=True)
        else:
            yield Sample("old", at, "ok", "tpu", 0.004, old_felt)


def test_attempts_that_expired_count_as_runs_that_took_at_least_that_long():
    verdict, _ = judged_times(expiring(0.005, 0.05))
    assert verdict.evidence["ratio"] == pytest.approx(10)


def test_an_attempt_that_expired_soon_says_nothing_either_way():
    times = RunTimes("new", "old", 2.0, 60.0)
    for sample in expiring(0.005, 0.008, seconds=4):
        times.take(sample)
    times.settle(5.0, {})
    assert (times.count, times.over) == (0, 0)


def test_an_attempt_that_expired_where_the_other_did_not_run_says_nothing_as_it_may_have_waited():
    times = RunTimes("new", "old", 2.0, 60.0)
    times.take(Sample("new", 1.0, worker="tpu", felt=0.5, expired=True))
    times.settle(5.0, {("old", "tpu"): 0.004})
    assert times.count == 0


def test_a_run_is_compared_when_a_device_event_near_it_has_had_time_to_show():
    times = RunTimes("new", "old", 2.0, 60.0)
    for number in range(10):
        times.take(Sample("new", number / 10, "ok", "tpu", 0.012, 0.013, clean=number < 9))
    times.settle(0.5, {("old", "tpu"): 0.004})
    times.settle(5.0, {("old", "tpu"): 0.004})
    assert times.count == 0


def test_attempts_that_expired_behind_a_queue_in_which_all_wait_are_no_ones_fault():
    assert judged_times(expiring(0.045, 0.05))[0] is None


@pytest.mark.parametrize("seed", range(5))
def test_a_version_a_little_slower_than_allowed_on_average_is_not_left_for_noise(seed):
    samples = device(60, steady, on("tpu", 0.004), on("tpu", 0.0076), seed, spread=0.5)
    assert judged_times(samples)[0] is None


def test_single_stalls_are_not_the_version():
    dice = random.Random(1)

    def stalling(at):
        return ("tpu", 0.2 if dice.random() < 0.2 else 0.004)

    assert judged_times(device(60, steady, on("tpu", 0.004), stalling))[0] is None


def test_what_is_remembered_of_runs_is_bounded():
    times = RunTimes("new", "old", 2.0, 60.0)
    for number in range(100_000):
        at = number / 1000
        times.take(Sample(("new", "old")[number % 2], at, "ok", "tpu", 0.001, 0.001, clean=number % 3 > 0))
        if number % 1000 == 0:
            times.settle(at, {})
    assert 0 < times.count <= 1000
    assert len(repr(times)) < 1_000_000


# -- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "figures", "rule"),
    [
        ({"min_agreement": 0.9}, Figures(agreement=Agreement(0, 20)), "minAgreement"),
        ({"min_agreement": 0.9}, Figures(agreement=Agreement(0, 19)), None),
        ({"min_agreement": 0.9}, Figures(agreement=Agreement(17, 20)), None),
        ({"min_agreement": 0.9}, Figures(agreement=Agreement(40, 60)), "minAgreement"),
        ({"min_agreement": 0.9}, Figures(accuracy=Accuracy(0, 50)), None),
        ({"min_accuracy": 0.9}, Figures(accuracy=Accuracy(2, 30)), "minAccuracy"),
        ({"min_accuracy": 0.9}, Figures(accuracy=Accuracy(900, 1000)), None),
        ({"max_drift": 0.2}, Figures(drift=Drift(0.4, 250, True, "class 3 is rarer")), "maxDrift"),
        ({"max_drift": 0.2}, Figures(drift=Drift(0.4, 60, False, "few answers")), None),
        ({}, Figures(Agreement(0, 100), Accuracy(0, 100), Drift(9.0, 250, True, "all")), None),
    ],
)
def test_a_rule_acts_when_it_is_certain_and_only_when_it_is_declared(rules, figures, rule):
    judged = trial(**rules)
    verdict = judged.review(1.0, figures, {})
    assert (verdict and verdict.rule) == rule
    assert judged.review(2.0, figures, {}) is None  # once
    assert judged.condemned is verdict


def test_a_verdict_tells_what_the_other_version_did_meanwhile():
    judged = trial(auto_rollback_on_error=True, error_threshold=2, min_accuracy=0.9)
    for number in range(40):
        judged.observe(ending(number, "ok", "old"))
        judged.labelled("new", False)
        judged.labelled("old", number % 4 > 0)
    evidence = judged.review(50, Figures(accuracy=Accuracy(0, 40)), {}).evidence
    assert (evidence["rate"], evidence["wrongRate"], evidence["wrongRateOfThat"]) == (0.0, 1.0, 0.25)
    assert evidence["p"] < 0.001


# -- promotion -------------------------------------------------------------------------------------------------------


def answered(judged, count, failing=0, version="new"):
    for number in range(count):
        judged.observe(ending(number, "ok" if number < count - failing else "failed", version))


def test_a_step_needs_requests_of_its_own():
    judged = trial()
    answered(judged, 19)
    assert judged.holds_back(NOTHING) == "19 of 20 requests of this step"
    answered(judged, 1)
    assert judged.holds_back(NOTHING) == ""
    judged.step()
    assert judged.holds_back(NOTHING)


def test_nothing_significant_may_speak_against_a_larger_share():
    judged = trial()
    answered(judged, 900, version="old")
    answered(judged, 100, failing=8)
    assert "fails more often than old: 8.00% against 0.00%" in judged.holds_back(NOTHING)
    judged = trial()
    answered(judged, 900, version="old")
    answered(judged, 100, failing=1)
    assert judged.holds_back(NOTHING) == ""


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        (Figures(agreement=Agreement(8, 10)), "agreement"),
        (Figures(accuracy=Accuracy(8, 10)), "accuracy"),
        (Figures(drift=Drift(0.3, 250, True, "class 3 is rarer")), "class 3 is rarer"),
        (Figures(Agreement(10, 10), Accuracy(9, 10)), ""),
    ],
)
def test_figures_below_the_rules_hold_a_step_back_before_they_are_certain(figures, reason):
    judged = trial(min_agreement=0.9, min_accuracy=0.9)
    answered(judged, 30)
    assert reason in judged.holds_back(figures)
    assert bool(judged.holds_back(figures)) == bool(reason)


def test_late_labels_hold_back_what_is_wrong_more_often():
    judged = trial()
    answered(judged, 30)
    for number in range(200):
        judged.labelled("old", number % 20 > 0)
        judged.labelled("new", number % 3 > 0)
    assert "wrong more often" in judged.holds_back(NOTHING)
    assert judged.wrong.rate == pytest.approx(1 / 3, abs=0.01)


def test_runs_over_the_limit_hold_a_step_back():
    judged = trial(max_latency_ratio=2)
    for sample in device(10, steady, on("tpu", 0.004), on("tpu", 0.0083), share=0.5):
        judged.observe(sample)
    assert judged.review(12.0, NOTHING, {}) is None or judged.condemned
    assert judged.holds_back(NOTHING)


# -- what an outcome says --------------------------------------------------------------------------------------------


def attempt(target, reason="", run=0.004, start=1.0, ended=1.01, shared=1):
    record = AttemptRecord(target, "simulated", "simulated", start, ended, reason=reason, shared=shared)
    if not reason:
        record.run_started, record.run_ended = ended - run, ended
    return record


def outcome(*attempts, code=Code.OK, reason="", counts=False):
    made = Outcome("m", 1.0, version="new", attempts=list(attempts), code=code, reason=reason, finished=1.05)
    made.counts_against_model = counts
    if code is Code.OK:
        made.serve(attempts[-1])
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (outcome(attempt("tpu")), [("ok", "tpu", False, True)]),
        (outcome(attempt("tpu", "failed"), attempt("cpu"), reason="failed"), [("ok", "cpu", False, True)]),
        (
            outcome(attempt("tpu", "slow"), attempt("cpu"), reason="slow"),
            [("other", "tpu", True, True), ("ok", "cpu", False, True)],
        ),
        (
            outcome(attempt("tpu", "lost"), attempt("cpu"), reason="lost"),
            [("other", "tpu", False, False), ("ok", "cpu", False, False)],
        ),
        (outcome(attempt("hot")), [("ok", "hot", False, False)]),
        (outcome(attempt("cpu"), reason="hot"), [("ok", "cpu", False, False)]),
        (outcome(attempt("cpu", "failed"), code=Code.INTERNAL, counts=True), [("failed", "", False, True)]),
        (outcome(code=Code.RESOURCE_EXHAUSTED), [("other", "", False, True)]),
        (
            outcome(attempt("tpu", "lost"), code=Code.UNAVAILABLE),
            [("other", "tpu", False, False), ("other", "", False, True)],
        ),
    ],
)
def test_an_outcome_says_who_was_at_fault(made, expected):
    seen = list(samples_of(made, lambda worker: worker == "hot"))
    assert [(each.outcome, each.worker, each.expired, each.clean) for each in seen] == expected
    assert {each.version for each in seen} == {"new"}


def test_a_run_for_several_requests_is_not_taken_for_the_time_of_one():
    assert [each.run for each in samples_of(outcome(attempt("tpu", shared=4)), bool)] == [None]
    assert Counter(each.run is None for each in samples_of(outcome(attempt("tpu")), lambda _: False)) == {False: 1}
