"""Zygote: the gateway's view of the process that forks workers, which it starts and replaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.dispatch.launch import Inherited, inherited, launch_zygote
from gateway.dispatch.supervisor import restart_delay

FORK_LIMIT = 2.0
"""Seconds that a fork may take (13 ms measured) before the zygote counts as hung and is replaced."""
SERVED = 1.0
"""Seconds that a zygote has to live for its death to be followed by a new one at once."""
STOP_LIMIT = 2.0
"""Seconds that it gets to end its children and itself."""
_LARGEST = 64 * 1024

log = logging.getLogger(__name__)


class ZygoteUnavailable(Exception):
    """No process can be forked now; the message says why."""


@dataclass(slots=True, eq=False)
class Child:
    """A process that the zygote forked. Its owner closes ``connection`` and calls ``kill``."""

    connection: socket.socket
    """Our end of its link."""
    pid: int
    pidfd: int
    ended: asyncio.Future[int | None]
    """Resolves with its exit code (-8: signal 8) when it has ended; None: the zygote died, and it with it."""

    def kill(self) -> None:
        """End the process, if it has not ended, and forget it."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.close(self.pidfd)
            self.pidfd = -1


class Zygote:
    """Keeps one zygote of a backend alive between ``start`` and ``stop``. All its children end with it."""

    def __init__(
        self,
        backend: str = "cpu",
        python: str | None = None,
        env: Mapping[str, str] | None = None,
        given: Inherited | None = None,
    ) -> None:
        """``python`` and ``env`` as of the worker in whose place the children run: interpreter, further variables;
        ``given``: what the gateway had before it set anything for itself, by default what it has now.
        """
        self._given = given or inherited()
        self.pid = 0
        """0 while none is up."""
        self.ready = asyncio.Event()
        """Set while forks are possible."""
        self._backend = backend
        self._python = python
        self._env = dict(env or {})
        self._socket: socket.socket | None = None
        self._why = "it was not started"
        self._keeper: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._forks: dict[int, tuple[asyncio.Future[Child], socket.socket]] = {}
        """By number of the request: who waits, and our end of the link."""
        self._numbers = 0
        self._children: dict[int, asyncio.Future[int | None]] = {}

    def start(self) -> None:
        """Returns at once; ``ready`` is set some 200 ms later."""
        self._keeper = asyncio.create_task(self._keep(), name="keeper of the zygote")

    async def stop(self) -> None:
        """End it and its children, and wait until they are gone."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    async def fork(self, settings: Mapping[str, Any]) -> Child:
        """A new process that serves its link with these settings (as a worker's, see ``workers/__main__.py``).

        Raises:
            ZygoteUnavailable: the zygote is not up, refused, or did not answer.
        """
        if self._socket is None or not self.ready.is_set():
            raise ZygoteUnavailable(f"no zygote: {self._why}")
        self._numbers += 1
        number = self._numbers
        forked: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        ours: socket.socket | None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._forks[number] = forked, ours
        try:
            request = {"id": number, "backend": self._backend, "settings": dict(settings)}
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno()])
            done, _ = await asyncio.wait([forked], timeout=FORK_LIMIT)
            if not done:
                self._kill()
                raise ZygoteUnavailable(f"the zygote did not fork within {FORK_LIMIT} s")
            child, ours = forked.result(), None
            return child
        except OSError as failed:
            raise ZygoteUnavailable(f"the zygote takes no request: {failed.strerror}") from failed
        finally:
            theirs.close()
            self._forks.pop(number, None)
            if ours is not None:  # a child that was forked all the same sees the end of its link
                ours.close()
                if forked.done() and forked.exception() is None:
                    forked.result().kill()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began = loop.time()
            await self._one_life()
            deaths = 0 if loop.time() - began >= SERVED else deaths + 1
            log.warning("zygote: %s", self._why)
            await asyncio.sleep(restart_delay(deaths))

    async def _one_life(self) -> None:
        """Run one process to its end."""
        try:
            launched = launch_zygote(self._backend, self._python, self._env, self._given)
        except OSError as failed:
            self._why = f"it can't start: {failed}"
            return
        process, ours = launched.process, launched.connection
        loop = asyncio.get_running_loop()
        ours.setblocking(False)
        self._process, self._socket, self.pid, self._why = process, ours, process.pid, "it is starting"
        ended: asyncio.Future[None] = loop.create_future()
        pidfd = os.pidfd_open(process.pid)

        def died() -> None:
            loop.remove_reader(pidfd)
            ended.set_result(None)

        loop.add_reader(pidfd, died)
        loop.add_reader(ours.fileno(), self._readable, ours)
        heard = asyncio.create_task(self._log(process))
        try:
            await asyncio.wait([ended])  # unlike ``await ended``, it does not cancel the future with us
        finally:
            self.ready.clear()
            loop.remove_reader(ours.fileno())
            self._socket, self.pid = None, 0
            ours.close()  # which ends it, if it has not ended
            await asyncio.wait([ended], timeout=STOP_LIMIT)
            process.kill()
            await asyncio.wait([ended])
            os.close(pidfd)
            self._process = None
            self._lost(f"it ended with exit code {process.wait()}")
            heard.cancel()
            await asyncio.wait([heard])

    def _lost(self, why: str) -> None:
        """Everything that hung on this process has ended."""
        self._why = why
        forks, self._forks = self._forks, {}
        for fork, _ in forks.values():
            if not fork.done():
                fork.set_exception(ZygoteUnavailable(why))
        children, self._children = self._children, {}
        for child in children.values():
            if not child.done():
                child.set_result(None)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _readable(self, connection: socket.socket) -> None:
        while True:
            try:
                frame, fds, _, _ = socket.recv_fds(connection, _LARGEST, 1)
            except BlockingIOError:
                return
            except OSError:
                frame, fds = b"", []
            if not frame:  # its death follows; until then the loop need not hear of this again
                asyncio.get_running_loop().remove_reader(connection.fileno())
                self.ready.clear()
                self._kill()
                return
            self._received(json.loads(frame), fds)

    def _received(self, message: dict[str, Any], fds: list[int]) -> None:
        if "ready" in message:
            self._why = ""
            self.ready.set()
        elif "ended" in message:
            ended = self._children.pop(message["ended"], None)
            if ended is not None:
                ended.set_result(message["code"])
        else:
            self._answered(message, fds)

    def _answered(self, message: dict[str, Any], fds: list[int]) -> None:
        """A fork was done or refused, for whoever still waits for it."""
        forked, ours = self._forks.get(message["id"], (None, None))
        waited_for = forked is not None and not forked.done()
        if "refused" in message:
            if forked is not None and waited_for:
                forked.set_exception(ZygoteUnavailable(message["refused"]))
        elif forked is not None and ours is not None and waited_for:
            os.set_inheritable(fds[0], False)
            ended = asyncio.get_running_loop().create_future()
            self._children[message["pid"]] = ended
            forked.set_result(Child(ours, message["pid"], fds[0], ended))
        else:
            for fd in fds:
                os.close(fd)

    async def _log(self, process: subprocess.Popen[bytes]) -> None:
        """Log what the zygote and its children say."""
        assert process.stderr is not None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stderr
        )
        try:
            while said := await reader.read(_LARGEST):
                log.info("zygote: %s", said.decode("utf-8", "replace").strip())
        finally:
            transport.close()

    def __repr__(self) -> str:
        return f"<Zygote of {self._backend} pid {self.pid}{'' if self.ready.is_set() else f', {self._why}'}>"
