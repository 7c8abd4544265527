"""Sockets of connections that wait for an answer, so that the wait can be ended from another thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib3


class Sockets:
    """Those that a pool of connections has made. Timeouts of sockets begin anew with each byte, so a server that sends
    its headers byte by byte would hold a thread for days; this has an end for all of an answer's headers.
    """

    def __init__(self) -> None:
        self._made: list[socket.socket] = []

    def note(self, pool: urllib3.PoolManager) -> None:
        """Know the sockets of this pool from now on."""
        made, classes = self._made, pool.pool_classes_by_scheme

        def noting(kind: Any) -> Any:
            class Connection(kind.ConnectionCls):  # type: ignore[misc]
                def connect(self) -> None:
                    super().connect()
                    made.append(self.sock)

            return type(kind.__name__, (kind,), {"ConnectionCls": Connection})

        pool.pool_classes_by_scheme = {scheme: noting(kind) for scheme, kind in classes.items()}

    def shut(self) -> None:
        """From another thread: whoever reads from one of them reads no more."""
        for made in list(self._made):
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[threading.Event]:
        """Shut them unless this block ends before; the event says whether that was done."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.shut()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()
