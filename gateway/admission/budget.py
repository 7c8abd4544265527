"""Budget: the moment at which an answer stops being worth anything."""

from __future__ import annotations

from msgspec import Struct

from gateway.errors import TooLate
from gateway.request import Request

LATEST = 60.0
"""Seconds after its arrival at which a request ends whose caller set no limit at all."""
LONGEST = 3600.0
"""Seconds. A gRPC deadline further away is none: a client without one shows up with 9.2e18 seconds left."""


class Budget(Struct, frozen=True, gc=False):
    """Absolute deadline of one request, on the monotonic clock."""

    deadline: float
    total: float
    """Seconds between the request's arrival and the deadline."""
    last: float
    """When even a late answer is worth nothing: the caller's gRPC deadline, at which it is gone; the deadline of the
    budget where late ones are refused.
    """

    def remaining(self, now: float) -> float:
        return self.deadline - now


def budget_of(request: Request, deployment: float | None, default: float, late_is_refused: bool = False) -> Budget:
    """The smallest of gRPC deadline, ``timeout`` parameter and the deployment's budget.

    Args:
        request: with its own two limits.
        deployment: seconds, None where the manifest states none.
        default: seconds, only for a request to which nobody gave a limit.
        late_is_refused: ``whenInfeasible: reject``; else a late answer is better than none while the caller waits.

    Raises:
        TooLate: the budget was over before the request came.
    """
    waits = LONGEST if request.deadline is None else request.deadline - request.received
    asked = LONGEST if request.timeout is None else request.timeout
    seconds = min(waits, asked, LONGEST if deployment is None else deployment)
    if seconds >= LONGEST:
        seconds = default
    if seconds <= 0:
        raise TooLate("the budget was over before the request arrived")
    patience = waits if waits < LONGEST else max(seconds, LATEST)
    return Budget(request.received + seconds, seconds, request.received + (seconds if late_is_refused else patience))
