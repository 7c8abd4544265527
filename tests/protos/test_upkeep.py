"""Garbage is collected, and memory given back, when nobody waits for an answer."""

import gc
import subprocess
import sys

import pytest

from edgeway.upkeep import PRESSING, QUIET, WORTH, Upkeep


class Recorded:
    def __init__(self, made: int = 0) -> None:
        self.made = made
        self.done: list[str] = []
        self.upkeep = Upkeep(self.collect, lambda: self.done.append("trim"), lambda: self.made)

    def collect(self) -> None:
        self.done.append("collect")
        self.made = 0

    def step(self, now: float, in_flight: int = 0, served: int = 0) -> list[str]:
        self.upkeep.step(now, in_flight, served)
        done, self.done = self.done, []
        return done


def test_garbage_waits_while_a_request_is_in_flight_and_goes_when_none_is():
    recorded = Recorded(made=WORTH)
    assert recorded.step(1.0, in_flight=1) == []
    assert recorded.step(1.1) == ["collect"]
    assert recorded.step(1.2) == []


def test_a_little_garbage_is_not_worth_a_collection():
    assert Recorded(made=WORTH - 1).step(1.0) == []


def test_a_process_that_is_never_idle_does_not_grow_for_ever():
    assert Recorded(made=PRESSING).step(1.0, in_flight=5) == ["collect"]


def test_memory_is_given_back_once_after_a_quiet_while():
    recorded = Recorded()
    assert recorded.step(1.0, served=10) == []
    assert recorded.step(1.0 + QUIET / 2, served=11) == []
    assert recorded.step(1.0 + QUIET, served=11) == []
    assert recorded.step(1.0 + QUIET * 1.5, served=11) == ["trim"]
    assert recorded.step(1.0 + QUIET * 3, served=11) == []


def test_a_long_run_is_no_quiet_while():
    recorded = Recorded()
    recorded.step(1.0, served=10)
    assert recorded.step(1.0 + QUIET, in_flight=1, served=10) == []
    assert recorded.step(1.1 + QUIET, served=10) == []


def test_a_process_that_served_nothing_has_nothing_to_give_back():
    assert [Recorded().step(now) for now in (1.0, 2.0 + QUIET)] == [[], []]


@pytest.mark.parametrize("load", [1, 2])
def test_after_settling_nothing_is_collected_by_itself_and_garbage_still_goes_at_a_step(load):
    code = f"""
import gc, weakref
from edgeway.upkeep import Upkeep
class Knot: pass
upkeep = Upkeep()
for _ in range({load}):
    upkeep.settle()
frozen = gc.get_freeze_count()
knot = Knot(); knot.self = knot
seen = weakref.ref(knot)
del knot
kept = [[] for _ in range(5000)]
assert seen() is not None, "collected by itself"
upkeep.step(1.0, 0, 1)
assert seen() is None, "not collected at the step"
assert frozen > 1000 and gc.get_freeze_count() == frozen and not gc.isenabled()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert gc.isenabled()  # of this process
