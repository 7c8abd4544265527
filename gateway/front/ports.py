"""What the front doors need of the rest of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from edgeway.v1 import control_pb2
from gateway.request import Answer, Description, IndexEntry, Outcome, Request, Statistics


class Handler(Protocol):
    """The pipeline. Never raises for a request's fault: the outcome's code says it; cancellation passes."""

    async def handle(self, request: Request) -> Answer: ...


class Recorder(Protocol):
    """Takes each outcome once."""

    def record(self, outcome: Outcome) -> None: ...

    def statistics(self, model: str, version: str) -> Statistics: ...


class Models(Protocol):
    """The catalog as clients may see it."""

    def describe(self, name: str, version: str) -> Description: ...

    def is_ready(self, name: str, version: str) -> bool: ...

    def index(self) -> list[IndexEntry]: ...

    def serving(self) -> Mapping[str, bool]: ...

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]: ...


class Repository(Protocol):
    """Explicit model control."""

    def load(self, name: str) -> Awaitable[None]: ...

    def unload(self, name: str) -> Awaitable[None]: ...


class Lifecycle(Protocol):
    """Where the gateway is in its life."""

    ready: bool
    draining: bool


class Operations(Protocol):
    """What operators may ask; raises EdgewayError."""

    async def apply(
        self, manifests: Sequence[str], signed: Sequence[control_pb2.SignedManifests] = ()
    ) -> control_pb2.ApplyResponse: ...

    async def delete(self, name: str, version: str) -> control_pb2.DeleteResponse: ...

    async def promote(self, name: str, version: str) -> control_pb2.ChangeResponse: ...

    async def roll_back(self, name: str, to: str) -> control_pb2.ChangeResponse: ...

    async def set_traffic(self, name: str, percents: Mapping[str, int]) -> control_pb2.ChangeResponse: ...

    def get_deployments(self, name: str) -> control_pb2.GetDeploymentsResponse: ...

    def get_targets(self, name: str) -> control_pb2.GetTargetsResponse: ...

    def get_accelerators(self, name: str) -> control_pb2.GetAcceleratorsResponse: ...

    def get_events(self, name: str) -> control_pb2.GetEventsResponse: ...

    def watch_events(self, after: int) -> AsyncIterator[control_pb2.Event]: ...

    def drain(self) -> None: ...

    async def feedback(self, name: str, request_id: str, label: str) -> control_pb2.FeedbackResponse: ...
