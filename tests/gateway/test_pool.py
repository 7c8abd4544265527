"""Worker: how long a run would wait, from what is in flight and how long the oldest has been at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeway.v1 import worker_pb2
from gateway.config import WorkerConfig
from gateway.dispatch.pool import Worker
from gateway.target import LoadOrder, Target


class FakeLink:
    """A link whose worker has come to no end for so long."""

    def __init__(self, age: float = 0.0) -> None:
        self.age = age

    def oldest_age(self, now: float) -> float:
        return self.age


def worker(instances: int = 1, age: float = 0.0) -> Worker:
    made = Worker(WorkerConfig(name="w", backend="simulated"), instances, lambda *a, **k: None, lambda: None)
    made.link = FakeLink(age)
    return made


def test_an_idle_worker_begins_at_once():
    assert worker().expected_wait(5, 0.0) == 0.0
    busy = worker(instances=2)
    busy.sent(5, 0.004, 0.0)
    assert busy.expected_wait(5, 0.0) == 0.0


def test_the_wait_is_what_is_in_flight_less_what_the_oldest_has_had():
    for age, left in ((0.0, 0.008), (0.003, 0.005), (0.004, 0.004)):
        busy = worker(age=age)
        busy.sent(5, 0.004, 0.0)
        busy.sent(5, 0.004, 0.0)
        assert busy.expected_wait(5, 0.0) == pytest.approx(left)


def test_a_run_over_its_time_is_expected_to_go_on_for_as_long_again():
    hung = worker(age=0.5)
    hung.sent(5, 0.004, 0.0)
    assert hung.expected_wait(5, 0.0) == pytest.approx(0.496)


def test_lower_priorities_do_not_delay_but_for_the_run_that_has_begun():
    busy = worker()
    for _ in range(10):
        busy.sent(8, 0.004, 0.0)
    assert busy.expected_wait(2, 0.0) == pytest.approx(0.004)
    assert busy.expected_wait(8, 0.0) == pytest.approx(0.040)
    busy.sent(2, 0.004, 0.0)
    assert busy.expected_wait(2, 0.0) == pytest.approx(0.008)


def test_higher_priorities_that_keep_coming_make_a_lower_one_wait_longer():
    busy = worker()
    for _ in range(50):
        busy.sent(1, 0.010, 0.0)
        busy.finished(1, 0.010)
    busy.sent(5, 0.010, 0.0)
    assert busy.expected_wait(1, 0.0) == pytest.approx(0.010)
    assert busy.expected_wait(5, 0.0) == pytest.approx(0.020)
    assert busy.expected_wait(5, 10.0) == pytest.approx(0.010, rel=0.01)


def test_requests_that_share_runs_count_with_their_part_and_the_next_one_waits_for_a_whole_run():
    """Runs of 8 ms that answer eight requests each."""
    busy = worker()
    for _ in range(500):
        busy.ran_with(8)
    busy.sent(5, 0.001, 0.0)
    assert busy.expected_wait(5, 0.0) == pytest.approx(0.008, rel=0.01)
    for _ in range(15):
        busy.sent(5, 0.001, 0.0)
    assert busy.expected_wait(5, 0.0) == pytest.approx(0.016, rel=0.01)
    busy.link.age = 0.006
    assert busy.expected_wait(5, 0.0) == pytest.approx(0.010, rel=0.01)


flights = st.lists(st.tuples(st.integers(1, 9), st.floats(0.0001, 1.0)), max_size=20)


@given(flights, st.integers(1, 4), st.floats(0, 2), st.lists(st.integers(1, 32), max_size=5))
def test_a_higher_priority_never_waits_longer_and_nobody_waits_for_less_than_nothing(sent, instances, age, shared):
    busy = worker(instances, age)
    for requests in shared:
        busy.ran_with(requests)
    for priority, expected in sent:
        busy.sent(priority, expected, 0.0)
    waits = [busy.expected_wait(priority, 0.0) for priority in range(1, 10)]
    assert waits == sorted(waits)
    assert min(waits) >= 0.0


@given(flights)
def test_what_was_sent_and_has_ended_leaves_nothing_behind(sent):
    busy = worker()
    for priority, expected in sent:
        busy.sent(priority, expected, 0.0)
    for priority, expected in reversed(sent):
        busy.finished(priority, expected)
    assert busy.in_flight == 0
    assert busy.expected_wait(9, 0.0) == 0.0
    busy.sent(1, 0.001, 0.0)
    assert busy.expected_wait(1, 0.0) == pytest.approx(0.001)


class DumbLink(FakeLink):
    """Takes orders and says nothing."""

    load_limit = 0.0
    loading_since: float | None = None

    def control(self, message: object) -> None:
        """Nobody carries it out."""


@pytest.mark.parametrize(
    ("configured", "declared", "limit"),
    [(None, 0.0, 300.0), (None, 3600.0, 3600.0), (5.0, 3600.0, 5.0), (None, float("nan"), 300.0), (None, -1.0, 300.0)],
)
def test_a_load_may_take_what_the_config_says_else_the_backend_else_five_minutes(configured, declared, limit):
    config = WorkerConfig(name="w", backend="simulated", load_seconds=configured)
    made, link = Worker(config, 1, lambda *a, **k: None, lambda: None), DumbLink()
    made.attach(link, worker_pb2.Hello(load_seconds=declared))
    assert link.load_limit == limit


async def test_a_target_tells_what_its_load_is_at_until_it_has_ended():
    made = worker()
    made.attach(DumbLink(), worker_pb2.Hello(kind="hardware"))
    target = Target("w", 0, made)
    made.want(target, LoadOrder("m", "1", "/m.onnx", "0" * 64))
    assert target.health(0.0)[:2] == ("unknown", "loading")
    made.received(worker_pb2.ToGateway(loading=worker_pb2.Loading(model=1, text="building the engine, 43 s")))
    assert target.health(0.0)[:2] == ("unknown", "loading: building the engine, 43 s")
    made.received(worker_pb2.ToGateway(loading=worker_pb2.Loading(model=99, text="of a model that was dropped")))
    made.received(worker_pb2.ToGateway(load_failed=worker_pb2.LoadFailed(model=1, message="no")))
    assert target.health(0.0)[:2] == ("lost", "no")
    assert target.progress == ""


async def test_a_target_that_warms_up_says_so_and_its_version_hears_of_it():
    changes: list[str] = []
    made = Worker(WorkerConfig(name="w", backend="simulated"), 1, lambda *a, **k: None, lambda: changes.append("."))
    made.attach(DumbLink(), worker_pb2.Hello(kind="hardware"))
    target = Target("w", 0, made)
    made.want(target, LoadOrder("m", "1", "/m.onnx", "0" * 64))
    before = len(changes)
    made.received(worker_pb2.ToGateway(warming=worker_pb2.Warming(model=99)))
    assert (target.warming, len(changes)) == (False, before)
    made.received(worker_pb2.ToGateway(warming=worker_pb2.Warming(model=1)))
    assert (target.warming, len(changes)) == (True, before + 1)
    assert target.health(0.0)[:2] == ("unknown", "loading: warming up")
    made.detach("killed by SIGKILL")
    assert (target.warming, target.progress) == (False, "")
