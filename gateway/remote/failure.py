"""What can go wrong with a call to a remote endpoint, without gRPC's types."""

from __future__ import annotations

from gateway.errors import Code


class RemoteFailure(Exception):
    """A call ended without an answer. ``code``: gRPC's status, UNAVAILABLE also where nobody was reached."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def gone(self) -> bool:
        """Whether the endpoint as a whole is in doubt, not only this call."""
        return self.code in (Code.UNAVAILABLE, Code.CANCELLED)


class Disagreed(RemoteFailure):
    """Its model does not agree with the golden samples."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FAILED_PRECONDITION, message)


class NotServing(RemoteFailure):
    """It answers, but says that it takes no work: it starts, or it drains."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.UNAVAILABLE, message)
