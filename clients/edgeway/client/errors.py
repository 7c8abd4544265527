"""What a caller can get instead of a result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from edgeway import parameters as names


class InferenceError(Exception):
    """No answer. ``code``: the gRPC status."""

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        reason: str = "",
        total_ms: float | None = None,
        min_budget_ms: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """``busy``, ``hot``, ``lost``, ``failed``, ``slow``, ``barred``, ``memory``, ``infeasible`` or empty."""
        self.total_ms = total_ms
        """What the gateway spent on it; None: it never said."""
        self.min_budget_ms = min_budget_ms
        """The smallest budget that could have been met, where the gateway knows it."""


class Late(InferenceError):
    """The budget ended first, or nobody could have met it (DEADLINE_EXCEEDED)."""


class Overloaded(InferenceError):
    """The gateway refused the work at once (RESOURCE_EXHAUSTED)."""


class Unavailable(InferenceError):
    """No gateway, or no target that may serve (UNAVAILABLE)."""


class NotFound(InferenceError):
    """No such model or version (NOT_FOUND)."""


class BadRequest(InferenceError):
    """A tensor or a parameter is wrong; the message names it, with expected and got (INVALID_ARGUMENT)."""


_CLASSES: dict[grpc.StatusCode, type[InferenceError]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Late,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # What a gateway that is just ending makes of a call that it never looked at: the caller's own cancellation is no
    # RpcError here, but an exception of its own.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
}


def error_of(
    code: grpc.StatusCode, message: str | None, trailing: Iterable[Any] | None, address: str
) -> InferenceError:
    """The error of a failed call."""
    facts = {key: value for key, value in trailing or () if isinstance(value, str)}
    text = message or code.name
    total = _milliseconds(facts.get(names.metadata_key(names.TOTAL_US)))
    if code is grpc.StatusCode.UNAVAILABLE and total is None:
        text = f"no gateway answers at {address} ({text}); is `edgeway serve` running?"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and total is None:
        text = f"the gateway at {address} did not answer in time; is it running?"
    return _CLASSES.get(code, InferenceError)(
        text,
        code,
        facts.get(names.metadata_key(names.REASON), ""),
        total,
        _milliseconds(facts.get(names.metadata_key(names.MIN_BUDGET_US))),
    )


def _milliseconds(microseconds: str | None) -> float | None:
    try:
        return None if microseconds is None else float(microseconds) / 1e3
    except ValueError:
        return None
