"""Attempt: one try on one target, and what its end says of the target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from edgeway import frames
from edgeway.datatypes import BY_CODE, nbytes
from gateway.dispatch.pending import Pending
from gateway.dispatch.pool import Worker
from gateway.dispatch.ports import AnyLink
from gateway.errors import BadElements, DeviceError, EdgewayError, RunError, TargetSlow, WorkerLost
from gateway.plan import KEPT, Plan
from gateway.request import AttemptRecord, OutputTensor
from gateway.target import AnswerForm, Target, Version


class Attempt(Struct, eq=False):
    """One try on one target, under way or over."""

    target: Target
    worker: Worker
    link: AnyLink
    record: AttemptRecord
    pending: Pending
    priority: int
    nbytes: int
    expected: float
    """Seconds that it adds to the predicted wait of others."""
    promised: float
    """Seconds after which it should have answered: one that had less time is not to blame."""
    start_by: float
    """Monotonic seconds by which it must have begun."""
    probe: bool
    """It also finds out how the target is: it runs to its end, whoever answers first."""
    clock: Callable[[], float]
    trusted: bool = True
    """Whether its target was believed healthy when its time was up."""
    over: bool = False
    """Answered, failed or given up: nobody waits for it."""

    def ended(self, reply: frames.Reply | None) -> None:
        """The worker has nothing more to do with it (None: the link has ended)."""
        self.target.in_flight -= 1
        self.worker.finished(self.priority, self.expected)
        now = self.clock()
        nothing_new = reply is not None and reply.status == frames.OK and not self.probe and self.target.settled(now)
        if not nothing_new:  # what it says of the target is worked out when the answer is on its way
            asyncio.get_running_loop().call_soon(self._learn, reply, now)

    def _learn(self, reply: frames.Reply | None, now: float) -> None:
        """What the end says of the target, whether or not somebody waited for it."""
        target, worker = self.target, self.worker
        if reply is None:
            if self.pending.begun and target.breaker.fault(now, "lost"):
                worker.tell("target-ejected", "attempts were lost in a row", target.order)
            elif self.probe:
                target.breaker.inconclusive()
            return
        wait = max(0.0, reply.started - reply.received)
        # All but the wait for an instance, which is predicted apart: the link and the wake-ups belong to the run.
        felt = now - self.record.started - wait
        if reply.status in (frames.OK, frames.OUTRUN):
            worker.answered = True
            shared = reply.shared
            if shared != 1 or target.shared != 1.0:
                target.ran_with(shared)
                worker.ran_with(shared)
            # A run for many says nothing of how fast the chip is for one.
            service = reply.finished - reply.started if shared == 1 else None
            target.measured(self.nbytes, felt, service, wait, now)
            if target.breaker.answered(now, self.probe):
                worker.tell("target-returned", "it has answered again", target.order)
        elif reply.status == frames.DEVICE_FAULT or (reply.status == frames.RUNTIME_ERROR and self.probe):
            if target.breaker.fault(now, "lost" if reply.status == frames.DEVICE_FAULT else "failed"):
                worker.tell("target-ejected", reply.message, target.order)
        else:
            if reply.status == frames.CANCELLED and reply.started:
                target.estimates.of(self.nbytes).add_at_least(felt, now)
            if self.probe:
                target.breaker.inconclusive()

    def end(self, now: float, error: str = "", reason: str = "") -> None:
        """What the record says of it."""
        self.over = True
        self.record.ended = now
        self.record.error, self.record.reason = error or self.record.error, reason or self.record.reason

    def give_up(self, now: float, error: str) -> None:
        """Nobody needs its answer. Its slot is free when the chip has really come back."""
        self.end(now, "" if self.record.error else error)
        reply = self.pending.reply
        if reply.done() and not reply.cancelled():
            reply.exception()  # seen: asyncio would complain
        self.link.abandon(self.pending, cancel=not self.probe)

    def answer(self, reply: frames.Reply, version: Version) -> list[OutputTensor]:
        """The outputs of its reply, as views of its slot, which ``release`` gives back.

        Raises:
            EdgewayError: the worker says that the run failed, or what it says makes no sense.
        """
        record, now = self.record, self.clock()
        record.worker_received, record.run_started, record.run_ended = reply.received, reply.started, reply.finished
        try:
            if reply.status != frames.OK:
                self.release()
                raise failure_of(reply.status, reply.message, self.target.name)
            form = answer_form(reply, version)
            if isinstance(form, str):
                self.link.close(f"the worker broke the protocol of the link: {form}")
                raise WorkerLost(f"{self.target.name} sent an answer that makes no sense", began=False)
        except EdgewayError as failed:
            self.end(now, str(failed), failed.reason)
            raise
        self.over = True
        record.shared = reply.shared
        record.ended = now
        record.error = record.reason = ""
        if form.room > self.target.output_bytes:
            self.target.output_bytes = form.room
        return outputs_of(self.pending.slot.view, form)

    def release(self) -> None:
        """Give its slot back: it has been answered, and the outputs are copied out."""
        self.link.release(self.pending)


def answer_form(reply: frames.Reply, version: Version) -> AnswerForm | str:
    """What the worker says of its outputs, checked, because it is not believed. Text: what is wrong."""
    places = reply.outputs
    known = version.answers.get(id(places))
    if known is not None and known.places is places:  # the link gives the same object for the same words
        return known
    outputs, room = [], 0
    for place in places:
        dtype = BY_CODE.get(place.dtype)
        if dtype is None or place.index >= len(version.signature.outputs):
            return f"output {place.index} of type {place.dtype}"
        if dtype.itemsize and nbytes(dtype.name, place.shape) != place.nbytes:
            return f"output {place.index} has the wrong size"
        name = version.signature.outputs[place.index].name
        outputs.append((name, dtype.name, place.shape, place.offset, place.offset + place.nbytes))
        room += frames.aligned(place.nbytes)
    form = AnswerForm(places, tuple(outputs), room)
    if len(version.answers) >= KEPT:
        version.answers.clear()
    version.answers[id(places)] = form
    return form


def outputs_of(view: memoryview, form: AnswerForm) -> list[OutputTensor]:
    """Views of an answer's tensors in its slot."""
    return [OutputTensor(name, dtype, shape, view[start:end]) for name, dtype, shape, start, end in form.outputs]


def room_for(plan: Plan, target: Target) -> int:
    """Bytes that a slot keeps for the outputs: exact where the shapes are fixed, else the largest seen so far."""
    return plan.room if plan.exact else max(plan.room, target.output_bytes)


def failure_of(status: int, message: str, name: str) -> EdgewayError:
    """What a reply that is not OK means for the request."""
    if status == frames.INVALID_INPUT:
        return BadElements(message)
    if status == frames.RUNTIME_ERROR:
        return RunError(message)
    if status == frames.DEVICE_FAULT:
        return DeviceError(f"{name}: {message}")
    if status == frames.EXPIRED:
        return _Expired(f"the time was up before {name} could begin")
    if status == frames.UNKNOWN_MODEL:
        return WorkerLost(f"{name} has unloaded the model", began=False)
    return WorkerLost(f"{name} gave the run up: {message or f'status {status}'}", began=False)


class _Expired(TargetSlow):
    """It waited in the worker's queue until its time was up; for the last target that is the end of the budget."""
