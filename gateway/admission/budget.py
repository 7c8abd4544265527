"""Budget: the moment at which an answer stops being worth anything."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import TooLate
from gateway.request import Request

LONGEST = 3600.0
"""Seconds. A gRPC deadline further away is none: a client without one shows up with 9.2e18 seconds left."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Absolute deadline of one request, on the monotonic clock."""

    deadline: float
    total: float
    """Seconds between the request's arrival and the deadline."""

    def remaining(self, now: float) -> float:
        return self.deadline - now


def budget_of(request: Request, deployment: float | None, default: float) -> Budget:
    """The smallest of gRPC deadline, ``timeout`` parameter and the deployment's budget.

    Args:
        request: with its own two limits.
        deployment: seconds, None where the manifest states none.
        default: seconds, only for a request to which nobody gave a limit.

    Raises:
        TooLate: the budget was over before the request came.
    """
    seconds = min(
        LONGEST if request.deadline is None else request.deadline - request.received,
        LONGEST if request.timeout is None else request.timeout,
        LONGEST if deployment is None else deployment,
    )
    if seconds >= LONGEST:
        seconds = default
    if seconds <= 0:
        raise TooLate("the budget was over before the request arrived")
    return Budget(request.received + seconds, seconds)
