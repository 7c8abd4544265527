"""Which run is next, and who may take it."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from workers.schedule import Lane, Run, Schedule, Waiting

STARVATION = 2.0


def run(number: int, priority: int = 5, deadline: float = 0.0, received: float = 0.0) -> Run:
    return Run(number, priority, deadline, received)


class Moment:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def schedule_at(moment: Moment | None = None) -> Schedule:
    return Schedule(STARVATION, moment or Moment())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 9), st.floats(0, 100), st.booleans()),
        st.tuples(st.just("take"), st.booleans()),
        st.tuples(st.just("remove"), st.integers(0, 40)),
        st.tuples(st.just("pass"), st.floats(0, 1.5)),
    ),
    max_size=120,
)


def eligible(waiting: list[tuple[Run, bool]], short_only: bool) -> list[Run]:
    return [each for each, short in waiting if short or not short_only]


@given(steps)
def test_the_best_run_goes_first_unless_one_starves_and_then_the_one_that_came_first(given_steps):
    """Against a list that is searched from end to end."""
    queue, waiting, now, number = Waiting(STARVATION), [], 0.0, 0
    for kind, *what in given_steps:
        if kind == "pass":
            now += what[0]
        elif kind == "put":
            priority, deadline, short = what
            waiting.append((run(number, priority, deadline, now), short))
            queue.add(*waiting[-1])
            number += 1
        elif kind == "remove":
            gone = [each for each in waiting if each[0].number == what[0]]
            assert queue.remove(what[0]) is (gone[0][0] if gone else None)
            waiting = [each for each in waiting if each not in gone]
        else:
            able = eligible(waiting, what[0])
            taken = queue.take(now, what[0])
            if not able:
                assert taken is None
                continue
            starving = [each for each in able if each.received < now - STARVATION]
            if starving:
                assert taken is starving[0]  # the list is in the order of arrival
            else:
                before = [each for each in able if each.priority < taken.priority]
                assert before == []
                peers = [each for each in able if each.priority == taken.priority]
                assert taken.deadline == min(each.deadline for each in peers)
            waiting = [each for each in waiting if each[0] is not taken]
        assert len(queue) == len(waiting)


@given(steps)
def test_the_same_past_gives_the_same_order(given_steps):
    def played() -> list[int | None]:
        queue, now, number, taken = Waiting(STARVATION), 0.0, 0, []
        for kind, *what in given_steps:
            if kind == "pass":
                now += what[0]
            elif kind == "put":
                queue.add(run(number, what[0], what[1], now), what[2])
                number += 1
            elif kind == "take":
                found = queue.take(now, what[0])
                taken.append(None if found is None else found.number)
        return taken

    assert played() == played()


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=200))
def test_a_run_waits_at_most_its_age_and_one_run_while_later_ones_are_taken(priority, later):
    """One more important run comes with each that is taken, for ever: the first one goes as soon as it starves."""
    service, queue = 0.1, Waiting(STARVATION)
    first = run(0, priority, 1e9, 0.0)
    queue.add(first, short=False)
    now = 0.0
    for number, (other, short) in enumerate(later, 1):
        queue.add(run(number, other, 0.0, now), short)
        taken = queue.take(now, short_only=False)
        if taken is first:
            break
        assert now <= STARVATION + service
        now += service


def test_each_of_the_nine_priorities_is_a_level_of_its_own():
    schedule = schedule_at()
    for number, priority in enumerate((9, 3, 1, 2, 5)):
        schedule.put(run(number, priority, deadline=float(number)), short=True)
    assert [schedule.take(short_only=False)[0].priority for _ in range(5)] == [1, 2, 3, 5, 9]


def test_a_starving_run_overtakes_more_important_ones_that_came_later():
    moment = Moment()
    schedule = schedule_at(moment)
    schedule.put(run(1, priority=9, received=0.0), short=False)
    schedule.put(run(2, priority=1, received=1.0), short=True)
    moment.now = 1.9
    assert schedule.take(short_only=False)[0].number == 2
    schedule.put(run(3, priority=1, received=1.9), short=True)
    moment.now = 2.1
    assert schedule.take(short_only=False)[0].number == 1


def test_runs_that_left_are_forgotten_while_one_waits_for_long():
    lane = Lane()
    lane.add(run(0, priority=9))
    for number in range(1, 10_000):
        lane.add(run(number, priority=9, deadline=1.0))
        lane.remove(number)
    assert len(lane._heap) < 100
    assert lane.first(before=0.0).number == 0


def test_the_reserved_instance_leaves_long_runs_to_the_others():
    schedule = schedule_at()
    schedule.put(run(1, deadline=1.0), short=False)
    schedule.put(run(2, deadline=2.0), short=True)
    assert schedule.take(short_only=True)[0].number == 2
    assert schedule.take(short_only=False)[0].number == 1


def test_a_waiting_run_can_be_taken_out_once():
    schedule = schedule_at()
    for number in range(5):
        schedule.put(run(number), short=True)
    assert schedule.remove(3).number == 3
    assert schedule.remove(3) is None
    assert len(schedule) == 4


def test_a_run_is_claimed_only_when_nobody_runs_or_waits():
    schedule = schedule_at()
    assert schedule.claim()
    assert not schedule.claim()
    schedule.done()
    schedule.put(run(1), short=True)
    assert not schedule.claim()
    schedule.take(short_only=False)
    assert not schedule.claim()
    schedule.done()
    assert schedule.claim()


def test_a_run_waits_while_as_many_as_there_are_instances_are_taken():
    schedule = Schedule(STARVATION, Moment(), instances=1)
    assert schedule.claim()
    schedule.put(run(1), short=True)
    got: list[int] = []
    instance = threading.Thread(target=lambda: got.extend(each.number for each in schedule.take(False)), daemon=True)
    instance.start()
    instance.join(0.05)
    assert got == []
    schedule.done()
    instance.join(5)
    assert got == [1]
    schedule.put(run(2), short=True)
    schedule.widen(1)  # a spare stands in for an instance that can't be stopped
    assert [each.number for each in schedule.take(False)] == [2]


def test_a_waiting_instance_gets_the_run_that_comes():
    schedule = schedule_at()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(schedule.take(short_only=True)[0].number))
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


def test_a_cancellation_either_drops_the_kept_outputs_or_prevents_that_they_are_kept():
    over, early = run(1), run(2)
    assert over.keep(["outputs"])
    assert over.cancel()
    assert over.outputs is None
    assert not over.cancel()
    assert not early.cancel()
    assert not early.keep(["outputs"])
    assert early.outputs is None


def test_an_instance_that_leaves_passes_the_wake_up_on():
    schedule = schedule_at()
    leaving = threading.Event()
    got: list[int] = []
    stand_in = threading.Thread(target=lambda: schedule.take(False, leaving.is_set), daemon=True)
    instance = threading.Thread(target=lambda: got.append(schedule.take(False)[0].number), daemon=True)
    stand_in.start()
    while not schedule._changed._waiters:
        threading.Event().wait(0.001)
    instance.start()
    while len(schedule._changed._waiters) < 2:
        threading.Event().wait(0.001)
    leaving.set()
    schedule.put(run(1), short=True)  # wakes the one that waits longest, which is the one that leaves
    instance.join(5)
    stand_in.join(5)
    assert got == [1]
