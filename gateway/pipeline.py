"""A request's whole life, top to bottom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.admission.budget import Budget, budget_of
from gateway.admission.signature import check
from gateway.admission.slots import InFlight
from gateway.errors import Code, EdgewayError, TooLate, Unavailable
from gateway.request import Answer, Outcome, Request
from gateway.routing.policy import PreferredInTime, Ranking
from gateway.routing.table import Table
from gateway.target import Version


class Dispatch(Protocol):
    """Walks a ranking until a target answers."""

    async def walk(
        self, ranking: Ranking, version: Version, request: Request, budget: Budget, outcome: Outcome
    ) -> Answer: ...


@dataclass(slots=True)
class Pipeline:
    """The stages of a request, in the order in which it meets them."""

    table: Table
    in_flight: InFlight
    policy: PreferredInTime
    dispatch: Dispatch
    record: Callable[[Outcome], None]
    clock: Callable[[], float]
    default_budget: float

    async def handle(self, request: Request) -> Answer:
        """The answer, or an outcome whose code says why there is none. Only a cancelled caller raises."""
        outcome = Outcome(request.model, request.received, request_id=request.id)
        outcome.traceparent, outcome.tracestate = request.traceparent, request.tracestate
        entered = False
        version: Version | None = None
        try:
            route = self.table.find(request.model)
            budget = budget_of(request, route.budget, self.default_budget, route.reject_infeasible)
            outcome.deadline, outcome.budget = budget.deadline, budget.total
            self.in_flight.enter(request.nbytes)
            entered = True
            version = route.choose(request)
            version.enter()
            outcome.version = version.label
            check(request, version.signature)
            ranking = self.policy.rank(version.targets, budget, self.clock(), request.degrade or route.degrade)
            refuse_hopeless(ranking, version, route.reject_infeasible)
            outcome.skipped = ranking.skipped
            return await self.dispatch.walk(ranking, version, request, budget, outcome)
        except EdgewayError as error:
            return self._refusal(outcome, error)
        except asyncio.CancelledError:
            outcome.code, outcome.message, outcome.finished = Code.CANCELLED, "the caller went away", self.clock()
            self.record(outcome)
            raise
        finally:
            if version is not None:
                version.leave()
            if entered:
                self.in_flight.leave(request.nbytes)

    def _refusal(self, outcome: Outcome, error: EdgewayError) -> Answer:
        outcome.code, outcome.message, outcome.min_budget = error.code, str(error), error.min_budget
        outcome.reason = outcome.reason or error.reason
        outcome.counts_against_model = error.counts_against_model
        outcome.finished = self.clock()
        return Answer((), outcome, _nothing)


def refuse_hopeless(ranking: Ranking, version: Version, reject_infeasible: bool) -> None:
    """Refuse in the first millisecond what nobody can do.

    Raises:
        Unavailable: no target can be used at all.
        TooLate: none makes the budget, and the deployment says ``whenInfeasible: reject``.
    """
    if not ranking.targets:
        why = ", ".join(f"{name}: {reason}" for name, reason in ranking.skipped.items())
        raise Unavailable(f"no usable target for version {version.label} ({why})")
    if reject_infeasible and not ranking.feasible and ranking.soonest is not None:
        needed = ranking.soonest
        raise TooLate(f"no target makes the budget; the soonest needs {needed * 1e3:.1f} ms", min_budget=needed)


def _nothing() -> None:
    """A refusal holds no slot."""
