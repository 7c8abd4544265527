"""How fast may be read, over all downloads together."""

from __future__ import annotations

import threading
from collections.abc import Callable

_AT_ONCE = 256 << 10
_LEAST = 4 << 10
_STEP = 0.1
"""Seconds that one read may be worth: so long at most nobody looks whether the file is still wanted."""


class Pace:
    """A token bucket that many threads take from; it holds what ``_STEP`` brings."""

    def __init__(self, rate: float | None, now: Callable[[], float], sleep: Callable[[float], object]) -> None:
        """``rate``: bytes per second; None: as fast as it goes."""
        self._rate = rate
        self._now = now
        self._sleep = sleep
        self._free_at = now()
        self._lock = threading.Lock()
        self.most = _AT_ONCE if rate is None else min(_AT_ONCE, max(_LEAST, int(rate * _STEP)))
        """Bytes to read at a time."""

    def spend(self, count: int) -> None:
        """Wait until so many bytes more may have been read."""
        if self._rate is None:
            return
        with self._lock:
            now = self._now()
            self._free_at = max(self._free_at, now - _STEP) + count / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)
