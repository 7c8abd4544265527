"""Supervisor: starts a worker's process, notices its death at once, and starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from edgeway.process import SETTING_REFUSED
from edgeway.v1 import worker_pb2
from gateway.dispatch.launch import Launched, WorkerTerms, launch_worker
from gateway.dispatch.link import Link
from gateway.dispatch.pool import Worker
from gateway.dispatch.refusal import MISSING_INTERPRETER, no_interpreter, refused

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
SERVED = 1.0
"""Seconds after which a worker that was ready counts as having served: it is replaced at once when it dies."""
CRASH_LOOP = 5
"""Deaths in a row, each within ``SERVED`` of being ready or before the first answer, that make a crash loop."""
START_LIMIT = 60.0
"""Seconds from the start of the process to its Hello; vendor runtimes take long to import."""
STOP_LIMIT = 2.0
"""Seconds that a worker gets to end by itself."""
_LONGEST_LINE = 8000

log = logging.getLogger(__name__)


def restart_delay(deaths: int) -> float:
    """Seconds before the next start, after ``deaths`` in a row of a worker that had not served: 0, 0.1, 0.2 ... 30."""
    return 0.0 if deaths == 0 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (min(deaths, 20) - 1))


class Supervisor:
    """Keeps one worker's process alive until ``stop``. Nothing of it is left afterwards: no process, no zombie."""

    def __init__(self, worker: Worker, emit: Callable[..., None], max_bytes: int, terms: WorkerTerms) -> None:
        """``emit`` records events; ``max_bytes``: largest answer of a link; ``terms``: those of all workers."""
        self._terms = terms
        self._worker = worker
        self._emit = emit
        self._max_bytes = max_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None
        self._last_line = ""
        self._refusal: dict[str, str] | None = None
        """Code, reason and remedy, where the process said that its backend can't work here."""
        self._first_start = 0.0
        self._launched: Launched | None = None

    def start(self, launched: Launched | None = None) -> None:
        """``launched``: the first process, where it is started already."""
        self._launched = launched
        self._first_start = time.monotonic() if launched is None else launched.at
        self._keeper = asyncio.create_task(self._keep(), name=f"supervisor of {self._worker.name}")

    async def stop(self) -> None:
        """Ask the process to end, insist after ``STOP_LIMIT``, and wait until it is gone."""
        self._stopping = True
        if self._worker.link is not None:
            self._worker.link.control(worker_pb2.ToWorker(shutdown=worker_pb2.Shutdown()))
        if self._keeper is not None:
            done, _ = await asyncio.wait([self._keeper], timeout=STOP_LIMIT)
            if not done:
                self.kill()
                self._keeper.cancel()
                await asyncio.wait([self._keeper])

    def kill(self) -> None:
        """SIGKILL, if it is there."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping:
            ready_at = await self._one_life()
            if self._stopping:
                return
            served = ready_at is not None and loop.time() - ready_at >= SERVED and self._worker.answered
            deaths = 0 if served else deaths + 1
            delay = restart_delay(deaths - 1 if ready_at is not None else deaths)
            if deaths >= CRASH_LOOP and not self._worker.code:  # a device that is missing is no crash
                self._tell_crash_loop(deaths, delay)
            self._worker.restarts += 1
            await asyncio.sleep(delay)

    def _tell_crash_loop(self, deaths: int, delay: float) -> None:
        last = self._worker.reason.rpartition("; the last: ")[2]
        why = f"crash loop: {deaths} deaths before it had served, next start in {delay:.1f} s; the last: {last}"
        self._worker.detach(why)
        if deaths == CRASH_LOOP:
            self._emit("worker-crash-loop", f"{why}; other targets serve meanwhile", worker=self._worker.name)

    async def _one_life(self) -> float | None:
        """Run one process to its end. Returns when it became ready, None if it never did."""
        loop = asyncio.get_running_loop()
        launched, self._launched = self._launched, None
        self._refusal, self._last_line = None, ""
        try:
            launched = launched or launch_worker(self._worker.config, self._terms, self._first_start)
        except OSError as failed:
            python = self._worker.config.python or sys.executable
            self._unavailable(MISSING_INTERPRETER, *no_interpreter(python, failed))
            return None
        self._process = process = launched.process
        hear_out = self._follow_stderr(process)
        self._worker.pid = process.pid
        hello: asyncio.Future[None] = loop.create_future()
        closed: asyncio.Future[str] = loop.create_future()
        died = self._death(process)

        def control(message: worker_pb2.ToGateway) -> None:
            if message.WhichOneof("message") == "hello":
                if not hello.done():
                    # At once: the report behind it may be in the same read, and must not be overwritten.
                    self._worker.attach(link, message.hello)
                    hello.set_result(None)
            else:
                self._worker.received(message)

        def ended(why: str) -> None:
            if not closed.done():
                closed.set_result(why)

        link = Link(launched.connection, loop, control, ended, self._max_bytes)
        ready_at: float | None = None
        try:
            await asyncio.wait(_futures(hello, closed, died), timeout=START_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            if hello.done():
                ready_at = loop.time()
                await asyncio.wait(_futures(closed, died), return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.close("the worker died" if died.done() else "the gateway closed the link")
            if not died.done():
                await self._end(process, died)
            process.wait()
            self._process = None
            hear_out()
            if self._refusal is not None and ready_at is None and not self._stopping:
                self._unavailable(**self._refusal)
            else:
                why = self._obituary(process.returncode, ready_at is not None, closed)
                self._worker.detach(why)
                if not self._stopping:
                    self._emit("worker-died", why, worker=self._worker.name)
        return ready_at

    def _unavailable(self, code: str, reason: str, remedy: str) -> None:
        """Its backend can't work here, at present: told once, and tried again, because a device may be plugged in."""
        known = self._worker.code == code and self._worker.reason == reason
        self._worker.detach(reason, code, remedy)
        if not known:
            self._emit("worker-unavailable", f"{reason} ({code}); {remedy}", worker=self._worker.name)

    async def _end(self, process: subprocess.Popen[bytes], died: asyncio.Future[None]) -> None:
        """The link is gone but the process is not: it may be ending by itself, or it never will."""
        if not self._stopping:
            process.kill()
        done, _ = await asyncio.wait({died}, timeout=STOP_LIMIT)
        if not done:
            process.kill()
            await died

    def _death(self, process: subprocess.Popen[bytes]) -> asyncio.Future[None]:
        """Resolves when the process has ended: a pidfd becomes readable then, without polling."""
        loop = asyncio.get_running_loop()
        died: asyncio.Future[None] = loop.create_future()
        pidfd = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            if not died.done():
                died.set_result(None)

        loop.add_reader(pidfd, ended)
        return died

    def _follow_stderr(self, process: subprocess.Popen[bytes]) -> Callable[[], None]:
        """Log what the worker says, line by line; the last line explains its death.

        Returns:
            what reads the rest, for when the process has ended.
        """
        loop = asyncio.get_running_loop()
        assert process.stderr is not None
        pipe = process.stderr
        os.set_blocking(pipe.fileno(), False)
        rest = b""

        def readable() -> bool:
            nonlocal rest
            try:
                chunk = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                return False
            lines = (rest + chunk).split(b"\n")
            rest = b"" if not chunk else lines.pop()[:_LONGEST_LINE]
            for line in lines:
                text = line[:_LONGEST_LINE].decode("utf-8", "replace").strip()
                if (refusal := refused(text)) is not None:
                    self._refusal = refusal
                elif text.startswith(SETTING_REFUSED):
                    self._emit("setting-refused", text.removeprefix(SETTING_REFUSED), worker=self._worker.name)
                elif text:
                    self._last_line = text
                    log.info("worker %s: %s", self._worker.name, text)
            if not chunk:
                loop.remove_reader(pipe.fileno())
                pipe.close()
            return bool(chunk)

        def hear_out() -> None:
            while not pipe.closed and readable():
                pass

        loop.add_reader(pipe.fileno(), readable)
        return hear_out

    def _obituary(self, returncode: int | None, was_ready: bool, closed: asyncio.Future[str]) -> str:
        if self._stopping:
            return "stopped"
        if closed.done() and ("protocol" in closed.result() or closed.result().startswith("hung")):
            return closed.result()  # the gateway killed it, for this reason
        if returncode is not None and returncode < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-returncode).name}"
        if not was_ready and self._last_line:
            return self._last_line
        return f"ended with exit code {returncode}"


def _futures(*futures: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    return set(futures)
