"""Runs expire when their time is over, in any order of starting, and answered ones leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.expiry import RESOLUTION, Expiry


class FakeTimer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self._at = at
        self.callback = callback
        self.cancelled = False

    def when(self) -> float:
        return self._at

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop(asyncio.AbstractEventLoop):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when, callback, *args, context=None):
        self.timers.append(FakeTimer(when, callback))
        return self.timers[-1]

    def pending(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def move(self, to: float) -> None:
        while due := sorted((t for t in self.pending() if t.when() <= to), key=FakeTimer.when):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].when())
            due[0].callback()
        self.now = to


@given(st.lists(st.tuples(st.floats(0.001, 10), st.booleans()), max_size=40), st.floats(0, 11))
def test_exactly_the_unanswered_runs_whose_time_is_over_expire(runs, moment):
    loop, under_way, expired = FakeLoop(), set(range(len(runs))), []
    expiry = Expiry(loop, under_way, expired.append)
    for number, (until, _) in enumerate(runs):
        expiry.watch(number, until, len(under_way))
    for number, (_, answered) in enumerate(runs):
        if answered:
            under_way.discard(number)
    loop.move(moment)
    unanswered = [(number, until) for number, (until, answered) in enumerate(runs) if not answered]
    # What one timer of the loop takes with it expires with it, up to the resolution early.
    assert {number for number, until in unanswered if until <= moment} <= set(expired)
    assert set(expired) <= {number for number, until in unanswered if until <= moment + 2 * RESOLUTION}
    assert len(expired) == len(set(expired))
    assert len(loop.pending()) <= 1


def test_answered_runs_are_forgotten_long_before_their_time():
    loop, under_way = FakeLoop(), set()
    expiry = Expiry(loop, under_way, lambda number: None)
    for number in range(10_000):
        under_way.add(number)
        expiry.watch(number, 60.0, len(under_way))
        under_way.discard(number)
    assert len(expiry._times) < 100
    assert len(loop.pending()) == 1


def test_closing_ends_the_timer():
    loop = FakeLoop()
    expiry = Expiry(loop, {1}, lambda number: None)
    expiry.watch(1, 5.0, 1)
    expiry.close()
    assert loop.pending() == []
