"""Looks for the next frame without going to sleep: waking up takes some 50 us, more where the core saves power."""

from __future__ import annotations

import select
import socket
import time


class Spin:
    """Waits for a socket to become readable, busy."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        """``seconds``: the longest it spins; 0: it does not."""
        self._seconds = seconds
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def wait(self) -> None:
        """Returns when there is something to read or the time is over. Other threads run meanwhile."""
        if self._seconds > 0:
            until = time.monotonic() + self._seconds
            while not self._poll.poll(0) and time.monotonic() < until:
                pass
