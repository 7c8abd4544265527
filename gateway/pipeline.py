"""A request's whole life, top to bottom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.admission.budget import Budget, budget_of
from gateway.admission.signature import check
from gateway.admission.slots import InFlight, Place
from gateway.admission.streams import Streams
from gateway.errors import Code, EdgewayError, Poison, TooLate, Unavailable
from gateway.plan import Plan
from gateway.request import Answer, InputTensor, Outcome, Request
from gateway.routing.policy import Candidate, PreferredInTime, Ranking
from gateway.routing.table import Table
from gateway.target import Version


class Dispatch(Protocol):
    """Walks a ranking until a target answers."""

    async def walk(
        self, ranking: Ranking, version: Version, request: Request, plan: Plan, budget: Budget, outcome: Outcome
    ) -> Answer: ...


class Quarantine(Protocol):
    """Requests that have killed two workers; false while there are none."""

    def __len__(self) -> int: ...

    def holds(self, model: str, version: str, inputs: Sequence[InputTensor], now: float) -> bool: ...


class Journal(Protocol):
    """Takes each ranking with all that it was made of."""

    def ranked(
        self, candidates: Sequence[Candidate], remaining: float, margin: float, degrade: str, ranking: Ranking
    ) -> None: ...


@dataclass(slots=True)
class Pipeline:
    """The stages of a request, in the order in which it meets them."""

    table: Table
    in_flight: InFlight
    streams: Streams
    policy: PreferredInTime
    dispatch: Dispatch
    quarantine: Quarantine
    record: Callable[[Outcome], None]
    clock: Callable[[], float]
    default_budget: float
    journal: Journal | None = None
    failed: Callable[[Outcome], None] | None = None
    """Told at once of a request that failed by the model's fault: the next one may have to go to another version."""
    loop: asyncio.AbstractEventLoop | None = None
    """That of all requests; None: asyncio is asked each time, which costs a system call on Python 3.11."""

    async def handle(self, request: Request) -> Answer:
        """The answer, or an outcome whose code says why there is none. Only a cancelled caller raises."""
        outcome = Outcome(request.model, request.received, request_id=request.id)
        outcome.traceparent, outcome.tracestate = request.traceparent, request.tracestate
        place: Place | None = None
        version: Version | None = None
        try:
            route = self.table.find(request.model)
            budget = budget_of(request, route.budget, self.default_budget, route.reject_infeasible)
            outcome.deadline, outcome.budget = budget.deadline, budget.total
            place = self.in_flight.enter(request.nbytes, request.priority, evictor(outcome, self.loop))
            version = route.choose(request)
            version.enter()
            outcome.version = version.label
            plan = version.plans.get(request.form) or self._plan(version, request)
            if self.quarantine:
                self._refuse_poison(version, request)
            ranking = self._rank(version, request, plan, budget, request.degrade or route.degrade)
            if not ranking.feasible:
                refuse_hopeless(
                    ranking, version, route.reject_infeasible, self.policy.margin + self.clock() - request.received
                )
            outcome.skipped = ranking.skipped
            if request.stream_key is not None:  # only now: a frame that is refused must not end one that waits
                self.streams.join(request.model, request.stream_key, place)
            answer = await self.dispatch.walk(ranking, version, request, plan, budget, outcome)
            if version.seen is not None:
                version.seen.answered(request, answer)
            return answer
        except EdgewayError as error:
            return self._refusal(outcome, error)
        except asyncio.CancelledError:
            if place is not None and place.ended is not None:
                return self._refusal(outcome, place.ended)
            outcome.code, outcome.message, outcome.finished = Code.CANCELLED, "the caller went away", self.clock()
            self.record(outcome)
            raise
        finally:
            if version is not None:
                version.leave()
            if place is not None:
                self.in_flight.leave(place)
                if request.stream_key is not None:
                    self.streams.leave(request.model, request.stream_key, place)

    def _plan(self, version: Version, request: Request) -> Plan:
        """Raises InvalidRequest: the request does not fit the model."""
        check(request, version.signature)
        return version.plan(request)

    def _refuse_poison(self, version: Version, request: Request) -> None:
        """Raises Poison: this very request has killed two workers before."""
        if self.quarantine.holds(request.model, version.label, request.inputs, request.received):
            raise Poison("this request has killed two workers: it is refused for a while")

    def _rank(self, version: Version, request: Request, plan: Plan, budget: Budget, degrade: str) -> Ranking:
        now, nbytes, priority = self.clock(), plan.nbytes, request.priority
        candidates = [target.candidate(nbytes, priority, now) for target in version.targets]
        remaining = budget.deadline - now
        ranking = self.policy.rank(candidates, remaining, degrade)
        if self.journal is not None:
            self.journal.ranked(candidates, remaining, self.policy.margin, degrade, ranking)
        return ranking

    def _refusal(self, outcome: Outcome, error: EdgewayError) -> Answer:
        outcome.code, outcome.message, outcome.min_budget = error.code, str(error), error.min_budget
        outcome.reason = outcome.reason or error.reason
        outcome.counts_against_model = error.counts_against_model
        outcome.finished = self.clock()
        if error.counts_against_model and self.failed is not None:
            self.failed(outcome)
        return Answer((), outcome, _nothing)


def evictor(outcome: Outcome, loop: asyncio.AbstractEventLoop | None) -> Callable[[], bool]:
    """What ends the request that the current task handles, unless a worker has begun it."""
    task = asyncio.current_task(loop)

    def evict() -> bool:
        return task is not None and not outcome.begun and task.cancel()

    return evict


def refuse_hopeless(ranking: Ranking, version: Version, reject_infeasible: bool, beside: float) -> None:
    """Refuse in the first millisecond what nobody can do. ``beside``: seconds of a budget that no run gets.

    Raises:
        Unavailable: no target can be used at all.
        TooLate: none makes the budget, and the deployment says ``whenInfeasible: reject``.
    """
    if not ranking.order:
        why = ", ".join(f"{name}: {reason}" for name, reason in ranking.skipped.items())
        raise Unavailable(f"no usable target for version {version.label} ({why})")
    if reject_infeasible and not ranking.feasible and ranking.soonest is not None:
        needed = ranking.soonest + beside
        raise TooLate(f"no target makes the budget; the soonest needs {needed * 1e3:.1f} ms", min_budget=needed)


def _nothing() -> None:
    """A refusal holds no slot."""
