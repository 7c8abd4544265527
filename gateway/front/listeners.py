"""Listeners: sockets on which gRPC is served, bound without taking anybody's place and published when ready."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc import aio

from gateway.config import TlsSettings

_HANDSHAKE_MS = 1000
"""A connection that says nothing is closed: 300 silent ones would use up the descriptors of a small device."""
_LOOPBACK = ("127.", "localhost:", "[::1]:")


class CantListen(Exception):
    """An address can't be served; the message names it and the remedy."""


@dataclass(slots=True)
class Listener:
    """One address and its server. A Unix socket is bound under a temporary name until ``publish``."""

    address: str
    """As clients use it, with the port really bound."""
    server: aio.Server
    socket: Path | None = None
    _temporary: Path | None = None
    mode: int = 0o660
    _inode: int = field(default=0)

    async def publish(self) -> None:
        """Start serving, and put a Unix socket into its public place, at once and whole."""
        await self.server.start()
        if self.socket is not None and self._temporary is not None:
            self._temporary.chmod(self.mode)
            self._inode = self._temporary.stat().st_ino
            self._temporary.replace(self.socket)

    def group(self) -> int:
        """Whose members can connect, beside our own user. A TCP listener is open to those whom the operator trusts."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                return self.socket.stat().st_gid
        return os.getegid()

    async def stop(self, grace: float) -> None:
        """Finish calls for ``grace`` seconds, then end. The socket is removed if it is still ours."""
        await self.server.stop(grace)
        if self.socket is not None:
            with contextlib.suppress(FileNotFoundError):
                if self.socket.stat().st_ino == self._inode:
                    self.socket.unlink()


def bind(address: str, max_message: int, mode: int, tls: TlsSettings | None, insecure: bool) -> Listener:
    """Bind an address; nothing is served before ``publish``.

    Raises:
        CantListen: in use, not allowed, or the TLS files are unusable.
    """
    server = aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # with it, two gateways would share a port without knowing
            ("grpc.max_receive_message_length", max_message),
            ("grpc.max_send_message_length", -1),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ]
    )
    if address.startswith("unix:"):
        return _bind_unix(address, server, mode)
    host, _, port = address.rpartition(":")
    try:
        if address.startswith(_LOOPBACK) or insecure:
            bound = server.add_insecure_port(address)
        elif tls is not None:
            bound = server.add_secure_port(address, _credentials(tls))
        else:
            raise CantListen(
                f"{address} is beyond loopback: configure tls (cert, key, clientCa), or allow it with --insecure"
            )
    except RuntimeError as failed:
        raise CantListen(f"{address} can't be bound; is another gateway running on port {port}?") from failed
    return Listener(f"{host}:{bound}", server)


def _bind_unix(address: str, server: aio.Server, mode: int) -> Listener:
    path = Path(address.removeprefix("unix:"))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        temporary.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{temporary}")
    except (OSError, RuntimeError) as failed:
        raise CantListen(f"{address} can't be bound: {failed}") from failed
    return Listener(address, server, path, temporary, mode)


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    try:
        pair = (Path(tls.key).read_bytes(), Path(tls.cert).read_bytes())
        client_ca = Path(tls.client_ca).read_bytes() if tls.client_ca else None
    except OSError as failed:
        raise CantListen(f"tls: {failed.filename}: {failed.strerror}") from failed
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
