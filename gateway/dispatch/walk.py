"""The dispatch stage: walk the ranking until a target answers, leaving each time enough for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from edgeway import frames
from gateway.admission.budget import Budget
from gateway.dispatch.attempt import Attempt, room_for
from gateway.dispatch.pacing import Pacing
from gateway.dispatch.pool import Worker
from gateway.dispatch.second import Asked, SecondTry, stand_in
from gateway.dispatch.vitals import is_dying
from gateway.errors import AttemptFailed, EdgewayError, TargetSlow, TooLate, WorkerLost
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.request import Answer, AttemptRecord, Outcome, Request
from gateway.routing.policy import Ranking
from gateway.target import STALE_AFTER, Target, Version

HANG_FACTOR = 5.0
"""Times its p99 that a run may take before it counts as hung."""
COLD = 1.5
"""Times its p95 that a target may need which has not run for a second: caches are cold and cores asleep (a model of
2.4 ms took 3.4 to 4.1 ms)."""
HARDLY = 0.25
"""Of the budget: a predicted wait up to this is no queue."""
GRACE = 1.0
"""Of the budget: see ``_start_by``."""
_UNKNOWN = (0.0, 0.0, 0.0)
"""Seconds, where no run was ever measured."""
_INSTANT = 0.001
"""Seconds: more than passes between the record of an attempt and the frame that is sent for it."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The dispatch stage. The next attempt begins when one has failed, or beside it when its time is up: the first
    answer wins, the losers are cancelled.
    """

    clock: Callable[[], float]
    pacing: Pacing
    second: SecondTry
    """For a request that was running in a worker when it died."""

    async def walk(
        self, ranking: Ranking, version: Version, request: Request, plan: Plan, budget: Budget, outcome: Outcome
    ) -> Answer:
        """The first answer of a target, in the order of the ranking.

        Raises:
            EdgewayError: what the last target said, when all failed; TooLate when the time was over first; Poison when
                the request has killed two workers.
        """
        walk = _Walk(self, ranking, version, request, plan, budget, outcome, budget.deadline <= self.clock())
        if plan.placing is not None:
            walk.placement = Placement(plan.placing)
        self.pacing.walking += 1
        try:
            return await walk.run()
        except asyncio.CancelledError:
            walk.give_up("cancelled")
            raise
        finally:
            self.pacing.walking -= 1
            self.pacing.hedged -= walk.hedged
            walk.give_up("another target answered first")
            if walk.placement is not None:
                walk.placement.close()


class _Walk(Struct, eq=False):
    """One request on its way through its ranking."""

    stage: Attempts
    ranking: Ranking
    version: Version
    request: Request
    plan: Plan
    budget: Budget
    outcome: Outcome
    late: bool
    """The budget was over before dispatch."""
    tries: list[Attempt] = []
    hedged: bool = False
    deaths: int = 0
    """Workers that have died while they ran this request."""
    failure: EdgewayError | None = None
    placement: Placement | None = None

    async def run(self) -> Answer:
        """Raises EdgewayError."""
        ranking, targets, clock = self.ranking, self.version.targets, self.stage.clock
        if ranking.probe is not None:
            self._probe(targets[ranking.probe])
        for position, index in enumerate(ranking.order):
            target, now = targets[index], clock()
            remaining = self.budget.deadline - now
            if remaining <= 0:
                remaining = self._start_by(wait=self.budget.total) - now
                if remaining <= 0:
                    break
            if self.tries and any(each.target is target for each in self.tries):
                continue  # it has the request as a probe
            following = targets[ranking.order[position + 1]] if position + 1 < len(ranking.order) else None
            limit = remaining
            if following is not None and ranking.feasible:
                # The soonest target of a hopeless request gets all: another would only be later.
                limit = self._time_for(target, following, remaining, now)
            try:
                newest = self._begin(target, now, now + limit, probe=False)
                answer = await self._in_time(newest)
                if answer is None and following is not None:
                    answer = await self._make_way(newest)
            except AttemptFailed as failed:
                self._failed(target, failed)
                if self.deaths:
                    break
                continue
            if answer is not None:
                return self._served(answer)
        answer = await self._late()
        if answer is not None:
            return self._served(answer)
        if self.deaths:
            assert self.failure is not None
            return self._served(await self._second_try(self.failure))
        raise self.failure or TooLate("the time was over before a target could begin")

    def give_up(self, why: str) -> None:
        """Let go of all that is still under way."""
        for each in self.tries:
            if not each.over:
                each.give_up(self.stage.clock(), why)

    def _start_by(self, wait: float) -> float:
        """When the next attempt must have begun: by the end of the budget, so that nothing waits in a queue for longer.

        It goes on for as long again, where late answers are taken at all, when it is no queue that holds the request
        up: it had hardly any ``wait`` before it, another target has let it down, or the gateway itself has come to it
        only now. A machine that stands still for a moment would else turn a late answer into none.
        """
        budget = self.budget
        queued = not self.ranking.feasible or wait > HARDLY * budget.total
        if queued and not self.late and all(each.probe for each in self.tries):
            return budget.deadline
        return min(budget.last, budget.deadline + GRACE * budget.total)

    def _time_for(self, target: Target, following: Target, remaining: float, now: float) -> float:
        """Seconds of this attempt, so that the following one can still answer."""
        own = target.estimates.quantile(self.plan.nbytes, 0.95)
        run = following.estimates.quantile(self.plan.nbytes, 0.95)
        if run is not None and now - following.measured_at > STALE_AFTER:
            run *= COLD
        return self.stage.pacing.attempt_time(
            remaining, self.budget.total, own, following.wait(self.request.priority, now), run
        )

    def _probe(self, target: Target) -> None:
        """Have the request run there too: who answers first is taken, and the target is known again."""
        now = self.stage.clock()
        try:
            self._begin(target, now, None, probe=True)
            target.breaker.probing(now)
        except AttemptFailed as failed:
            self._failed(target, failed)

    def _begin(self, target: Target, now: float, expire_at: float | None, probe: bool) -> Attempt:
        """Raises WorkerLost: the target's process is gone."""
        worker, plan, priority = target.worker, self.plan, self.request.priority
        assert isinstance(worker, Worker)
        half, p95, p99 = target.estimates.summary(plan.nbytes) or _UNKNOWN
        expected = half / target.shared  # its part of the worker's time, where it shares a run with others
        wait = worker.expected_wait(priority, now)
        start_by = self._start_by(wait)
        record = AttemptRecord(
            worker.name,
            worker.backend,
            target.kind or worker.kind,
            now,
            worker_pid=worker.pid,
            provenance=target.provenance,
        )
        self.outcome.attempts.append(record)
        try:
            link = worker.link or worker.require_link()
            pending = link.infer(
                target.handle,
                plan,
                self.request.inputs,
                room_for(plan, target),
                start_by=start_by,
                expire_at=expire_at,
                priority=priority,
                hang_limit=max(HANG_FACTOR * p99, worker.hang_seconds) + target.batch_delay,
                budget_end=self.budget.deadline if expire_at is None else expire_at,
                placement=self.placement,
                request=self.request,
            )
        except EdgewayError as failed:
            record.ended, record.error, record.reason = self.stage.clock(), str(failed), failed.reason
            raise
        # The worker is at it already.
        promised = wait + p95
        attempt = Attempt(
            target,
            worker,
            link,
            record,
            pending,
            priority,
            plan.nbytes,
            expected,
            promised,
            start_by,
            probe,
            self.stage.clock,
        )
        pending.on_end = attempt.ended
        record.run = pending
        target.tried = now
        target.in_flight += 1
        worker.sent(priority, expected, now)
        self.tries.append(attempt)
        return attempt

    async def _in_time(self, newest: Attempt) -> Answer | None:
        """The answer of the newest attempt, or of one before it that is faster after all; None: its time is up.

        Raises:
            EdgewayError: the newest attempt failed.
        """
        in_time = newest.pending.reply  # another future is in its place when the time is up
        if len(self.tries) > 1:
            answer = await self._race([each for each in self.tries if each is not newest], in_time, None)
            if answer is not None:
                return answer
        try:
            reply = await in_time
        except EdgewayError as failed:
            self._died(newest, failed)
            newest.give_up(self.stage.clock(), str(failed))
            newest.record.reason = failed.reason
            raise
        if reply is not None:
            return self._taken(newest, reply)
        begun = newest.pending.begun
        if not newest.worker.remote and is_dying(
            newest.worker.pid
        ):  # the end of its link is seen only when its memory is freed
            lost = WorkerLost(f"{newest.target.name} died", began=begun)
            self._died(newest, lost)
            newest.give_up(self.stage.clock(), str(lost))
            newest.record.reason = lost.reason
            raise lost
        self._expired(newest, begun)
        return None

    def _expired(self, newest: Attempt, begun: bool) -> None:
        """Its time is up: is it the target's fault?"""
        now, record = self.stage.clock(), newest.record
        newest.trusted = not newest.target.breaker.reason
        elapsed = now - record.started
        if not begun and newest.link.oldest_age(now) < elapsed - _INSTANT:  # the worker has come to others meanwhile
            record.error, record.reason = "it was not begun in the time that it had", "busy"
            return
        record.error, record.reason = "it did not answer in the time that it had", "slow"
        if elapsed >= newest.promised and newest.target.breaker.expired(now):
            newest.worker.tell("target-ejected", "an attempt expired", newest.target.order)

    async def _make_way(self, newest: Attempt) -> Answer | None:
        """The newest attempt's time is up: may the next target be started beside it?

        Returns:
            an answer of what was begun, where no other may be started beside it.

        Raises:
            TargetSlow: the next target is to be started.
        """
        name, reason = newest.target.name, newest.record.reason
        if not newest.pending.begun:
            newest.link.expire(newest.pending)  # it would only begin when the next target is at it already
        elif newest.trusted and not self.hedged:
            self.hedged = self.stage.pacing.hedge()
            if not self.hedged:  # enough others are doubled: this one waits for what it began
                answer = await self._late()
                if answer is not None:
                    return answer
        slow = TargetSlow(f"{name}: it did not answer in the time that it had")
        slow.reason = reason or slow.reason
        raise slow

    async def _late(self) -> Answer | None:
        """The first answer of what is still under way, while the caller waits; what has not begun when the budget is
        over never will.
        """
        latest = max((each.start_by for each in self.tries if not each.over), default=0.0)
        answer = await self._race(self.tries, None, latest)
        if answer is not None:
            return answer
        for each in self.tries:
            if not each.over and not each.pending.begun:
                each.give_up(self.stage.clock(), "it was not begun in the time that it had")
                self.outcome.reason = self.outcome.reason or "busy"
        return await self._race(self.tries, None, self.budget.last)

    async def _race(
        self, tries: Sequence[Attempt], stop: asyncio.Future[frames.Reply | None] | None, until: float | None
    ) -> Answer | None:
        """The first answer of ``tries``; None when ``stop`` is done, at ``until``, or when all of them have failed."""
        while True:
            racing = {each.pending.reply: each for each in tries if not each.over}
            if not racing or (stop is not None and stop.done()):
                return None
            timeout = None if until is None else max(0.0, until - self.stage.clock())
            waiting = [*racing] if stop is None else [*racing, stop]
            done, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return None
            for future, attempt in racing.items():
                if future in done:
                    try:
                        reply = future.result()
                        if reply is not None:  # None: its time is up, and another future is in its place
                            return self._taken(attempt, reply)
                    except EdgewayError as failed:
                        self.failure = failed
                        self._died(attempt, failed)
                        if not attempt.over:
                            attempt.give_up(self.stage.clock(), str(failed))

    async def _second_try(self, death: EdgewayError) -> Answer:
        """What a request gets that was running in a worker when it died. Raises EdgewayError."""
        second, version = self.stage.second, self.version
        if self.deaths > 1:
            raise second.poison(version, self.request)
        ranked = [version.targets[index] for index in self.ranking.order]
        skipped = [target for target in version.targets if target.name in self.ranking.skipped]
        target = stand_in([*ranked, *skipped])
        if target is None:
            raise death
        if self.placement is not None:
            self.placement.renew()
        asked = Asked(self.plan, self._start_by(wait=0.0), self.budget.last, self.request.priority, self.placement)
        return await second.run(target, version, self.request, asked, self.outcome)

    def _died(self, attempt: Attempt, failed: EdgewayError) -> None:
        """Count a worker that died while it ran this request."""
        if isinstance(failed, WorkerLost) and failed.began and not attempt.over:
            self.deaths += 1

    def _failed(self, target: Target, failed: AttemptFailed) -> None:
        self.failure = failed
        if target is self.version.targets[0]:
            self.outcome.reason = failed.reason
        self.outcome.skipped = {**self.outcome.skipped, target.name: failed.reason}

    def _served(self, answer: Answer) -> Answer:
        """Who served, and why not the first; a run that raised elsewhere but not here speaks against that target."""
        outcome, first = self.outcome, self.version.targets[0]
        for each in self.tries:
            raised = each.record.reason == "failed" and each.record is not outcome.served
            if raised and each.target.breaker.fault(self.stage.clock(), "failed"):
                each.worker.tell("target-ejected", "runs failed that another target did", each.target.order)
        outcome.degraded = outcome.target != first.name
        if not outcome.degraded:
            outcome.reason = "" if self.ranking.feasible else "infeasible"
        elif not outcome.reason:
            outcome.reason = self.ranking.skipped.get(first.name, "lost")
        return answer

    def _taken(self, attempt: Attempt, reply: frames.Reply) -> Answer:
        """Raises EdgewayError: the worker says that the run failed."""
        outputs = attempt.answer(reply, self.version)
        if self.placement is not None:
            outputs = self.placement.delivered(outputs, reply)
        self.outcome.serve(attempt.record)
        return Answer(outputs, self.outcome, attempt.release)
