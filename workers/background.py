"""Priority of a thread that loads: runs of models that serve go first."""

from __future__ import annotations

import os
import threading
from typing import List, Set

from edgeway.process import stand_back


class Background:
    """The calling thread, at a lower priority from now on.

    Threads that a runtime starts while it loads, its pools for runs, begin with the priority of whoever starts them.
    They are given back the usual one, where the system allows that; where it does not, and there are such pools, loads
    stay at the usual priority.
    """

    def __init__(self, pools: bool) -> None:
        """``pools``: whether the runtime starts threads of its own, in which runs are then computed."""
        self._usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self._known: Set[int] = set()
        self.lowered = not pools or _may_raise(self._usual)
        if self.lowered:
            stand_back()

    def begin(self) -> None:
        """A load begins."""
        self._known = _threads()

    def end(self) -> None:
        """It has ended: threads that came meanwhile are not of the background."""
        for thread in sorted(_threads() - self._known):
            try:
                os.setpriority(os.PRIO_PROCESS, thread, self._usual)
            except OSError:  # it is gone, or was never lowered and may not be touched
                continue


def _threads() -> Set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


def _may_raise(usual: int) -> bool:
    """Whether a thread that was lowered may be raised again; tried by one that ends."""
    allowed: List[bool] = []

    def attempt() -> None:
        thread = threading.get_native_id()
        try:
            os.setpriority(os.PRIO_PROCESS, thread, min(19, usual + 1))
            os.setpriority(os.PRIO_PROCESS, thread, usual)
            allowed.append(True)
        except OSError:
            return

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(allowed)
