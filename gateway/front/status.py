"""Errors and outcomes as gRPC status with facts in the trailing metadata."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from edgeway import parameters as names
from gateway.errors import Code, EdgewayError
from gateway.request import Outcome

_STATUS = {status.value[0]: status for status in grpc.StatusCode}


async def abort(context: Any, error: EdgewayError) -> NoReturn:
    """End a call with an error of ours."""
    await context.abort(_STATUS[error.code], str(error))
    raise AssertionError("abort raises")


async def abort_outcome(context: Any, outcome: Outcome) -> NoReturn:
    """End a ModelInfer that has no answer; the facts go where no parameters can."""
    facts = {
        names.TOTAL_US: str(int(outcome.total_seconds * 1e6)),
        names.REASON: outcome.reason,
        names.VERSION: outcome.version,
    }
    if outcome.min_budget is not None:
        facts[names.MIN_BUDGET_US] = str(int(outcome.min_budget * 1e6) + 1)
    trailing = tuple((names.metadata_key(name), value) for name, value in facts.items())
    await context.abort(_STATUS[Code(outcome.code)], outcome.message, trailing)
    raise AssertionError("abort raises")
