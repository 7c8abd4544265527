"""How fast is read: all downloads together, on a clock of the test's."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from gateway.models.sources.pace import Pace

STEP = 0.1


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@given(st.floats(50e3, 1e9), st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 0.3)), min_size=1, max_size=60))
def test_in_no_stretch_of_time_comes_more_than_the_rate_and_one_burst(rate, reads):
    clock = Clock()
    pace = Pace(rate, clock, clock.sleep)
    took = [(0.0, 0)]
    for share, idle in reads:
        clock.now += idle
        count = max(1, int(share * pace.most))
        pace.spend(count)
        took.append((clock.now, took[-1][1] + count))
    for index, (began, before) in enumerate(took):
        for ended, after in took[index + 1 :]:
            assert after - before <= rate * (ended - began + STEP) + pace.most + 1


def test_a_steady_reader_gets_the_whole_rate():
    clock = Clock()
    pace = Pace(1e6, clock, clock.sleep)
    for _ in range(1000):
        pace.spend(10_000)
    assert 9.8 <= clock.now <= 10.1


def test_two_readers_share_one_rate():
    clock, lock = Clock(), threading.Lock()

    def sleep(seconds):
        with lock:
            clock.now += seconds

    pace = Pace(1e6, clock, sleep)

    def read():
        for _ in range(500):
            pace.spend(10_000)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert clock.now >= 9.8


def test_without_a_rate_nobody_waits():
    clock = Clock()
    pace = Pace(None, clock, clock.sleep)
    pace.spend(1 << 40)
    assert clock.now == 0.0
