"""Door: hands out the memory of regions that the gateway made, on a Unix socket beside a listener's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from pathlib import Path

from gateway.regions.region import Region
from gateway.regions.registry import Regions

CLAIM_SECONDS = 5.0
"""What a client has to fetch its region, and a connection to say for what it came."""
MAX_SILENT = 64
"""Connections that have not said so yet; a further one is closed."""
PAUSE = 0.1
"""Seconds without new connections when one could not be taken."""
_TOKEN_BYTES = 16


class Door:
    """Gives each region to whoever shows its token, once. The connection is the client's lease: when it ends, because
    the client let go or died, so does the region.
    """

    def __init__(self, listener: Path, mode: int, regions: Regions) -> None:
        """``listener``: the socket beside which this one is. Raises OSError: it can't be bound."""
        self.path = listener.with_name(f"{listener.name}.regions")
        self._regions = regions
        self._mode = mode
        self._loop = asyncio.get_running_loop()
        self._unclaimed: dict[bytes, tuple[Region, asyncio.TimerHandle]] = {}
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._leases: dict[socket.socket, Region] = {}
        self._inode = 0
        self._again: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self._temporary.unlink(missing_ok=True)
        try:
            self._socket.bind(str(self._temporary))
        except OSError:
            self._socket.close()
            raise

    def publish(self) -> None:
        """Let clients in, as the listener does."""
        self._socket.listen(MAX_SILENT)
        self._temporary.chmod(self._mode)
        self._inode = self._temporary.stat().st_ino
        self._temporary.replace(self.path)
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def create(self, nbytes: int) -> tuple[Region, bytes]:
        """A new region, and the token for it.

        Raises:
            EdgewayError: see ``Regions.create``.
        """
        region, token = self._regions.create(nbytes), secrets.token_bytes(_TOKEN_BYTES)
        self._unclaimed[token] = region, self._loop.call_later(CLAIM_SECONDS, self._forget, token)
        return region, token

    def close(self) -> None:
        """End all leases; the socket is removed if it is still ours."""
        if self._inode:
            self._loop.remove_reader(self._socket.fileno())
        if self._again is not None:
            self._again.cancel()
        self._socket.close()
        for token in list(self._unclaimed):
            self._forget(token)
        for connection in [*self._silent, *self._leases]:
            self._end(connection)
        with contextlib.suppress(FileNotFoundError):
            if self._inode and self.path.stat().st_ino == self._inode:
                self.path.unlink()
            elif not self._inode:
                self._temporary.unlink()

    def _forget(self, token: bytes) -> None:
        """Nobody has come for it."""
        region, timer = self._unclaimed.pop(token)
        timer.cancel()
        self._regions.end(region)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:  # most likely there is no descriptor left: asking again at once would take all of the loop
            self._loop.remove_reader(self._socket.fileno())
            self._again = self._loop.call_later(PAUSE, self._listen)
            return
        connection.setblocking(False)
        if len(self._silent) >= MAX_SILENT:
            connection.close()
            return
        self._silent[connection] = self._loop.call_later(CLAIM_SECONDS, self._end, connection)
        self._loop.add_reader(connection.fileno(), self._readable, connection)

    def _readable(self, connection: socket.socket) -> None:
        try:
            said = connection.recv(_TOKEN_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        unclaimed = self._unclaimed.pop(said, None) if connection in self._silent else None
        if unclaimed is None:  # the end of a lease, or somebody who has no business here
            self._end(connection)
            return
        region, timer = unclaimed
        timer.cancel()
        self._silent.pop(connection).cancel()
        self._leases[connection] = region
        try:
            socket.send_fds(connection, [region.name.encode()], [region.fd])
        except OSError:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        timer = self._silent.pop(connection, None)
        if timer is not None:
            timer.cancel()
        region = self._leases.pop(connection, None)
        self._loop.remove_reader(connection.fileno())
        connection.close()
        if region is not None:
            self._regions.end(region)

    def __repr__(self) -> str:
        return f"<Door {self.path.name} {len(self._leases)} leases, {len(self._unclaimed)} unclaimed>"
