"""Which run is next, and who may take it."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from edgeway.frames import Infer
from workers.schedule import Run, Schedule


def run(number: int, priority: int = 5, deadline: float = 0.0) -> Run:
    return Run(Infer(number, 1, 1, 0, deadline, priority, [], []), None, memoryview(b""), 0.0)


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 100)), min_size=1, max_size=20))
def test_classes_go_first_then_deadlines(given_runs):
    schedule = Schedule()
    for number, (priority, deadline) in enumerate(given_runs):
        schedule.put(run(number, priority, deadline), short=True)
    taken = [schedule.take(short_only=False) for _ in given_runs]
    keys = [((r.infer.priority - 1) // 3, r.infer.deadline) for r in taken]
    assert keys == sorted(keys)


def test_the_reserved_instance_leaves_long_runs_to_the_others():
    schedule = Schedule()
    schedule.put(run(1, deadline=1.0), short=False)
    schedule.put(run(2, deadline=2.0), short=True)
    assert schedule.take(short_only=True).infer.request_id == 2
    assert schedule.take(short_only=False).infer.request_id == 1


def test_a_waiting_run_can_be_taken_out_once():
    schedule = Schedule()
    for number in range(5):
        schedule.put(run(number), short=True)
    assert schedule.remove(3).infer.request_id == 3
    assert schedule.remove(3) is None
    assert len(schedule) == 4


def test_a_run_is_claimed_only_when_nobody_runs_or_waits():
    schedule = Schedule()
    assert schedule.claim()
    assert not schedule.claim()
    schedule.done()
    schedule.put(run(1), short=True)
    assert not schedule.claim()
    schedule.take(short_only=False)
    assert not schedule.claim()
    schedule.done()
    assert schedule.claim()


def test_a_waiting_instance_gets_the_run_that_comes():
    schedule = Schedule()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(schedule.take(short_only=True).infer.request_id))
    thread.start()
    schedule.put(run(1), short=False)  # not for this one
    schedule.put(run(2), short=True)
    thread.join(5)
    assert got == [2]


def test_cancelling_stops_a_run_once_whether_it_began_before_or_after():
    stopped: list[str] = []
    early, late = run(1), run(2)
    early.on_cancel(lambda: stopped.append("early"))
    early.cancel()
    early.cancel()
    late.cancel()
    late.on_cancel(lambda: stopped.append("late"))
    over = run(3)
    over.on_cancel(lambda: stopped.append("over"))
    over.done()
    over.cancel()
    assert stopped == ["early", "late"]
