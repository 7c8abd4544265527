"""Progress: what a load is at, said on one thread or another, told of under its model's handle."""

from __future__ import annotations

import threading

from workers.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_load_that_has_said_nothing_is_told_of_by_its_time():
    clock = Clock()
    progress = Progress(clock)
    with progress.of(7):
        assert progress.told(after=1.0) == []
        clock.now += 5.0
        assert progress.told(after=1.0) == [(7, "5 s")]
    assert progress.told(after=0.0) == []


def test_a_load_says_what_it_is_at_from_any_thread():
    clock = Clock()
    progress = Progress(clock)
    with progress.of(7):
        tell = progress.teller()
        other = threading.Thread(target=tell, args=("building the engine",))
        other.start()
        other.join()
        clock.now += 43.0
        assert progress.told(after=1.0) == [(7, "building the engine, 43 s")]


def test_what_is_said_after_the_end_of_a_load_is_not_told_of_the_next_one():
    clock = Clock()
    progress = Progress(clock)
    with progress.of(7):
        tell = progress.teller()
    tell("building the engine")
    with progress.of(7):
        clock.now += 2.0
        assert progress.told(after=1.0) == [(7, "2 s")]


def test_two_loads_do_not_speak_for_each_other():
    clock = Clock()
    progress = Progress(clock)
    begun, done = threading.Event(), threading.Event()

    def second() -> None:
        with progress.of(8):
            progress.teller()("reading")
            begun.set()
            done.wait(5)

    thread = threading.Thread(target=second)
    with progress.of(7):
        progress.teller()("building")
        thread.start()
        assert begun.wait(5)
        clock.now += 3.0
        assert sorted(progress.told(after=1.0)) == [(7, "building, 3 s"), (8, "reading, 3 s")]
        done.set()
        thread.join()


def test_what_is_said_outside_a_load_goes_nowhere():
    progress = Progress()
    progress.teller()("building the engine")
    assert progress.told(after=-1.0) == []
