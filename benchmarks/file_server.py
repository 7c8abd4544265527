"""A web server for one file over a bad link: throttled, cut, lying. For tests and shows of fetching."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_PIECE = 32 << 10


class FileServer:
    """Serves ``content`` at every path, with ranges and an ETag. Attributes may be changed while it runs.

    ``cuts``: body bytes after which an answer is cut, one entry for each answer, in order. ``rate``: bytes per second.
    ``answer``: takes the request instead, when given; it may use all of the handler.
    """

    def __init__(
        self,
        content: bytes = b"",
        *,
        cuts: list[int] | None = None,
        rate: float | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.content = content
        self.cuts = list(cuts or ())
        self.rate = rate
        self.ranges = True
        self.validators = True
        self.length = True
        self.tag = '"first"'
        self.extra: dict[str, str] = {}
        self.answer: Callable[[Any], None] | None = None
        self.sent = 0
        """Body bytes given to sockets."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path and headers of each request."""
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/model.onnx", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FileServer:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append((handler.path, {name.lower(): text for name, text in handler.headers.items()}))
            cut = self.cuts.pop(0) if self.cuts else None
            content, tag = self.content, self.tag
        if self.answer is not None:
            self.answer(handler)
            return
        start = self._start(handler, len(content), tag)
        if start is None:
            return
        body = memoryview(content)[start:]
        self.write(handler, body[:cut] if cut is not None else body)
        if cut is not None and cut < len(body):
            cut_link(handler)

    def _start(self, handler: BaseHTTPRequestHandler, size: int, tag: str) -> int | None:
        """Send the headers; where the body begins, or None: there is none."""
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if self.ranges else None
        condition = handler.headers.get("If-Range")
        start = int(asked[1]) if asked and (condition in (None, tag) or not self.validators) else 0
        if start >= size > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{size}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return None
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if self.length:
            handler.send_header("Content-Length", str(size - start))
        if self.validators:
            handler.send_header("ETag", tag)
        for name, text in self.extra.items():
            handler.send_header(name, text)
        handler.send_header("Connection", "close")
        handler.end_headers()
        return start

    def write(self, handler: BaseHTTPRequestHandler, body: bytes | memoryview) -> None:
        """Body bytes, no faster than ``rate``."""
        began, before = time.monotonic(), self.sent
        for at in range(0, len(body), _PIECE):
            piece = body[at : at + _PIECE]
            try:
                handler.wfile.write(piece)
            except OSError:
                return
            with self._lock:
                self.sent += len(piece)
            if self.rate:
                time.sleep(max(0.0, (self.sent - before) / self.rate - (time.monotonic() - began)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)  # what is sent is nearly what has come
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what this is for."""


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            server.serve(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Silent."""

    return Handler


def cut_link(handler: BaseHTTPRequestHandler) -> None:
    """End the connection as a lost link does: with a reset, not with a goodbye."""
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


class BadLink:
    """A TCP port before another one. Links over it are cut: the first after ``cuts[0]`` bytes of answer, and so on."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.cuts = list(cuts)
        self.brought = 0
        """Bytes of answers."""
        self._target = port
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)  # what a cut loses on this side
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with self._lock:
            left = self.cuts.pop(0) if self.cuts else None
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            asking = threading.Thread(target=_copy, args=(near, far), daemon=True)
            asking.start()
            try:
                while chunk := far.recv(16 << 10):
                    near.sendall(chunk[:left])
                    self.brought += len(chunk[:left])
                    if left is not None and (left := left - len(chunk)) <= 0:
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        near.shutdown(socket.SHUT_RD)  # a socket that a thread reads from does not close
                        asking.join()
                        return
            except OSError:
                return

    def __enter__(self) -> BadLink:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(16 << 10):
            target.sendall(chunk)
    except OSError:
        return
