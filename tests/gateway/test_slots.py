"""Shared memory: reused, sealed, and given back."""

from __future__ import annotations

import fcntl
import os

import pytest

from edgeway.frames import MARK_BYTES
from gateway.dispatch.memory import SlotPool


class Other:
    """What the worker would have: descriptors by number."""

    def __init__(self) -> None:
        self.fds: dict[int, int] = {}

    def announce(self, slot, fd: int) -> None:
        self.fds[slot.number] = os.dup(fd)

    def retire(self, slot) -> None:
        os.close(self.fds.pop(slot.number))


@pytest.fixture
def other():
    made = Other()
    yield made
    for fd in made.fds.values():
        os.close(fd)


def test_a_slot_is_reused_and_never_given_to_two(other):
    pool = SlotPool(other.announce, other.retire)
    first = pool.take(1000)
    second = pool.take(1000)
    assert first.number != second.number
    pool.give(first, now=0.0)
    assert pool.take(900).number == first.number
    assert len(other.fds) == 2


def test_a_larger_tensor_gets_a_larger_slot(other):
    pool = SlotPool(other.announce, other.retire)
    slot = pool.take(50_000_000)
    assert slot.size >= 50_000_000
    assert len(slot.view) == slot.size


def test_unused_memory_is_given_back_after_a_while(other):
    pool = SlotPool(other.announce, other.retire)
    big = pool.take(50_000_000)
    pool.give(big, now=0.0)
    held = pool.bytes
    pool.trim(now=1e6)
    assert pool.bytes < held
    assert big.number not in other.fds


def test_the_other_side_cannot_shrink_a_slot(other):
    pool = SlotPool(other.announce, other.retire)
    slot = pool.take(1000)
    with pytest.raises(PermissionError):
        os.ftruncate(other.fds[slot.number], 0)
    assert fcntl.fcntl(other.fds[slot.number], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK


def test_the_mark_lies_beyond_the_tensors_and_costs_no_larger_slot(other):
    pool = SlotPool(other.announce, other.retire)
    slot = pool.take(4 << 20)
    assert slot.usable == 4 << 20
    assert slot.size == slot.usable + MARK_BYTES
    assert os.fstat(other.fds[slot.number]).st_size == slot.size


def test_the_mark_of_the_other_side_is_seen_until_it_is_cleared(other):
    pool = SlotPool(other.announce, other.retire)
    slot = pool.take(1000)
    assert not slot.begun
    os.pwrite(other.fds[slot.number], b"\1", slot.usable)
    assert slot.begun
    slot.view[: slot.usable] = bytes(slot.usable)  # what tensors may use does not touch it
    assert slot.begun
    slot.clear_mark()
    assert not slot.begun
