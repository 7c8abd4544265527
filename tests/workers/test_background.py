"""Loads leave the cores to runs; what is to run later is not slowed by how it was loaded."""

from __future__ import annotations

import os
import threading

import pytest

from edgeway.process import STEPS_BACK
from workers import background
from workers.background import Background


def nice(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def in_a_thread(work) -> None:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - handed on to the test
            failed.append(failure)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def test_only_the_thread_that_loads_is_lowered():
    usual = nice(0)

    def work() -> None:
        assert Background(pools=False).lowered
        assert nice(threading.get_native_id()) == min(19, usual + STEPS_BACK)

    in_a_thread(work)
    assert nice(threading.get_native_id()) == usual


@pytest.mark.skipif(os.getuid() != 0, reason="raising a priority needs the right to")
def test_threads_that_a_runtime_starts_for_runs_have_the_usual_priority_again():
    usual = nice(0)

    def work() -> None:
        loader, done = Background(pools=True), threading.Event()
        loader.begin()
        pool = threading.Thread(target=done.wait)
        pool.start()
        assert pool.native_id is not None
        assert nice(pool.native_id) == min(19, usual + STEPS_BACK)
        loader.end()
        assert nice(pool.native_id) == usual
        assert nice(threading.get_native_id()) == min(19, usual + STEPS_BACK)
        done.set()
        pool.join()

    in_a_thread(work)


def test_where_they_could_not_be_raised_again_loads_stay_at_the_usual_priority(monkeypatch):
    monkeypatch.setattr(background, "_may_raise", lambda usual: False)
    usual = nice(0)

    def work() -> None:
        assert not Background(pools=True).lowered
        assert nice(threading.get_native_id()) == usual
        assert Background(pools=False).lowered

    in_a_thread(work)
