"""A remote endpoint as a worker: the same surface as a process's link and supervisor, so that dispatch need not know.

A deployment whose manifest names it lets its tensors leave the device. What a process's link tells of a run by its
marks is known here by the call: sent is begun. There are no slots; an answer's tensors are views of its message.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from edgeway import frames
from edgeway import parameters as names
from edgeway.datatypes import nbytes
from edgeway.frames import Reply, TensorPlace
from edgeway.v1 import worker_pb2
from gateway.config import WorkerConfig
from gateway.dispatch.expiry import Expiry
from gateway.dispatch.link import LOAD_LIMIT, Pending, hung_for
from gateway.dispatch.memory import Slot
from gateway.dispatch.pool import Worker
from gateway.errors import (
    Busy,
    Code,
    EdgewayError,
    InvalidRequest,
    Looped,
    RefusedThere,
    TargetSlow,
    WorkerLost,
)
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.regions.region import RegionSpan
from gateway.remote.agreement import mismatch
from gateway.remote.failure import Disagreed, NotServing, RemoteFailure
from gateway.remote.golden import Comparison, Disagrees, Unusable, numbers, read_samples
from gateway.remote.messages import BadAnswer, infer_request, read_answer
from gateway.remote.options import RemoteOptions
from gateway.request import InputTensor, Request, Signature
from gateway.target import Golden, LoadOrder, Target

FIRST_DELAY = 0.2
LONGEST_DELAY = 30.0
LOOK_EVERY = 1.0
"""Seconds between two looks at whether the endpoint and its models are ready."""
SERVED = 1.0
"""Seconds after which an endpoint that was ready is tried again at once when it is lost."""
LEAVE_LIMIT = 5.0
"""Seconds that runs get which an endpoint has that takes no new ones."""
PROBES = 2
_HANG_CHECK_SECONDS = 0.1
_SHORTEST = 0.001
_INSTANT = 0.005
_KEPT = 256


class Endpoint(Protocol):
    """One connection to an endpoint; ``gateway.remote.endpoint`` has the real one. All raise RemoteFailure."""

    async def introduce(self, seconds: float) -> str: ...

    async def check(self, seconds: float) -> None: ...

    async def model(self, name: str, version: str, seconds: float) -> Signature: ...

    async def infer(self, message: bytes, seconds: float, metadata: Sequence[tuple[str, str]]) -> bytes: ...

    async def close(self) -> None: ...


Connect = Callable[[RemoteOptions, int], Endpoint]
"""Takes the options and the largest answer in bytes. Raises RemoteFailure."""


def delay_after(failures: int) -> float:
    """Seconds before the next try, after so many in a row: 0, 0.2, 0.4 ... 30."""
    return 0.0 if failures == 0 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (min(failures, 20) - 1))


class RemoteWorker(Worker):
    """The gateway's view of a remote endpoint. To load means to ask for the model's metadata, and a probe."""

    def __init__(self, config: WorkerConfig, emit: Callable[..., None], changed: Callable[[], None]) -> None:
        """As of other workers."""
        self.options = config.remote()
        super().__init__(config, self.options.max_in_flight, emit, changed)
        self.kind = config.backend
        self.reason = f"connecting to {self.options.url}"
        self.remote = True

    def ratio(self, now: float) -> float | None:
        """None: its times say nothing of heat here."""
        return None

    def detach(self, reason: str, code: str = "", remedy: str = "") -> None:
        """The endpoint is lost, or never came."""
        for wanted in self._wanted.values():
            wanted.target.failure, wanted.target.barred = "", False  # it was of a model there
        super().detach(reason, code, remedy)

    def target_of(self, handle: int) -> tuple[Target, LoadOrder] | None:
        """Which model a handle means; None: it is not wanted any more."""
        wanted = self._wanted.get(handle)
        return (wanted.target, wanted.order) if wanted is not None else None

    def keep_out(self, handle: int, reason: str, barred: bool = False) -> None:
        """This model can't be asked there for now. Who waits for it goes on waiting: it may come."""
        wanted = self._wanted.get(handle)
        if wanted is None:
            return
        wanted.target.handle, wanted.target.failure, wanted.target.barred = 0, reason, barred
        self.tell("target-kept-out", reason, wanted.order)
        self._changed()


@dataclass(slots=True, eq=False)
class _Model:
    """One model of the endpoint. ``signature``: as the endpoint says."""

    handle: int
    target: Target
    name: str
    version: str
    golden: Golden | None = None
    """What it has to answer right before it answers anybody else."""
    signature: Signature | None = None
    task: asyncio.Task[None] | None = None
    doubts: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a run that says that it may have gone: it is looked at before it would be."""

    @property
    def form(self) -> Signature:
        """What answers are read by: the version's signature, once it is settled."""
        found = self.target.signature or self.signature
        assert found is not None
        return found


@dataclass(slots=True, eq=False)
class _Run:
    pending: Pending
    model: _Model
    plan: Plan
    inputs: Sequence[InputTensor]
    until: float
    start_by: float
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
        self._who = who
        self._models: dict[int, _Model] = {}
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
        self.loading_since: float | None = None
        self.load_limit = LOAD_LIMIT

    @property
    def closed(self) -> str:
        """Why it is closed; empty: it is not."""
        return self._closed

    def control(self, message: worker_pb2.ToWorker) -> None:
        """Orders as a process gets them: only to unload means something here."""
        if message.WhichOneof("message") == "load":
            self._load(message.load.model)
        elif message.WhichOneof("message") == "unload":
            model = self._models.pop(message.unload.model, None)
            if model is not None and model.task is not None:
                model.task.cancel()

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
        known = self._models.get(model)
        if known is None or known.signature is None:
            raise WorkerLost(f"{self._worker.name} does not have the model", began=False)
        if request is not None and request.hops:
            raise Looped("the request has come from another gateway, and is not sent on to a third one")
        now = monotonic()
        number = self._numbers = self._numbers + 1
        pending = Pending(number, self._loop.create_future(), _slot(memoryview(b"")), now, hang_limit, placement)
        pending.held = False  # no worker's mark says that it has begun: it has when it is sent
        run = _Run(pending, known, plan, inputs, budget_end or start_by, start_by, priority, _metadata(request))
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
        for model in self._models.values():
            if model.task is not None:
                model.task.cancel()
        self._models.clear()
        for run in list(self._runs.values()):
            if run.task is not None:
                run.task.cancel()
            self._over(run, None)
        self.doubts.set()

    # -- models --------------------------------------------------------------------------------------------------

    def _load(self, handle: int) -> None:
        found = self._worker.target_of(handle)
        if found is None:
            return
        target, order = found
        model = _Model(handle, target, self._options.model or order.name, self._options.version, order.golden)
        self._models[handle] = model
        model.task = self._loop.create_task(self._keep(model), name=f"{model.name} on {self._worker.name}")

    async def _keep(self, model: _Model) -> None:
        """Have the model in use while it is there and fits; try again while it is not."""
        failures, told = 0, ""
        while True:
            try:
                signature = await self._fitting(model)
                self._worker.received(worker_pb2.ToGateway(warming=worker_pb2.Warming(model=model.handle)))
                seconds = await self._probe(model, signature)
                if model.golden is not None:
                    await self._check(model, signature, model.golden)
            except RemoteFailure as failed:
                if str(failed) != told and not self.doubts.is_set():
                    told = str(failed)
                    self._worker.keep_out(model.handle, told, isinstance(failed, Disagreed))
                failures += 1
                await asyncio.sleep(delay_after(failures))
                continue
            failures, told, model.signature = 0, "", signature
            self._tell_loaded(model, signature, seconds)
            told = await self._until_it_goes(model)
            model.signature = None
            self._worker.keep_out(model.handle, told)

    async def _until_it_goes(self, model: _Model) -> str:
        """Look at a model that is there, again and again; why it is there no longer, or fits no longer."""
        while True:
            await self._pause(model)
            try:
                model.signature = await self._fitting(model)
            except RemoteFailure as failed:
                if isinstance(failed, NotServing) or failed.code in _OF_THE_MODEL:
                    return str(failed)
                self.doubts.set()  # the whole endpoint is in doubt: who keeps it looks at once

    async def _pause(self, model: _Model) -> None:
        await _set_or_later(model.doubts, LOOK_EVERY)
        model.doubts.clear()

    async def _fitting(self, model: _Model) -> Signature:
        """Raises RemoteFailure: it is not there, or does not fit the local model."""
        signature = await self._endpoint.model(model.name, model.version, self._worker.hang_seconds)
        if model.target.signature is not None:
            problem = mismatch(model.target.signature, signature)
            if problem:
                raise RemoteFailure(Code.FAILED_PRECONDITION, f"it is not the same model: {problem}")
        return signature

    async def _probe(self, model: _Model, signature: Signature) -> list[float]:
        """Seconds of runs on zeros. None where an input has a size that nobody can guess. Raises RemoteFailure."""
        inputs = []
        for spec in signature.inputs:
            shape = tuple(1 if index == 0 and size < 0 else size for index, size in enumerate(spec.shape))
            if any(size < 0 for size in shape):
                return []
            zeros = memoryview(bytes(nbytes(spec.datatype, shape)))
            inputs.append(InputTensor(spec.name, spec.datatype, shape, zeros))
        limit = self.load_limit
        message = infer_request(model.name, model.version, inputs, (), limit, 9)
        took = []
        for _ in range(PROBES):
            began = monotonic()
            try:
                content = await self._endpoint.infer(message, limit, _metadata(None))
                read_answer(content, model.target.signature or signature, ())
            except BadAnswer as wrong:
                raise RemoteFailure(Code.INTERNAL, f"probe: {wrong}") from wrong
            except RemoteFailure as failed:
                if failed.code == Code.INVALID_ARGUMENT and any(-1 in spec.shape for spec in signature.inputs):
                    return []  # one row is not what it takes
                raise RemoteFailure(failed.code, f"probe: {failed}") from failed
            took.append(monotonic() - began)
        return took[1:]

    async def _check(self, model: _Model, signature: Signature, golden: Golden) -> None:
        """Hold it to its golden samples, as often as it is loaded: nobody tells when the endpoint changes its file.

        Raises:
            RemoteFailure: it disagrees, or can't be asked.
        """
        try:
            count = await self._agrees(model, signature, golden)
        except Disagrees as wrong:
            raise Disagreed(f"barred: {wrong}") from wrong
        except (Unusable, BadAnswer) as wrong:
            raise RemoteFailure(Code.FAILED_PRECONDITION, str(wrong)) from wrong
        model.target.golden = f"{count} samples"

    async def _agrees(self, model: _Model, signature: Signature, golden: Golden) -> int:
        arrays = await asyncio.to_thread(read_samples, golden.path)
        outputs = [index for index, spec in enumerate(signature.outputs) if spec.name in arrays]
        absent = [spec.name for spec in signature.inputs if spec.name not in arrays]
        if absent or not outputs:
            raise Unusable(f"golden samples: no array for {', '.join(absent) or 'any output'}")
        wanted = [signature.outputs[index].name for index in outputs]
        comparison = Comparison(golden, any(signature.outputs[i].datatype in ("INT8", "UINT8") for i in outputs))
        count = arrays[wanted[0]].count
        for index in range(count):
            inputs = []
            for spec in signature.inputs:
                array = arrays[spec.name]
                shape = array.shape if len(array.shape) == len(spec.shape) else (1, *array.shape)
                inputs.append(InputTensor(spec.name, array.datatype, shape, array.sample(index)))
            limit = self.load_limit
            message = infer_request(model.name, model.version, inputs, wanted, limit, 9)
            content = await self._endpoint.infer(message, limit, _metadata(None))
            view, places = read_answer(content, signature, outputs)
            for name, place in zip(wanted, places, strict=True):
                array = arrays[name]
                got = numbers(signature.outputs[place.index].datatype, view[place.offset : place.offset + place.nbytes])
                classes = array.shape[-1] if array.shape else 1
                right = numbers(array.datatype, array.sample(index))
                comparison.compare(f"sample {index}: output {name}", got, right, classes)
        comparison.end()
        return count

    def _tell_loaded(self, model: _Model, signature: Signature, seconds: Sequence[float]) -> None:
        loaded = worker_pb2.Loaded(model=model.handle, platform=signature.platform, warmup_seconds=seconds)
        for spec in signature.inputs:
            loaded.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for spec in signature.outputs:
            loaded.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        version = f" version {model.version}" if model.version else ""
        loaded.provenance = f"model {model.name}{version} of {self._who or 'a server'} at {self._options.url}"
        model.target.barred = False
        self._worker.received(worker_pb2.ToGateway(loaded=loaded))

    # -- runs ----------------------------------------------------------------------------------------------------

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
        if placement is not None and not _written(placement, view, known):
            return _reply(frames.OUTRUN, run.began, "another attempt has written the outputs")
        run.pending.slot = _slot(view)
        return _reply(frames.OK, run.began, outputs=known)

    def _failed(self, run: _Run, failed: RemoteFailure) -> Reply:
        """What the failure of a call says of the endpoint (the reply), and of the request (``run.failure``)."""
        code, text = failed.code, f"{self._worker.name}: {failed}"
        if failed.gone or _broke(failed):
            self.doubts.set()
            return _reply(frames.DEVICE_FAULT, run.began, str(failed))
        if code == Code.DEADLINE_EXCEEDED:
            if monotonic() >= run.until - _INSTANT:
                run.failure = TargetSlow(f"{self._worker.name}: it did not answer in the time that it had")
                return _reply(frames.CANCELLED, run.began)
            run.failure = TargetSlow(text)
            return _reply(frames.EXPIRED, run.began, str(failed))
        if code in (Code.RESOURCE_EXHAUSTED, Code.ABORTED):
            run.failure = Busy(text)
            return _reply(frames.EXPIRED, run.began, str(failed))
        if code == Code.INVALID_ARGUMENT:
            run.failure = RefusedThere(text)
            run.model.doubts.set()
            return _reply(frames.RUNTIME_ERROR, run.began, str(failed))
        if code in (Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION):
            run.failure = WorkerLost(text, began=False)
            run.model.doubts.set()
            return _reply(frames.UNKNOWN_MODEL, run.began, str(failed))
        if code in (Code.PERMISSION_DENIED, _UNAUTHENTICATED):
            return _reply(frames.DEVICE_FAULT, run.began, str(failed))
        return _reply(frames.RUNTIME_ERROR, run.began, text)

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


class RemoteKeeper:
    """What ``Supervisor`` is to a process: keeps one endpoint connected until ``stop``."""

    def __init__(self, worker: RemoteWorker, connect: Connect, max_bytes: int) -> None:
        """``max_bytes``: largest answer."""
        self._worker = worker
        self._connect = connect
        self._max_bytes = max_bytes
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._worker.introduced.set()  # what it can load needs no file: nobody has to wait for it
        self._task = asyncio.create_task(self._run(), name=f"keeper of {self._worker.name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        failures = 0
        while True:
            served = await self._one_life()
            failures = 0 if served else failures + 1
            await asyncio.sleep(delay_after(failures))

    async def _one_life(self) -> bool:
        """One connection from its beginning to its end. Returns whether it was of use."""
        worker, options = self._worker, self._worker.options
        endpoint: Endpoint | None = None
        try:
            endpoint = self._connect(options, self._max_bytes)
            who = await endpoint.introduce(options.connect_seconds)
        except RemoteFailure as failed:
            worker.detach(_reason(options.url, failed, options.connect_seconds))
            if endpoint is not None:
                await endpoint.close()
            return False
        link = RemoteLink(endpoint, worker, asyncio.get_running_loop(), who)
        began = monotonic()
        try:
            hello = worker_pb2.Hello(
                backend=worker.backend,
                kind=worker.kind,
                instances=options.max_in_flight,
                runtime=who,
                device=options.url,
            )
            worker.attach(link, hello)
            reason, leaving = await self._watch(endpoint, link)
            worker.detach(reason)
            worker.restarts += 1
            if leaving:
                await link.leave()
            link.close(reason)
        finally:
            link.close("the gateway closed the link")
            await endpoint.close()
        return monotonic() - began >= SERVED

    async def _watch(self, endpoint: Endpoint, link: RemoteLink) -> tuple[str, bool]:
        """Returns when the endpoint is lost: why, and whether it still answers what it has."""
        url, seconds = self._worker.options.url, self._worker.hang_seconds
        while True:
            await _set_or_later(link.doubts, LOOK_EVERY)
            if link.closed:
                return link.closed, False
            try:
                await endpoint.check(seconds)
            except NotServing as leaving:
                return f"{url}: {leaving}", True
            except RemoteFailure as failed:
                return _reason(url, failed, seconds), False
            link.doubts.clear()


async def _set_or_later(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after so long. (``wait_for`` of Python 3.11 may swallow a cancellation.)"""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()


_UNAUTHENTICATED = 16
_OF_THE_MODEL = (Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT)


def _reason(url: str, failed: RemoteFailure, seconds: float) -> str:
    if failed.code == Code.DEADLINE_EXCEEDED:
        return f"{url}: hung or out of reach: no answer within {seconds:g} s"
    return f"{url}: {failed}"


def _broke(failed: RemoteFailure) -> bool:
    """Some ends of a connection come as INTERNAL or UNKNOWN."""
    return failed.code in (Code.INTERNAL, Code.UNKNOWN) and any(
        word in str(failed) for word in ("RST_STREAM", "Stream removed", "GOAWAY")
    )


def _metadata(request: Request | None) -> list[tuple[str, str]]:
    """What goes along with a run: that it has come through one gateway more, and its trace."""
    metadata = [(names.metadata_key(names.HOPS), str(1 + (request.hops if request is not None else 0)))]
    if request is not None:
        if request.traceparent:
            metadata.append(("traceparent", request.traceparent))
        if request.tracestate:
            metadata.append(("tracestate", request.tracestate))
    return metadata


def _slot(view: memoryview) -> Slot:
    """Stands where a process's run has its slot."""
    return Slot(0, len(view), view)


def _reply(status: int, began: float, message: str = "", outputs: Sequence[TensorPlace] = ()) -> Reply:
    now = monotonic()
    places = outputs if isinstance(outputs, tuple) else tuple(outputs)
    return Reply(0, status, began, began, now if began else 0.0, 0, places, message)


def _written(placement: Placement, view: memoryview, places: Sequence[TensorPlace]) -> bool:
    """Write outputs into the client's memory, where the request wants them there; False: another attempt has.

    Raises:
        BadAnswer: an output does not fit.
    """
    spans: list[tuple[TensorPlace, RegionSpan]] = []
    for place in places:
        span = placement.span(place.index)
        if span is not None:
            if place.nbytes > span.nbytes:
                raise BadAnswer(f"output {place.index} has {place.nbytes} bytes, its region {span.nbytes}")
            spans.append((place, span))
    if not spans:
        return True
    if not placement.take():
        return False
    for place, span in spans:
        os.pwrite(span.region.fd, view[place.offset : place.offset + place.nbytes], span.offset)
    return True
