"""The Prometheus endpoint: holds its address from the start, and serves it once somebody asks."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.record.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Reading:
    """One number about a worker or a version, as it is now."""

    name: str
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float
    counter: bool = False


class MetricsUnavailable(Exception):
    """The endpoint's address can't be used."""


class MetricsServer:
    """Serves ``/metrics`` from a thread of its own: a scrape costs the loop nothing but the interpreter's lock.

    The libraries for it are imported at the first scrape: a device that nobody scrapes has 8 MB more, and starts 60 ms
    sooner.
    """

    def __init__(self, address: str, recorder: Recorder, readings: Callable[[], Iterable[Reading]]) -> None:
        """Raises MetricsUnavailable: no such address, or it is in use."""
        host, _, port = address.rpartition(":")
        try:
            family, _, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            self._socket = socket.socket(family, socket.SOCK_STREAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(place)
            self._socket.listen(16)
        except OSError as failed:
            raise MetricsUnavailable(f"metrics can't be served on {address}: {failed.strerror}") from failed
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._recorder = recorder
        self._readings = readings
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join(2.0)
        self._socket.close()

    def _serve(self) -> None:
        """Until ``close``: the other end of the pipe becomes readable then."""
        answer: Callable[[], None] | None = None
        self._socket.setblocking(False)
        with contextlib.closing(os.fdopen(self._stop, "rb", 0)) as stop:
            while True:
                ready = select.select([self._socket.fileno(), stop.fileno()], [], [])[0]
                if stop.fileno() in ready:
                    return
                if answer is None:
                    from gateway.record.exposition import Exposition

                    answer = Exposition(self._socket, self._recorder, self._readings).answer
                answer()
