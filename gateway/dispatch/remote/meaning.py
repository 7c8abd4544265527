"""What the failure of a call to a remote endpoint says of the endpoint, of its model, and of the request."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from edgeway import frames
from gateway.errors import Busy, Code, EdgewayError, RefusedThere, TargetSlow, WorkerLost
from gateway.remote.failure import RemoteFailure

_UNAUTHENTICATED = 16


class Doubt(Enum):
    """What may be gone, and is looked at before it would be."""

    NONE = 0
    MODEL = 1
    ENDPOINT = 2


class Meaning(NamedTuple):
    """As a worker's reply would say it."""

    status: int
    message: str = ""
    failure: EdgewayError | None = None
    """What whoever waits gets instead of the reply."""
    doubt: Doubt = Doubt.NONE


def meaning(failed: RemoteFailure, who: str, late: bool) -> Meaning:
    """``who``: name of the worker; ``late``: the time that the call had is over."""
    code, said, text = failed.code, str(failed), f"{who}: {failed}"
    if failed.gone or _broke(failed):
        return Meaning(frames.DEVICE_FAULT, said, doubt=Doubt.ENDPOINT)
    if code == Code.DEADLINE_EXCEEDED:
        if late:
            return Meaning(frames.CANCELLED, failure=TargetSlow(f"{who}: it did not answer in the time that it had"))
        return Meaning(frames.EXPIRED, said, TargetSlow(text))
    if code in (Code.RESOURCE_EXHAUSTED, Code.ABORTED):
        return Meaning(frames.EXPIRED, said, Busy(text))
    if code == Code.INVALID_ARGUMENT:
        return Meaning(frames.RUNTIME_ERROR, said, RefusedThere(text), Doubt.MODEL)
    if code in (Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION):
        return Meaning(frames.UNKNOWN_MODEL, said, WorkerLost(text, began=False), Doubt.MODEL)
    if code in (Code.PERMISSION_DENIED, _UNAUTHENTICATED):
        return Meaning(frames.DEVICE_FAULT, said)
    return Meaning(frames.RUNTIME_ERROR, text)


def _broke(failed: RemoteFailure) -> bool:
    """Some ends of a connection come as INTERNAL or UNKNOWN."""
    return failed.code in (Code.INTERNAL, Code.UNKNOWN) and any(
        word in str(failed) for word in ("RST_STREAM", "Stream removed", "GOAWAY")
    )
