"""Shadow traffic: requests that were answered are run again on a shadow version, and both answers are compared."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgeway import frames
from gateway.admission.signature import check
from gateway.dispatch.attempt import answer_form, failure_of, outputs_of, room_for
from gateway.dispatch.pending import Pending
from gateway.dispatch.pool import Worker
from gateway.dispatch.walk import HANG_FACTOR
from gateway.errors import DeviceError, EdgewayError, TooLate, WorkerLost
from gateway.observation.figures import Seen
from gateway.observation.ports import Observer
from gateway.plan import Plan
from gateway.regions.region import RegionSpan
from gateway.request import OutputTensor, Request
from gateway.routing.table import Table
from gateway.target import LoadOrder, Target, Version

PRIORITY = 9
SOON = 0.001
"""Seconds after which a copy is begun: the answer has been sent by then."""
LARGEST_INPUTS = 16 << 20
"""Bytes of a message that is mirrored: it is kept until then."""
LARGEST_OUTPUTS = 1 << 20
"""Bytes of an answer that is compared: they are copied before it is sent, at some 10 GB/s."""
START_WITHIN = 0.05
"""Seconds in which a copy must have begun on an accelerator: it only goes where nothing waits."""
LONGEST = 20.0
"""Seconds that a copy may take: on the CPU it gets only what others leave."""
SHARE_OF_DEVICE = 0.01
"""Of an accelerator's time, which others may need while a copy runs there that can't be ended: one request in a hundred
may meet one, and waits for it no longer than it runs."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
"""Seconds without copies for a version that killed or hung a worker: twice as long each time."""

log = logging.getLogger(__name__)


class CpuPlace(Protocol):
    """Where shadows run on the CPU; ``dispatch.shadow`` has the real one."""

    def target(self, order: LoadOrder) -> Target | None: ...


@dataclass(slots=True)
class Tally:
    """What became of the copies of one shadow version, since it was first mirrored."""

    compared: int = 0
    failed: int = 0
    """The shadow gave no answer where the other did: a disagreement, unless it was only late."""
    skipped: int = 0
    """Requests that were not copied: there was no idle place, another copy was under way, or it may not be copied."""
    resume_at: float = 0.0
    """Monotonic seconds before which it gets no copies."""
    pause: float = 0.0


@dataclass(slots=True)
class _Deployment:
    busy: bool = False
    """One copy at a time."""
    turn: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)

    def tally(self, label: str) -> Tally:
        tally = self.tallies.get(label)
        if tally is None:
            tally = self.tallies[label] = Tally()
        return tally


class Mirror:
    """Gives shadow versions copies of requests, one at a time for each deployment and only where nothing waits.

    The caller of the request has its answer by then, and whatever becomes of the copy is nobody's but the shadow's:
    it is neither counted nor traced as a request, and says nothing of targets.
    """

    def __init__(
        self,
        table: Table,
        observer: Observer,
        cpu: CpuPlace,
        emit: Callable[..., None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """``loop``: its time is that of ``time.monotonic``; ``emit`` records an event."""
        self._table = table
        self._observer = observer
        self._cpu = cpu
        self._emit = emit
        self._loop = loop
        self._deployments: dict[str, _Deployment] = {}
        self._rests: dict[str, float] = {}
        """By accelerator: monotonic seconds before which it gets no copies."""
        self._runs: set[asyncio.Task[None]] = set()

    def wants(self, request: Request, version: Version, nbytes: int) -> Version | None:
        """The shadow that should answer this request too; ``begin`` must follow. None: none, or not now.

        Args:
            request: it was answered.
            version: which answered it.
            nbytes: of the answer.
        """
        route = self._table.routes.get(request.model)
        shadows = [each for each in route.shadow if each is not version] if route is not None else []
        if not shadows:
            return None
        deployment = self._deployments.get(request.model)
        if deployment is None:
            deployment = self._deployments[request.model] = _Deployment()
        shadow = shadows[deployment.turn % len(shadows)]
        tally = deployment.tally(shadow.label)
        now = self._loop.time()
        allowed = not deployment.busy and not request.regions and now >= tally.resume_at
        small = request.nbytes <= LARGEST_INPUTS and nbytes <= LARGEST_OUTPUTS
        if not allowed or not small or self._place(shadow, now) is None:
            tally.skipped += 1
            return None
        deployment.busy = True
        deployment.turn += 1
        return shadow

    def begin(self, request: Request, shadow: Version, real: Sequence[Seen]) -> None:
        """Run the copy a little later. ``real``: the answer that the caller gets."""
        shadow.enter()
        self._loop.call_later(SOON, self._start, request, shadow, real)

    def tallies(self) -> Iterator[tuple[str, str, Tally]]:
        """(model, version, what became of its copies)."""
        for model, deployment in list(self._deployments.items()):
            for label, tally in list(deployment.tallies.items()):
                yield model, label, tally

    def forget(self, model: str, label: str) -> None:
        """The version is gone."""
        deployment = self._deployments.get(model)
        if deployment is not None:
            deployment.tallies.pop(label, None)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._runs:
            task.cancel()
        if self._runs:
            await asyncio.wait(self._runs)

    def _place(self, shadow: Version, now: float) -> Target | None:
        """An idle place: an accelerator that is due for a copy, else the CPU; in the version's order of preference."""
        for target in shadow.targets:
            worker = target.worker
            if not isinstance(worker, Worker) or not target.accepts_work or worker.sheds != "nominal":
                continue
            if worker.remote:
                continue  # copies do not leave the device
            if worker.backend == "cpu":
                own = self._cpu.target(target.order) if target.order is not None else None
                if own is not None and worker.in_flight < worker.instances and _free(own):
                    return own
            elif worker.state == "ready" and not worker.in_flight and now >= self._rests.get(worker.name, 0.0):
                return target
        return None

    def _start(self, request: Request, shadow: Version, real: Sequence[Seen]) -> None:
        task = self._loop.create_task(self._run(request, shadow, real))
        self._runs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._runs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a copy for a shadow version failed", exc_info=task.exception())

    async def _run(self, request: Request, shadow: Version, real: Sequence[Seen]) -> None:
        deployment = self._deployments[request.model]
        tally = deployment.tally(shadow.label)
        try:
            target = self._place(shadow, self._loop.time())
            outputs = await self._ask(target, shadow, request) if target is not None else None
        except DeviceError:
            tally.skipped += 1
        except EdgewayError as failed:
            if isinstance(failed, WorkerLost) and not failed.began:
                tally.skipped += 1
                return
            tally.failed += 1
            if not isinstance(failed, TooLate):  # on a busy machine that says nothing of the shadow
                self._observer.compared(request.model, shadow.label, real, ())
            if isinstance(failed, (TooLate, WorkerLost)):
                self._pause(request.model, shadow, tally, str(failed))
        else:
            if outputs is None:
                tally.skipped += 1
            else:
                tally.compared += 1
                self._observer.compared(request.model, shadow.label, real, outputs)
                self._observer.answered(request.model, shadow.label, "", outputs)
        finally:
            deployment.busy = False
            shadow.leave()

    async def _ask(self, target: Target, shadow: Version, request: Request) -> Sequence[Seen] | None:
        """What the shadow answers; None: it did not come to it.

        Raises:
            EdgewayError: it can't.
        """
        worker = target.worker
        assert isinstance(worker, Worker)
        plan = shadow.plans.get(request.form) or _plan(shadow, request)
        half, _, p99 = target.estimates.summary(plan.nbytes) or (0.0, 0.0, 0.0)
        now = self._loop.time()
        link = worker.require_link()
        pending = link.infer(
            target.handle,
            plan,
            request.inputs,
            room_for(plan, target),
            start_by=now + (LONGEST if worker.backend == "cpu" else START_WITHIN),
            expire_at=None,
            priority=PRIORITY,
            hang_limit=max(HANG_FACTOR * p99, worker.hang_seconds),
        )
        pending.on_end = lambda _: worker.finished(PRIORITY, half)
        worker.sent(PRIORITY, half, now)
        try:
            await asyncio.wait({pending.reply}, timeout=LONGEST)
            if not pending.reply.done():
                if not pending.begun:
                    return None
                raise TooLate(f"it did not answer within {LONGEST:g} s")
            reply = pending.reply.result()
            assert reply is not None
            if reply.status == frames.EXPIRED:
                return None
            if reply.status != frames.OK:
                raise failure_of(reply.status, reply.message, target.name)
            form = answer_form(reply, shadow)
            if isinstance(form, str):
                link.close(f"the worker broke the protocol of the link: {form}")
                raise WorkerLost(f"{target.name} sent an answer that makes no sense")
            target.output_bytes = max(target.output_bytes, form.room)
            return copied(outputs_of(pending.slot.view, form))
        finally:
            link.abandon(pending)
            self._rest(worker, pending, now)

    def _rest(self, worker: Worker, pending: Pending, began: float) -> None:
        """Leave an accelerator to others for long enough."""
        if worker.backend != "cpu":
            now = self._loop.time()
            self._rests[worker.name] = now + (now - began) / SHARE_OF_DEVICE

    def _pause(self, model: str, shadow: Version, tally: Tally, why: str) -> None:
        tally.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * tally.pause))
        tally.resume_at = self._loop.time() + tally.pause
        message = f"no copies of requests for {tally.pause:g} s: {why}"
        self._emit("shadow-paused", message, deployment=model, version=shadow.label)


def copied(outputs: Sequence[OutputTensor]) -> tuple[Seen, ...]:
    """The outputs with bytes of their own."""
    return tuple(
        Seen(tensor.name, tensor.datatype, tensor.shape, bytes(tensor.data))
        for tensor in outputs
        if not isinstance(tensor.data, RegionSpan)
    )


def _free(target: Target) -> bool:
    return isinstance(target.worker, Worker) and not target.worker.in_flight


def _plan(shadow: Version, request: Request) -> Plan:
    """Raises InvalidRequest: the request does not fit the shadow."""
    check(request, shadow.signature)
    return shadow.plan(request)
