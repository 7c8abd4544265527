"""Which run is next: priority class, then deadline; short runs have an instance of their own."""

from __future__ import annotations

import heapq
import threading
from typing import Any, Callable, List, Optional, Tuple

from edgeway.frames import Infer

LONG = 0.1
"""Seconds. Runs that are expected to take longer keep off the reserved instance."""

_Key = Tuple[int, float, int]
_CANCELLING = threading.Lock()
"""For all runs: held for a few assignments, it costs less than a lock of each run's own."""


class Run:
    """One run from its frame to its reply. ``cancel`` comes from the reading thread, all else from a model thread."""

    __slots__ = (
        "_stop",
        "cancelled",
        "infer",
        "input_bytes",
        "key",
        "model",
        "outputs",
        "received",
        "running",
        "view",
        "wanted",
    )

    def __init__(self, infer: Infer, model: Any, view: memoryview, received: float) -> None:
        self.infer = infer
        self.model = model
        self.view = view
        self.received = received
        self.input_bytes = 0
        self.cancelled = False
        self.running = False
        self.outputs: Optional[List[Any]] = None
        """Kept after the run while a larger slot is on its way."""
        self.wanted: List[int] = []
        self.key: _Key = ((infer.priority - 1) // 3, infer.deadline, infer.request_id)
        self._stop: Optional[Callable[[], None]] = None

    def on_cancel(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when the run is cancelled, at once if it has been."""
        with _CANCELLING:
            self._stop = stop
            late = self.cancelled
        if late:
            stop()

    def cancel(self) -> None:
        with _CANCELLING:
            self.cancelled = True
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def done(self) -> None:
        """The backend has returned: a cancellation that comes now stops nothing."""
        with _CANCELLING:
            self._stop = None
            self.running = False


class Schedule:
    """Runs waiting for an instance. With two instances or more, one takes short runs only.

    So a cheap model answers while another model's long runs keep the rest busy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._short: List[Tuple[_Key, Run]] = []
        self._long: List[Tuple[_Key, Run]] = []
        self._taken = 0

    def put(self, run: Run, short: bool) -> None:
        with self._changed:
            heapq.heappush(self._short if short else self._long, (run.key, run))
            # Several kinds of takers wait; the one that is woken must be one that may take this run.
            if short:
                self._changed.notify()
            else:
                self._changed.notify_all()

    def take(self, short_only: bool, until: Optional[Callable[[], bool]] = None) -> Optional[Run]:
        """The next run for an instance; waits for one. None once ``until()`` holds."""
        with self._changed:
            while True:
                if until is not None and until():
                    return None
                heap = self._short
                if not short_only and self._long and (not heap or self._long[0][0] < heap[0][0]):
                    heap = self._long
                if heap:
                    self._taken += 1
                    return heapq.heappop(heap)[1]
                self._changed.wait()

    def done(self) -> None:
        """A run that was taken is over."""
        with self._lock:
            self._taken -= 1

    @property
    def taken(self) -> int:
        """Runs that instances are at."""
        return self._taken

    def claim(self) -> bool:
        """Take a run that was never put, if none waits and none is taken; ``done`` ends it."""
        with self._lock:
            if self._taken or self._short or self._long:
                return False
            self._taken = 1
            return True

    def remove(self, request_id: int) -> Optional[Run]:
        """Take a waiting run out, if it still waits."""
        with self._changed:
            for heap in (self._short, self._long):
                for index, (_, run) in enumerate(heap):
                    if run.infer.request_id == request_id:
                        heap[index] = heap[-1]
                        heap.pop()
                        heapq.heapify(heap)
                        return run
        return None

    def wake(self) -> None:
        """Have all takers look at their ``until`` again."""
        with self._changed:
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._short) + len(self._long)
