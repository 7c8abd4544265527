"""Attempts: walk the ranking until a target answers, leaving each time enough for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeway import frames
from edgeway.tensors import BY_CODE, BY_NAME, nbytes
from gateway.admission.budget import Budget
from gateway.dispatch.link import Link, Pending
from gateway.dispatch.pool import Worker
from gateway.errors import (
    AttemptFailed,
    BadElements,
    DeviceError,
    EdgewayError,
    RunError,
    TargetSlow,
    TooLate,
    WorkerLost,
)
from gateway.request import Answer, AttemptRecord, Outcome, OutputTensor, Request
from gateway.routing.policy import Ranking, attempt_time
from gateway.target import Target, Version

UNKNOWN_OUTPUT_BYTES = 64 * 1024
"""Room for outputs whose shapes do not say how large they get, before the first answer has told."""


@dataclass(slots=True)
class Attempts:
    """The dispatch stage. One attempt at a time: the next begins when one has failed or its time is up."""

    clock: Callable[[], float]
    margin: float

    async def walk(
        self, ranking: Ranking, version: Version, request: Request, budget: Budget, outcome: Outcome
    ) -> Answer:
        """The first answer of a target, in the order of the ranking.

        Raises:
            EdgewayError: what the last target said, when all failed; TooLate when the caller's time was over first.
        """
        failure: EdgewayError | None = None
        first = version.targets[0]
        for position, target in enumerate(ranking.targets):
            now = self.clock()
            if budget.usable(now) <= 0:
                raise TooLate(f"the time was over before {target.name} could begin") from failure
            following = ranking.targets[position + 1] if position + 1 < len(ranking.targets) else None
            limit = attempt_time(budget.usable(now), target, following, self.margin)
            try:
                answer = await self._attempt(target, version, request, budget, limit, outcome)
            except AttemptFailed as failed:
                failure = failed
                if target is first:
                    outcome.reason = failed.reason
                outcome.skipped = {**outcome.skipped, target.name: failed.reason}
                continue
            outcome.degraded = target is not first
            if not outcome.degraded:
                outcome.reason = "" if ranking.feasible else "infeasible"
            elif not outcome.reason:
                outcome.reason = ranking.skipped.get(first.name, "lost")
            return answer
        assert failure is not None  # a ranking is never empty
        raise failure

    async def _attempt(
        self,
        target: Target,
        version: Version,
        request: Request,
        budget: Budget,
        limit: float | None,
        outcome: Outcome,
    ) -> Answer:
        worker = target.worker
        assert isinstance(worker, Worker)
        started = self.clock()
        record = AttemptRecord(worker.name, worker.backend, worker.kind, started, worker_pid=worker.pid)
        outcome.attempts.append(record)
        try:
            link = worker.require_link()
            deadline = budget.last if limit is None else record.started + limit
            inputs = [
                (version.input_index[tensor.name], BY_NAME[tensor.datatype].code, tensor.shape, tensor.data)
                for tensor in request.inputs
            ]
            wanted = [version.output_index[name] for name in request.outputs]
            expected = target.estimate.quantile(0.5) or 0.0
            pending = link.infer(
                target.handle, inputs, wanted, room_for(version, target, wanted), deadline, request.priority
            )
            target.attempted(record.started)
            target.in_flight += 1
            worker.in_flight += 1
            worker.expected_seconds += expected
            answered = False
            try:
                reply = await pending.reply
                answered = True
            except TargetSlow as slow:
                target.expired(self.clock())
                raise TargetSlow(f"{target.name}: {slow}") from None
            finally:
                target.in_flight -= 1
                if worker.link is link:  # a new process starts from zero
                    worker.in_flight -= 1
                    worker.expected_seconds = max(0.0, worker.expected_seconds - expected)
                if not answered:
                    link.abandon(pending)
            record.worker_received, record.run_started, record.run_ended = reply.received, reply.started, reply.finished
            if reply.status != frames.OK:
                link.release(pending)
                raise _failure(reply.status, reply.message, target.name)
            # All but the wait for an instance, which is predicted apart: the link and the wake-ups belong to the run.
            target.answered(self.clock() - record.started - max(0.0, reply.started - reply.received))
            outcome.target, outcome.accelerator, outcome.kind = worker.name, worker.backend, worker.kind
            return Answer(self._outputs(link, pending, reply, version, target), outcome, lambda: link.release(pending))
        except EdgewayError as failed:
            record.error, record.reason = str(failed), failed.reason
            raise
        except asyncio.CancelledError:
            record.error = "cancelled"
            raise
        finally:
            record.ended = self.clock()

    def _outputs(
        self, link: Link, pending: Pending, reply: frames.Reply, version: Version, target: Target
    ) -> list[OutputTensor]:
        """Views of the answer's tensors, checked: what a worker says about them is not believed."""
        view, outputs, total = pending.slot.view, [], 0
        for place in reply.outputs:
            dtype = BY_CODE.get(place.dtype)
            if dtype is None or place.index >= len(version.signature.outputs):
                link.close(f"the worker broke the protocol of the link: output {place.index} of type {place.dtype}")
                raise WorkerLost(f"{target.name} sent an answer that makes no sense")
            if dtype.itemsize and nbytes(dtype.name, place.shape) != place.nbytes:
                link.close(f"the worker broke the protocol of the link: output {place.index} has the wrong size")
                raise WorkerLost(f"{target.name} sent an answer that makes no sense")
            name = version.signature.outputs[place.index].name
            data = view[place.offset : place.offset + place.nbytes]
            outputs.append(OutputTensor(name, dtype.name, place.shape, data))
            total += frames.aligned(place.nbytes)
        target.output_bytes = max(target.output_bytes, total)
        return outputs


def room_for(version: Version, target: Target, wanted: Sequence[int]) -> int:
    """Bytes that a slot keeps for the outputs: exact where the shapes are fixed, else the largest seen so far."""
    sizes = version.output_sizes
    if not wanted and version.output_room is not None:
        return version.output_room
    total = 0
    for index in wanted or range(len(sizes)):
        size = sizes[index]
        if size is None:
            return max(target.output_bytes, total + UNKNOWN_OUTPUT_BYTES)
        total += size
    return total


def _failure(status: int, message: str, name: str) -> EdgewayError:
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
        return WorkerLost(f"{name} has unloaded the model")
    return WorkerLost(f"{name} gave the run up: {message or f'status {status}'}")


class _Expired(TargetSlow):
    """It waited in the worker's queue until its time was up; for the last target that is the end of the budget."""

    reason = "busy"
