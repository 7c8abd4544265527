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
HANG_FACTOR = 5.0
"""Times its p99 that a run may take before it counts as hung."""
RETRY_SHARE, RETRY_FLOOR = 0.2, 3
"""Of the requests in flight: those that may be doubled, so that a slow moment of a healthy target does not double the
load of the others (the retry budget of Envoy)."""


@dataclass(slots=True, eq=False)
class _Try:
    """One attempt under way."""

    target: Target
    worker: Worker
    link: Link
    pending: Pending
    record: AttemptRecord
    expected: float
    """Seconds that it adds to the predicted wait of others."""
    late: bool = False
    """Its time was up; it may still answer first."""
    over: bool = False
    """Answered, failed or given up."""

    def done(self) -> None:
        """The worker has nothing more to do with it."""
        self.target.in_flight -= 1
        if self.worker.link is self.link:  # a new process starts from zero
            self.worker.in_flight -= 1
            self.worker.expected_seconds = max(0.0, self.worker.expected_seconds - self.expected)

    def end(self, now: float, error: str = "", reason: str = "") -> None:
        """What the record says of it."""
        self.over = True
        self.record.ended, self.record.error, self.record.reason = now, error, reason

    def give_up(self, now: float, error: str) -> None:
        """Nobody needs its answer. It counts as in flight until the chip has really come back."""
        self.end(now, self.record.error or error, self.record.reason)
        reply = self.pending.reply
        if reply.done() and not reply.cancelled():
            reply.exception()  # seen: asyncio would complain
        self.link.abandon(self.pending, self.done)


@dataclass(slots=True)
class Attempts:
    """The dispatch stage. The next attempt begins when one has failed, or beside it when its time is up: the first
    answer wins, the losers are cancelled.
    """

    clock: Callable[[], float]
    margin: float
    retry_share: float = RETRY_SHARE
    retry_floor: int = RETRY_FLOOR
    walking: int = 0
    """Requests in this stage."""
    hedged: int = 0
    """Of them: those with an attempt started beside one on a target that was believed healthy."""

    async def walk(
        self, ranking: Ranking, version: Version, request: Request, budget: Budget, outcome: Outcome
    ) -> Answer:
        """The first answer of a target, in the order of the ranking.

        Raises:
            EdgewayError: what the last target said, when all failed; TooLate when the caller's time was over first.
        """
        tries: list[_Try] = []
        hedged = False
        failure: EdgewayError | None = None
        self.walking += 1
        try:
            for position, target in enumerate(ranking.targets):
                now = self.clock()
                if budget.usable(now) <= 0:
                    raise TooLate(f"the time was over before {target.name} could begin") from failure
                following = ranking.targets[position + 1] if position + 1 < len(ranking.targets) else None
                limit = attempt_time(budget.usable(now), target, following, self.margin)
                healthy = now >= target.suspect_until
                try:
                    tries.append(self._begin(target, version, request, budget, limit, outcome, now))
                    answer = await self._wait(tries, version, outcome)
                    if answer is None:
                        if following is not None and healthy and not hedged:
                            if self.hedged < max(self.retry_floor, self.retry_share * self.walking):
                                hedged = True
                                self.hedged += 1
                            else:  # enough others are doubled: this one has to wait for what it began
                                answer = await self._late(tries, version, outcome, budget)
                        if answer is None:
                            raise TargetSlow(f"{target.name}: it did not answer in the time that it had")
                except AttemptFailed as failed:
                    failure = failed
                    if target is version.targets[0]:
                        outcome.reason = failed.reason
                    outcome.skipped = {**outcome.skipped, target.name: failed.reason}
                    continue
                return self._served(answer, ranking, version, outcome)
            answer = await self._late(tries, version, outcome, budget)
            if answer is not None:
                return self._served(answer, ranking, version, outcome)
            assert failure is not None  # a ranking is never empty
            raise failure
        except asyncio.CancelledError:
            self._give_up(tries, "cancelled")
            raise
        finally:
            self.walking -= 1
            self.hedged -= hedged
            self._give_up(tries, "another target answered first")

    def _give_up(self, tries: Sequence[_Try], why: str) -> None:
        for each in tries:
            if not each.over:
                each.give_up(self.clock(), why)

    def _served(self, answer: Answer, ranking: Ranking, version: Version, outcome: Outcome) -> Answer:
        first = version.targets[0]
        outcome.degraded = outcome.target != first.name
        if not outcome.degraded:
            outcome.reason = "" if ranking.feasible else "infeasible"
        elif not outcome.reason:
            outcome.reason = ranking.skipped.get(first.name, "lost")
        return answer

    def _begin(
        self,
        target: Target,
        version: Version,
        request: Request,
        budget: Budget,
        limit: float | None,
        outcome: Outcome,
        now: float,
    ) -> _Try:
        """Raises WorkerLost: the target's process is gone."""
        worker = target.worker
        assert isinstance(worker, Worker)
        record = AttemptRecord(worker.name, worker.backend, worker.kind, now, worker_pid=worker.pid)
        outcome.attempts.append(record)
        try:
            link = worker.require_link()
            inputs = [
                (version.input_index[tensor.name], BY_NAME[tensor.datatype].code, tensor.shape, tensor.data)
                for tensor in request.inputs
            ]
            wanted = [version.output_index[name] for name in request.outputs]
            pending = link.infer(
                target.handle,
                inputs,
                wanted,
                room_for(version, target, wanted),
                budget.last if limit is None else now + limit,
                request.priority,
                max(HANG_FACTOR * (target.estimate.quantile(0.99) or 0.0), worker.hang_seconds),
            )
        except EdgewayError as failed:
            record.ended, record.error, record.reason = self.clock(), str(failed), failed.reason
            raise
        expected = target.estimate.quantile(0.5) or 0.0
        target.attempted(now)
        target.in_flight += 1
        worker.in_flight += 1
        worker.expected_seconds += expected
        return _Try(target, worker, link, pending, record, expected)

    async def _wait(self, tries: list[_Try], version: Version, outcome: Outcome) -> Answer | None:
        """The answer of the newest attempt, or of one before it that is faster after all; None: its time is up.

        Raises:
            EdgewayError: the newest attempt failed.
        """
        newest = tries[-1]
        in_time = newest.pending.reply  # another future is in its place when the time is up
        if len(tries) > 1:
            answer = await self._race(tries[:-1], in_time, None, version, outcome)
            if answer is not None:
                return answer
        try:
            reply = await in_time
        except EdgewayError as failed:
            newest.give_up(self.clock(), str(failed))
            newest.record.reason = failed.reason
            raise
        if reply is None:
            newest.late = True
            newest.record.error, newest.record.reason = "it did not answer in the time that it had", "slow"
            newest.target.expired(self.clock())
            return None
        return self._answer(newest, reply, version, outcome)

    async def _late(self, tries: list[_Try], version: Version, outcome: Outcome, budget: Budget) -> Answer | None:
        """The first answer of attempts whose time was up, while the caller waits."""
        return await self._race(tries, None, budget.last, version, outcome)

    async def _race(
        self,
        tries: Sequence[_Try],
        stop: asyncio.Future[frames.Reply | None] | None,
        until: float | None,
        version: Version,
        outcome: Outcome,
    ) -> Answer | None:
        """The first answer of ``tries``; None when ``stop`` is done, at ``until``, or when all of them have failed."""
        while True:
            racing = {each.pending.reply: each for each in tries if not each.over}
            if not racing or (stop is not None and stop.done()):
                return None
            timeout = None if until is None else max(0.0, until - self.clock())
            waiting = [*racing] if stop is None else [*racing, stop]
            done, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return None
            for future, attempt in racing.items():
                if future in done:
                    try:
                        reply = future.result()
                        assert reply is not None  # a time is up only once
                        return self._answer(attempt, reply, version, outcome)
                    except EdgewayError as failed:
                        if not attempt.over:
                            attempt.give_up(self.clock(), str(failed))

    def _answer(self, attempt: _Try, reply: frames.Reply, version: Version, outcome: Outcome) -> Answer:
        """Raises EdgewayError: the worker says that the run failed."""
        record, worker, target, pending, link = (
            attempt.record,
            attempt.worker,
            attempt.target,
            attempt.pending,
            attempt.link,
        )
        now = self.clock()
        record.worker_received, record.run_started, record.run_ended = reply.received, reply.started, reply.finished
        attempt.done()
        try:
            if reply.status != frames.OK:
                link.release(pending)
                raise _failure(reply.status, reply.message, target.name)
            outputs = self._outputs(link, pending, reply, version, target)
        except EdgewayError as failed:
            attempt.end(now, str(failed), failed.reason)
            raise
        attempt.end(now)
        # All but the wait for an instance, which is predicted apart: the link and the wake-ups belong to the run.
        target.answered(now - record.started - max(0.0, reply.started - reply.received), not attempt.late)
        outcome.target, outcome.accelerator, outcome.kind = worker.name, worker.backend, worker.kind
        return Answer(outputs, outcome, lambda: link.release(pending))

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
