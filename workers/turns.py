"""Whose turn it is to read the link. Who reads may run a model itself, because waking another thread takes longer."""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

from edgeway import frames
from workers.schedule import Run
from workers.threads import start

HELD_UP = 0.02
"""Seconds after which a run that was to be short has turned out to be another, and the link gets another reader."""


class Turns:
    """Two threads, of which one reads and the other rests."""

    def __init__(self, read: Callable[[object, bytearray], None]) -> None:
        """``read(turn, buffer)`` takes frames as long as ``reader`` is that turn."""
        self._read = read
        self.reader: object = None
        self.resting: Optional[threading.Semaphore] = None
        """The thread that reads next, by what it waits for."""
        self._running_since = 0.0
        """When the reading thread began a run of its own; 0: it reads."""
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Read, in this thread first."""
        self.reader = turn = threading.Semaphore(0)
        start("reader", self._take, threading.Semaphore(0))
        self._take(turn)

    def pass_on(self) -> bool:
        """Have the thread that rests read from now on; False: none does."""
        with self._lock:
            turn, self.resting = self.resting, None
            if turn is None:
                return False
            self.reader = turn
            turn.release()
            return True

    def keep(self, work: Callable[[Run], None], run: Run) -> None:
        """Have the reading thread run it. If it drags on, another one reads meanwhile, see ``relieve``."""
        self._running_since = run.received
        try:
            work(run)
        finally:
            with self._lock:
                self._running_since = 0.0

    def relieve(self) -> None:
        """Have another thread read while the one that did is held up by a run that was to be short."""
        with self._lock:
            held_up = self._running_since and time.monotonic() - self._running_since > HELD_UP
            if held_up:
                self._running_since = 0.0
        if held_up and not self.pass_on():
            self.reader = turn = threading.Semaphore(0)
            start("reader", self._take, turn)

    def _take(self, turn: threading.Semaphore) -> None:
        """Read, and rest while another does. A thread of which there is no need ends."""
        # One buffer for all frames: recvmsg() would allocate the largest frame's 176 KiB for each.
        buffer = bytearray(frames.MAX_FRAME)
        while True:
            self._read(turn, buffer)
            with self._lock:
                if self.resting is not None:
                    return
                self.resting = turn
            turn.acquire()
