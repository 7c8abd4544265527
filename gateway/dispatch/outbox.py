"""Frames on their way out of a link: what its socket does not take at once waits."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence


class Outbox:
    """Belongs to the loop."""

    def __init__(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """``connection``: does not block."""
        self._socket = connection
        self._loop = loop
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()
        self._closed = False

    def send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Takes the descriptors. After ``close`` it comes to nothing."""
        if self._closed:
            for fd in fds:
                os.close(fd)
            return
        if self._waiting or not self._sent(frame, fds):
            if not self._waiting:
                self._loop.add_writer(self._socket.fileno(), self._writable)
            self._waiting.append((frame, fds))

    def close(self) -> None:
        """The socket is about to be closed."""
        self._closed = True
        self._loop.remove_writer(self._socket.fileno())
        for _, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()

    def _sent(self, frame: bytes, fds: Sequence[int]) -> bool:
        """Whether the socket took it. A broken socket takes everything: its reader sees the end and closes."""
        try:
            if fds:
                socket.send_fds(self._socket, [frame], list(fds))
            else:
                self._socket.send(frame)
        except BlockingIOError:
            return False
        except OSError:
            pass
        for fd in fds:
            os.close(fd)
        return True

    def _writable(self) -> None:
        while self._waiting:
            if not self._sent(*self._waiting[0]):
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket.fileno())
