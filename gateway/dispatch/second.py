"""The second try of a request that was running in a worker when it died: in a process that nobody else needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edgeway import frames
from gateway.dispatch.attempt import answer_form, outputs_of, room_for
from gateway.dispatch.pending import Pending
from gateway.errors import EdgewayError, Poison, WorkerLost
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.request import Answer, AttemptRecord, InputTensor, Outcome, Request
from gateway.target import LoadOrder, Target, Version


class Ran(Protocol):
    """A run of a disposable worker that ended well; ``release()`` gives its memory back."""

    @property
    def pending(self) -> Pending: ...

    @property
    def reply(self) -> frames.Reply: ...

    @property
    def pid(self) -> int: ...

    @property
    def release(self) -> Callable[[], None]: ...


class Disposables(Protocol):
    """Runs one request in a process of its own."""

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
    ) -> Ran: ...


class Asked(NamedTuple):
    """What is to be run, and until when. Monotonic seconds."""

    plan: Plan
    start_by: float
    last: float
    priority: int
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class SecondTry:
    """Runs such a request in a disposable worker, once; what kills that too is refused from then on."""

    disposables: Disposables
    quarantine: Callable[[str, str, Sequence[InputTensor], float], object]
    """Takes model, version, inputs and monotonic seconds of a request that has killed two workers."""
    emit: Callable[..., None]
    """Records an event."""
    clock: Callable[[], float]

    async def run(self, target: Target, version: Version, request: Request, asked: Asked, outcome: Outcome) -> Answer:
        """The answer, in the place of a target of the CPU.

        Raises:
            Poison: the process died too.
            EdgewayError: it failed otherwise, or there was none.
        """
        assert target.order is not None
        record = AttemptRecord(target.name, "cpu", "cpu", self.clock())
        outcome.attempts.append(record)
        plan = asked.plan
        room = room_for(plan, target)
        try:
            ran = await self.disposables.run(
                target.order,
                plan,
                request.inputs,
                room,
                asked.start_by,
                asked.last,
                asked.priority,
                asked.placement,
            )
        except EdgewayError as failed:
            record.ended, record.error, record.reason = self.clock(), str(failed), failed.reason
            if isinstance(failed, WorkerLost) and failed.began:
                self.emit("worker-died", str(failed), worker="disposable")
                raise self.poison(version, request) from failed
            raise
        reply = ran.reply
        record.ended, record.worker_pid = self.clock(), ran.pid
        record.worker_received, record.run_started, record.run_ended = reply.received, reply.started, reply.finished
        form = answer_form(reply, version)
        if isinstance(form, str):
            ran.release()
            raise WorkerLost(f"{target.name} sent an answer that makes no sense", began=False)
        outputs = outputs_of(ran.pending.slot.view, form)
        if asked.placement is not None:
            outputs = asked.placement.delivered(outputs, reply)
        outcome.serve(record)
        return Answer(outputs, outcome, ran.release)

    def poison(self, version: Version, request: Request) -> Poison:
        """Two workers are dead: quarantine, and what to tell the caller."""
        self.quarantine(request.model, version.label, request.inputs, self.clock())
        text = "a request has killed two workers: it is refused for ten minutes"
        self.emit("request-quarantined", text, deployment=request.model, version=version.label)
        return Poison("two workers died while they ran this request: it is refused from now on")


def stand_in(targets: Iterable[Target]) -> Target | None:
    """The target in whose place a disposable worker may serve: the CPU's, where the request may go there."""
    return next((t for t in targets if t.order is not None and t.worker and t.worker.backend == "cpu"), None)
