"""Slots: the shared memory in which tensors reach a worker and come back.

Every slot is an anonymous memfd, sealed against shrinking and growing before its descriptor leaves the process, so
that no side can take memory away under the other (SIGBUS). It has no name: nothing to guess, and nothing is left
behind when a process dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

from edgeway.frames import MARK_BYTES

SMALLEST = 256 * 1024
"""Bytes. A page that nobody touches costs nothing, so small messages may share one size."""
LARGE = 8 * 1024 * 1024
"""Bytes. Free slots above this size are given back after ``LARGE_IDLE`` seconds, others after ``SMALL_IDLE``."""
LARGE_IDLE = 1.0
SMALL_IDLE = 30.0
KEPT = 2
"""Free slots of each smaller size that stay for good: the next request pays no page fault."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(slots=True, eq=False)
class Slot:
    """Memory shared with one worker. ``view`` is writable and as long as the slot, ``size`` bytes; its last
    ``MARK_BYTES`` are no room for tensors: there the worker notes that it has begun the run.
    """

    number: int
    usable: int
    """Bytes for tensors."""
    view: memoryview
    idle_since: float = 0.0

    @property
    def size(self) -> int:
        return self.usable + MARK_BYTES

    @property
    def begun(self) -> bool:
        """Whether the worker says that it has begun the run; readable also when it is dead."""
        return self.view[self.usable] != 0

    def clear_mark(self) -> None:
        self.view[self.usable] = 0

    def __repr__(self) -> str:
        return f"<Slot {self.number} {self.size >> 10} kB>"


class SlotPool:
    """The slots of one link. Taking one that is free costs about 1 us; making one about 30 us, plus page faults."""

    def __init__(self, announce: Callable[[Slot, int], None], retire: Callable[[Slot], None]) -> None:
        """``announce(slot, fd)`` sends the descriptor to the worker (it is closed afterwards); ``retire`` ends it."""
        self._announce = announce
        self._retire = retire
        self._free: dict[int, list[Slot]] = {}
        self._made = 0
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Size of all slots, free or in use."""
        return self._bytes

    def take(self, nbytes: int) -> Slot:
        """A slot with room for ``nbytes`` of tensors; it is the caller's until ``give``."""
        # The mark comes on top: within a power of two it would double the slot of a tensor that is just as large.
        usable = max(SMALLEST, 1 << (nbytes - 1).bit_length())
        free = self._free.get(usable)
        return free.pop() if free else self._make(usable + MARK_BYTES)

    def give(self, slot: Slot, now: float) -> None:
        slot.idle_since = now
        self._free.setdefault(slot.usable, []).append(slot)

    def trim(self, now: float) -> None:
        """End slots that have been free for long. Called about once a second, never on a request's way."""
        for usable, free in self._free.items():
            limit, kept = (LARGE_IDLE, 0) if usable > LARGE else (SMALL_IDLE, KEPT)
            stale = [slot for slot in free[: max(0, len(free) - kept)] if now - slot.idle_since >= limit]
            for slot in stale:
                free.remove(slot)
                self._bytes -= slot.size
                self._retire(slot)

    def close(self) -> None:
        """Let go of the free ones at once; a slot in use goes with the last view of it."""
        self._free.clear()

    def _make(self, size: int) -> Slot:
        fd = os.memfd_create("edgeway-slot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            self._made += 1
            slot = Slot(self._made, size - MARK_BYTES, memoryview(mmap.mmap(fd, size)))
            self._announce(slot, fd)
        finally:
            os.close(fd)
        self._bytes += size
        return slot

    def __repr__(self) -> str:
        return f"<SlotPool {self._bytes >> 20} MB, free {[slot for free in self._free.values() for slot in free]}>"
