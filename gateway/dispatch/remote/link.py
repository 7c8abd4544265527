"""Runs on a remote endpoint.

What a process's link tells of a run by its marks is known here by the call: sent is begun. There are no slots; an
answer's tensors are views of its message.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from edgeway import frames
from edgeway.frames import Reply, TensorPlace
from edgeway.v1 import worker_pb2
from gateway.dispatch.expiry import Expiry
from gateway.dispatch.memory import Slot
from gateway.dispatch.pending import LOAD_LIMIT, Pending, hung_for
from gateway.dispatch.remote.meaning import Doubt, meaning
from gateway.dispatch.remote.models import RemoteModel, RemoteModels
from gateway.dispatch.remote.outputs import written
from gateway.dispatch.remote.ports import Endpoint
from gateway.dispatch.remote.worker import RemoteWorker
from gateway.errors import EdgewayError, InvalidRequest, Looped, WorkerLost
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.remote.failure import RemoteFailure
from gateway.remote.messages import BadAnswer, infer_request, metadata, read_answer
from gateway.request import InputTensor, Request

LEAVE_LIMIT = 5.0
"""Seconds that runs get which an endpoint has that takes no new ones."""
_HANG_CHECK_SECONDS = 0.1
_SHORTEST = 0.001
_INSTANT = 0.005
_KEPT = 256


@dataclass(slots=True, eq=False)
class _Run:
    pending: Pending
    model: RemoteModel
    plan: Plan
    inputs: Sequence[InputTensor]
    until: float
    priority: int
    metadata: Sequence[tuple[str, str]]
    began: float = 0.0
    task: asyncio.Task[None] | None = None
    failure: EdgewayError | None = None
    timer: asyncio.TimerHandle | None = None


class RemoteLink:
    """What ``Link`` is to a process: runs and loads go in, replies come out. Belongs to the loop.

    At most ``maxInFlight`` runs are there at a time; others wait here, by priority, and count as not begun.
    """

    def __init__(self, endpoint: Endpoint, worker: RemoteWorker, loop: asyncio.AbstractEventLoop, who: str) -> None:
        """``who``: what the endpoint calls itself."""
        self._endpoint = endpoint
        self._worker = worker
        self._options = worker.options
        self._loop = loop
        self._runs: dict[int, _Run] = {}
        self._pending: dict[int, Pending] = {}
        self._waiting: list[tuple[int, int]] = []
        self._sent = 0
        self._numbers = 0
        self._answered_at = 0.0
        self._places: dict[tuple[TensorPlace, ...], tuple[TensorPlace, ...]] = {}
        self._expiry = Expiry(loop, self._pending, self._expire)
        self._hang_check: asyncio.TimerHandle | None = None
        self._closed = ""
        self.doubts = asyncio.Event()
        """Set when a run says that the endpoint may be gone, and when the link is closed."""
        self._models = RemoteModels(endpoint, worker, who, self.doubts)
        self.loading_since: float | None = None
        self.load_limit = LOAD_LIMIT

    @property
    def closed(self) -> str:
        """Why it is closed; empty: it is not."""
        return self._closed

    def control(self, message: worker_pb2.ToWorker) -> None:
        """Orders as a process gets them: to load and to unload, others mean nothing here."""
        if message.WhichOneof("message") == "load":
            self._models.load(message.load.model, self.load_limit)
        elif message.WhichOneof("message") == "unload":
            self._models.unload(message.unload.model)

    def infer(
        self,
        model: int,
        plan: Plan,
        inputs: Sequence[InputTensor],
        output_bytes: int,
        *,
        start_by: float,
        expire_at: float | None,
        priority: int,
        hang_limit: float,
        budget_end: float = 0.0,
        placement: Placement | None = None,
        request: Request | None = None,
    ) -> Pending:
        """Ask for a run; as ``Link.infer``. Until ``budget_end`` the endpoint has time, and is told so.

        Raises:
            WorkerLost: the link is closed, or the model is not there.
            Looped: another gateway has sent the request here.
        """
        if self._closed:
            raise WorkerLost(self._closed, began=False)
        known = self._models.known.get(model)
        if known is None or known.signature is None:
            raise WorkerLost(f"{self._worker.name} does not have the model", began=False)
        if request is not None and request.hops:
            raise Looped("the request has come from another gateway, and is not sent on to a third one")
        now = monotonic()
        number = self._numbers = self._numbers + 1
        pending = Pending(number, self._loop.create_future(), _slot(memoryview(b"")), now, hang_limit, placement)
        pending.held = False  # no worker's mark says that it has begun: it has when it is sent
        run = _Run(pending, known, plan, inputs, budget_end or start_by, priority, metadata(request))
        self._runs[number], self._pending[number] = run, pending
        if expire_at is not None:
            self._expiry.watch(number, expire_at, len(self._pending))
        if self._sent < self._options.max_in_flight:
            self._begin(run)
        else:
            heapq.heappush(self._waiting, (priority, number))
            run.timer = self._loop.call_at(start_by, self._drop, run)
        if self._hang_check is None:
            self._hang_check = self._loop.call_later(_HANG_CHECK_SECONDS, self._check_hang)
        return pending

    def expire(self, pending: Pending) -> None:
        """Drop the run if it has not been sent."""
        run = self._runs.get(pending.number)
        if run is not None and not run.began:
            self._drop(run)

    def abandon(self, pending: Pending, cancel: bool = True) -> None:
        """Nobody waits for it any more; as ``Link.abandon``. ``cancel``: the endpoint is told so."""
        if pending.reply.done() and not pending.reply.cancelled():
            pending.reply.exception()  # seen: asyncio would complain
        pending.given_up = True
        run = self._runs.get(pending.number)
        if run is not None and cancel:
            pending.cancelled = monotonic()
            if run.task is None:
                self._over(run, _reply(frames.CANCELLED, run.began))
            else:
                run.task.cancel()

    def oldest_age(self, now: float) -> float:
        """As ``Link.oldest_age``."""
        if not self._pending:
            return 0.0
        first = next(iter(self._pending.values()))
        return max(0.0, now - max(self._answered_at, first.since))

    def release(self, pending: Pending) -> None:
        """Nothing to give back: the answer's message goes with those who view it."""

    async def leave(self) -> None:
        """Returns when nothing is under way any more, but after ``LEAVE_LIMIT`` at the latest."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=LEAVE_LIMIT)

    def close(self, reason: str) -> None:
        """Fail all that is under way. Only the first call counts."""
        if self._closed:
            return
        self._closed = reason
        if self._hang_check is not None:
            self._hang_check.cancel()
        self._expiry.close()
        self._models.close()
        for run in list(self._runs.values()):
            if run.task is not None:
                run.task.cancel()
            self._over(run, None)
        self.doubts.set()

    def _begin(self, run: _Run) -> None:
        self._sent += 1
        run.began, run.pending.ran = monotonic(), True
        if run.timer is not None:
            run.timer.cancel()
        run.task = self._loop.create_task(self._call(run))
        run.task.add_done_callback(lambda _: self._over(run, _reply(frames.CANCELLED, run.began)))

    async def _call(self, run: _Run) -> None:
        model, signature = run.model, run.model.form
        seconds = max(_SHORTEST, run.until - run.began)
        wanted = [signature.outputs[index].name for index in run.plan.wanted]
        try:
            message = infer_request(model.name, model.version, run.inputs, wanted, seconds, run.priority)
            content = await self._endpoint.infer(message, seconds, run.metadata)
            self._answered_at = monotonic()
            view, places = read_answer(content, signature, run.plan.wanted)
            reply = self._delivered(run, view, places)
        except RemoteFailure as failed:
            reply = self._failed(run, failed)
        except BadAnswer as wrong:
            reply = _reply(
                frames.RUNTIME_ERROR, run.began, f"{self._worker.name} sent an answer that makes no sense: {wrong}"
            )
        except InvalidRequest as wrong:
            run.failure, reply = wrong, _reply(frames.INVALID_INPUT, run.began, str(wrong))
        self._over(run, reply)

    def _delivered(self, run: _Run, view: memoryview, places: Sequence[TensorPlace]) -> Reply:
        """The reply for an answer; outputs that are wanted in a client's memory are written there."""
        key = tuple(places)
        if key not in self._places and len(self._places) >= _KEPT:
            self._places.clear()
        known = self._places.setdefault(key, key)  # the same object for the same words
        placement = run.pending.placement
        if placement is not None and not written(placement, view, known):
            return _reply(frames.OUTRUN, run.began, "another attempt has written the outputs")
        run.pending.slot = _slot(view)
        return _reply(frames.OK, run.began, outputs=known)

    def _failed(self, run: _Run, failed: RemoteFailure) -> Reply:
        said = meaning(failed, self._worker.name, late=monotonic() >= run.until - _INSTANT)
        run.failure = said.failure
        if said.doubt is Doubt.ENDPOINT:
            self.doubts.set()
        elif said.doubt is Doubt.MODEL:
            run.model.doubts.set()
        return _reply(said.status, run.began, said.message)

    def _drop(self, run: _Run) -> None:
        """Its time was up before it could be sent."""
        if run.pending.number in self._pending and not run.began:
            self._over(run, _reply(frames.EXPIRED, 0.0, "it waited too long for others"))

    def _over(self, run: _Run, reply: Reply | None) -> None:
        """The endpoint has nothing more to do with the run; None: the link is closed. Only the first call counts."""
        pending = run.pending
        if self._pending.pop(pending.number, None) is None:
            return
        del self._runs[pending.number]
        if run.timer is not None:
            run.timer.cancel()
        pending.ended = True
        if pending.given_up or pending.reply.done():
            pass
        elif reply is None:
            pending.reply.set_exception(WorkerLost(self._closed, began=False))
        elif run.failure is not None:
            pending.reply.set_exception(run.failure)
        else:
            pending.reply.set_result(reply)
        if pending.on_end is not None:
            pending.on_end(reply)
        if run.began:
            self._sent -= 1
            self._next()

    def _next(self) -> None:
        while self._waiting and not self._closed and self._sent < self._options.max_in_flight:
            _, number = heapq.heappop(self._waiting)
            if number in self._runs:
                self._begin(self._runs[number])

    def _expire(self, number: int) -> None:
        pending = self._pending[number]
        pending.expired = True
        if not pending.reply.done():
            in_time, pending.reply = pending.reply, self._loop.create_future()
            in_time.set_result(None)

    def _check_hang(self) -> None:
        self._hang_check = None
        hung = hung_for(self._pending.values(), self._answered_at, monotonic())
        if hung is not None:
            return self.close(f"hung: a run had no answer for {hung:.1f} s")
        if self._pending:
            self._hang_check = self._loop.call_later(_HANG_CHECK_SECONDS, self._check_hang)
        return None

    def __repr__(self) -> str:
        state = f"closed: {self._closed}" if self._closed else f"{self._sent} sent, {len(self._waiting)} waiting"
        return f"<RemoteLink {self._options.url} {state}>"


def _slot(view: memoryview) -> Slot:
    """Stands where a process's run has its slot."""
    return Slot(0, len(view), view)


def _reply(status: int, began: float, message: str = "", outputs: Sequence[TensorPlace] = ()) -> Reply:
    now = monotonic()
    places = outputs if isinstance(outputs, tuple) else tuple(outputs)
    return Reply(0, status, began, began, now if began else 0.0, 0, places, message)
