"""Sends frames to the gateway."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, Callable

from edgeway import frames
from edgeway.v1 import worker_pb2


class Sender:
    """For all threads. Without a gateway the process ends at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()

    def send(self, frame: bytes) -> None:
        with self._sending:
            self._write(frame)

    def send_if(self, condition: Callable[[], bool], frame: bytes) -> bool:
        """Send it if the condition holds, and give that back. In one step: what follows from it is sent after it."""
        with self._sending:
            holds = condition()
            if holds:
                self._write(frame)
        return holds

    def control(self, **message: Any) -> None:
        self.send(frames.pack_control(worker_pb2.ToGateway(**message).SerializeToString()))

    def _write(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError:
            os._exit(0)  # the gateway is gone
