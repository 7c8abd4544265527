"""Disposable workers: processes in which a request that was in a worker when it died gets its second try."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgeway import frames
from edgeway.frames import Reply
from edgeway.v1 import worker_pb2
from gateway.dispatch.link import Link
from gateway.dispatch.orders import load_message
from gateway.dispatch.pending import Pending
from gateway.dispatch.supervisor import restart_delay
from gateway.dispatch.zygote import Child, Zygote, ZygoteUnavailable
from gateway.errors import AttemptFailed, BadElements, Code, RunError, TargetSlow, WorkerLost
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.request import InputTensor
from gateway.target import LoadOrder

HELLO_LIMIT = 5.0
"""Seconds from the fork to the Hello; some 10 ms is usual."""
OBITUARY_LIMIT = 0.1
"""Seconds to wait for what the zygote says of a death. The end of the link is seen first, by less than 1 ms."""
PRELOADED = 64 << 20
"""Bytes of model files that a standby holds loaded."""

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class NoDisposable(AttemptFailed):
    """There was no disposable worker for the run, so it was not tried: that says nothing about the request."""

    code = Code.UNAVAILABLE
    reason = "lost"


@dataclass(frozen=True, slots=True)
class Ran:
    """The answer of a disposable worker: an OK reply, whose outputs lie in the slot of ``pending``."""

    link: Link
    pending: Pending
    reply: Reply
    pid: int
    release: Callable[[], None]
    """Ends the process, the link and the slot. Must be called once the outputs are copied out."""


class Disposables:
    """Keeps some processes forked and idle, and gives each to one run.

    While nobody dies, a standby costs a report a second. Its models are loaded beforehand where they are small
    (``prepare``), because loading takes longer than most budgets.
    """

    def __init__(
        self,
        zygote: Zygote,
        settings: Mapping[str, Any],
        max_bytes: int,
        standby: int = 1,
        max_at_once: int = 2,
        preloaded: int = PRELOADED,
    ) -> None:
        """Args:
        zygote: forks the processes.
        settings: of each, as of a worker: ``threads``, ``memoryLimitMB``, ``nice``, ``cpus``.
        max_bytes: a larger answer is refused.
        standby: processes that wait for a run.
        max_at_once: runs at a time; a further one waits.
        preloaded: bytes of model files that each standby has loaded, at most.
        """
        self._zygote = zygote
        self._settings = {**settings, "name": "disposable", "instances": 1}
        self._max_bytes = max_bytes
        self._standby = standby
        self._free = asyncio.Semaphore(max_at_once)
        self._budget = preloaded
        self._prepared: dict[LoadOrder, int] = {}
        """Files that each standby has loaded, with their size in bytes."""
        self._idle: list[_Process] = []
        self._processes: set[_Process] = set()
        self._short = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def idle(self) -> int:
        """Processes that wait for a run."""
        return len(self._idle)

    def start(self) -> None:
        """Fork the first standby as soon as the zygote is up."""
        self._short.set()
        self._keeper = asyncio.create_task(self._keep(), name="keeper of the disposable workers")

    async def stop(self) -> None:
        """End all of them, those with a run as well."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        for process in list(self._processes):
            process.end()

    def prepare(self, order: LoadOrder) -> bool:
        """Have the standbys load this file beforehand; false where it would be beyond their memory budget."""
        if order in self._prepared:
            return True
        try:
            size = Path(order.path).stat().st_size
        except OSError:
            return False
        if size + sum(self._prepared.values()) > self._budget:
            return False
        self._prepared[order] = size
        for process in self._idle:
            process.load(order, background=True)
        return True

    def forget(self, order: LoadOrder) -> None:
        """The file is out of use."""
        if self._prepared.pop(order, None) is not None:
            for process in self._idle:
                process.unload(order)

    async def run(
        self,
        order: LoadOrder,
        plan: Plan,
        inputs: Sequence[InputTensor],
        output_bytes: int,
        start_by: float,
        last: float,
        priority: int,
        placement: Placement | None = None,
    ) -> Ran:
        """Run once, in a process that is used for nothing else and killed afterwards.

        Args:
            order: the file to run.
            plan: of the request's form.
            inputs: as the plan has them; copied.
            output_bytes: room for the outputs; if it is too little, a larger slot follows.
            start_by: monotonic seconds by which the run must have begun.
            last: monotonic seconds at which the process is killed, whatever it does.
            priority: 1 to 9.
            placement: where tensors of it lie in regions.

        Raises:
            WorkerLost: the process died of the run.
            RunError, BadElements: the runtime refused the run; nobody died.
            TargetSlow: the deadline came first.
            NoDisposable: no process could be had, or it could not load the file.
        """
        await _by(start_by, self._free.acquire(), "was free", lambda _: self._free.release())
        process: _Process | None = None
        try:
            process = self._take(order)
            if process is None:
                process = await _by(start_by, self._forked(), "was forked", _Process.end)
            pending, reply = await self._run_in(
                process, order, plan, inputs, output_bytes, start_by, last, priority, placement
            )
            return Ran(process.link, pending, reply, process.pid, partial(self._release, process))
        except BaseException:
            self._release(process)
            raise

    async def _run_in(
        self,
        process: _Process,
        order: LoadOrder,
        plan: Plan,
        inputs: Sequence[InputTensor],
        output_bytes: int,
        start_by: float,
        last: float,
        priority: int,
        placement: Placement | None = None,
    ) -> tuple[Pending, Reply]:
        pending: Pending | None = None
        try:
            handle = await _by(start_by, process.load(order), "had loaded the model")
            # Its deadline ends it, so it needs no limit that says when it is hung.
            pending = process.link.infer(
                handle,
                plan,
                inputs,
                output_bytes,
                start_by=start_by,
                expire_at=last,
                priority=priority,
                hang_limit=math.inf,
                placement=placement,
            )
            return pending, _checked(await pending.reply)
        except WorkerLost as died:
            if pending is None or not died.began:
                raise NoDisposable("the disposable worker died before its run") from died
            raise await self._obituary(process) from died
        finally:
            if pending is not None and not pending.reply.done():
                pending.reply.cancel()  # closing the link must not fail a future that nobody looks at

    def _release(self, process: _Process | None) -> None:
        """A run is over, and with it its process; a second call for the same one does nothing."""
        if process is None or not process.released:
            self._free.release()
        if process is not None:
            process.released = True
            process.end()
        self._short.set()

    def _take(self, order: LoadOrder) -> _Process | None:
        """A standby, best one that has the file."""
        if not self._idle:
            return None
        process = next((process for process in self._idle if process.has(order)), self._idle[0])
        self._idle.remove(process)
        return process

    async def _forked(self) -> _Process:
        """A new process that has said Hello. Raises NoDisposable."""
        try:
            child = await self._zygote.fork(self._settings)
        except ZygoteUnavailable as failed:
            raise NoDisposable(str(failed)) from failed
        process = _Process(child, asyncio.get_running_loop(), self._max_bytes, self._ended)
        self._processes.add(process)
        try:
            done, _ = await asyncio.wait([process.hello], timeout=HELLO_LIMIT)
            if not done:
                raise NoDisposable(f"a disposable worker did not come up within {HELLO_LIMIT} s")
            process.hello.result()
        except BaseException:
            process.end()
            raise
        return process

    async def _keep(self) -> None:
        """Fork standbys when there are too few, and slower and slower while that fails."""
        failures = 0
        while True:
            await self._short.wait()
            self._short.clear()
            while len(self._idle) < self._standby:
                await self._zygote.ready.wait()
                try:
                    process = await self._forked()
                except NoDisposable as failed:
                    failures += 1
                    log.warning("no disposable worker on standby: %s", failed)
                    await asyncio.sleep(restart_delay(failures))
                    continue
                failures = 0
                self._idle.append(process)
                for order in list(self._prepared):
                    process.load(order, background=True)

    def _ended(self, process: _Process, loading: LoadOrder | None) -> None:
        """A process is gone; ``loading`` is what it was at."""
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
            if loading is not None:  # without this the next standby would die of it, and the next
                log.warning("a disposable worker died as it loaded %s %s", loading.name, loading.version)
                self._prepared.pop(loading, None)
            self._short.set()

    async def _obituary(self, process: _Process) -> AttemptFailed:
        """What the death of a process during its run means."""
        ended = process.child.ended
        await asyncio.wait([ended], timeout=OBITUARY_LIMIT)
        code = ended.result() if ended.done() else 0
        if code is None:
            return NoDisposable("the zygote died, and the disposable worker with it")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return WorkerLost(f"the disposable worker {how}")

    def __repr__(self) -> str:
        return f"<Disposables {len(self._idle)} idle of {len(self._processes)}, {len(self._prepared)} models prepared>"


class _Process:
    """One disposable worker: its link, and what it has loaded."""

    def __init__(
        self,
        child: Child,
        loop: asyncio.AbstractEventLoop,
        max_bytes: int,
        ended: Callable[[_Process, LoadOrder | None], None],
    ) -> None:
        self.child = child
        self.pid = child.pid
        self.hello: asyncio.Future[None] = loop.create_future()
        self.released = False
        self._loads: dict[LoadOrder, asyncio.Future[int]] = {}
        self._handles: dict[int, LoadOrder] = {}
        self._made = 0
        self._loop = loop
        self._ended = ended
        self.link = Link(child.connection, loop, self._received, self._closed, max_bytes)

    def load(self, order: LoadOrder, background: bool = False) -> asyncio.Future[int]:
        """The handle of the file once it is loaded; fails with NoDisposable. ``background``: no run waits for it."""
        loaded = self._loads.get(order)
        if loaded is None:
            self._made += 1
            loaded = self._loads[order] = self._loop.create_future()
            loaded.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it
            self._handles[self._made] = order
            load = load_message(self._made, order, check=False, background=background)
            self.link.control(worker_pb2.ToWorker(load=load))
        return loaded

    def unload(self, order: LoadOrder) -> None:
        if self._loads.pop(order, None) is not None:
            handle = next(handle for handle, loaded in self._handles.items() if loaded == order)
            del self._handles[handle]
            self.link.control(worker_pb2.ToWorker(unload=worker_pb2.Unload(model=handle)))

    def has(self, order: LoadOrder) -> bool:
        loaded = self._loads.get(order)
        return loaded is not None and loaded.done() and not loaded.cancelled() and loaded.exception() is None

    def loading(self) -> LoadOrder | None:
        """The file that it is at: they are loaded one after the other."""
        return next((order for order, loaded in self._loads.items() if not loaded.done()), None)

    def end(self) -> None:
        self.child.kill()
        self.link.close("the gateway ended it")

    def _received(self, message: worker_pb2.ToGateway) -> None:
        which = message.WhichOneof("message")
        if which == "hello":
            if not self.hello.done():
                self.hello.set_result(None)
        elif which == "loaded":
            loaded = self._asked_for(message.loaded.model)
            if loaded is not None:
                loaded.set_result(message.loaded.model)
        elif which == "load_failed":
            failed = self._asked_for(message.load_failed.model)
            if failed is not None:
                failed.set_exception(NoDisposable(f"a disposable worker can't load it: {message.load_failed.message}"))

    def _asked_for(self, handle: int) -> asyncio.Future[int] | None:
        """Who waits for this load; None where it was forgotten meanwhile."""
        order = self._handles.get(handle)
        loaded = None if order is None else self._loads.get(order)
        return None if loaded is None or loaded.done() else loaded

    def _closed(self, why: str) -> None:
        self.child.kill()
        loading = self.loading()
        waits: list[asyncio.Future[Any]] = [self.hello, *self._loads.values()]
        for waiting in waits:
            if not waiting.done():
                waiting.set_exception(NoDisposable(f"a disposable worker ended before its run: {why}"))
        self.hello.exception()  # seen: nobody may wait for it
        self._ended(self, loading)


async def _by(deadline: float, what: Awaitable[_T], happened: str, undo: Callable[[_T], object] = lambda _: None) -> _T:
    """The result. ``undo`` gets it where nobody else will, because the caller was cancelled at that moment.

    Not ``asyncio.wait_for``: before Python 3.12 it loses a cancellation that meets the result.

    Raises:
        TargetSlow: not by the deadline.
    """
    future = asyncio.ensure_future(what)
    delivered = False
    try:
        if not future.done():
            await asyncio.wait([future], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if not future.done():
            raise TargetSlow(f"no disposable worker {happened} in the time there was")
        delivered = True
        return future.result()
    finally:
        if not delivered:
            future.cancel()
            future.add_done_callback(lambda done: done.cancelled() or done.exception() or undo(done.result()))


def _checked(reply: Reply | None) -> Reply:
    """Raises EdgewayError: not an answer."""
    if reply is None or reply.status == frames.EXPIRED:
        raise TargetSlow("the disposable worker did not answer in the time that it had")
    if reply.status == frames.INVALID_INPUT:
        raise BadElements(reply.message)
    if reply.status == frames.RUNTIME_ERROR:
        raise RunError(reply.message)
    if reply.status != frames.OK:
        raise NoDisposable(f"the disposable worker gave the run up: {reply.message or f'status {reply.status}'}")
    return reply
