"""The error tree: what can go wrong with a request, and the three things everybody must know about each kind."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """gRPC status codes, by number, so that nothing behind ``front/`` needs grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class EdgewayError(Exception):
    """Root of the tree.

    ``code``: the gRPC status the caller sees. ``may_fall_back``: may another target still answer this request.
    ``counts_against_model``: does it count toward the version's errorThreshold. ``reason``: the word for why the
    first target did not serve (``edgeway_reason``), empty where the request itself is at fault.
    """

    code: Code = Code.INTERNAL
    may_fall_back: bool = False
    counts_against_model: bool = False
    reason: str = ""

    def __init__(self, message: str, *, min_budget: float | None = None) -> None:
        super().__init__(message)
        self.min_budget = min_budget
        """Smallest budget, in seconds, with which the request could have been served; None where unknown."""


class InvalidRequest(EdgewayError):
    """The request contradicts the protocol or the model's metadata."""

    code = Code.INVALID_ARGUMENT


class NotFound(EdgewayError):
    """No such model, version or region."""

    code = Code.NOT_FOUND


class AlreadyExists(EdgewayError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class NotOffered(EdgewayError):
    """Part of the protocol, but not of this gateway."""

    code = Code.UNIMPLEMENTED


class Refused(EdgewayError):
    """This caller may not do that here."""

    code = Code.PERMISSION_DENIED


class Conflict(EdgewayError):
    """The state of things does not allow it (now)."""

    code = Code.FAILED_PRECONDITION


class Shed(EdgewayError):
    """We refuse work: a limit is reached."""

    code = Code.RESOURCE_EXHAUSTED


class TooLate(EdgewayError):
    """The budget is over, or no target can make it."""

    code = Code.DEADLINE_EXCEEDED
    reason = "infeasible"


class Superseded(EdgewayError):
    """A newer frame of the same stream took this one's place."""

    code = Code.ABORTED


class Unavailable(EdgewayError):
    """No usable target, or the gateway is draining."""

    code = Code.UNAVAILABLE
    reason = "lost"


class AttemptFailed(EdgewayError):
    """One target did not answer; the next one may."""

    may_fall_back = True


class WorkerLost(AttemptFailed):
    """The worker process died, or its link broke, while it had the request."""

    code = Code.UNAVAILABLE
    reason = "lost"

    def __init__(self, message: str, *, min_budget: float | None = None, began: bool = True) -> None:
        super().__init__(message, min_budget=min_budget)
        self.began = began
        """Whether the worker had begun the run, which may then be what killed it; False only where that is known."""


class Poison(EdgewayError):
    """Two workers have died while they ran this request: nobody is to run it again."""

    code = Code.INTERNAL
    counts_against_model = True
    reason = "failed"


class TargetSlow(AttemptFailed):
    """The attempt's time was up."""

    code = Code.DEADLINE_EXCEEDED
    reason = "slow"


class RunError(AttemptFailed):
    """The runtime raised: counts against the version, and another target may still do it."""

    code = Code.INTERNAL
    counts_against_model = True
    reason = "failed"


class DeviceError(AttemptFailed):
    """The accelerator failed, not the model."""

    code = Code.UNAVAILABLE
    reason = "lost"


class Busy(AttemptFailed):
    """A remote target refuses work: a limit of its own is reached."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "busy"


class RefusedThere(AttemptFailed):
    """A remote target says that the request is wrong, which it is not by the local model: another may do it."""

    code = Code.INVALID_ARGUMENT
    reason = "failed"


class Looped(AttemptFailed):
    """The request has come from another gateway, and is not sent on to a third one, which may be the first."""

    code = Code.FAILED_PRECONDITION
    reason = "loop"


class BadElements(EdgewayError):
    """A BYTES tensor whose elements do not add up, found where it is decoded: in the worker."""

    code = Code.INVALID_ARGUMENT
