"""What dispatch needs of the way to a worker, be it a process here or an endpoint elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgeway.v1 import worker_pb2
from gateway.dispatch.pending import Pending
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.request import InputTensor, Request


class AnyLink(Protocol):
    """``dispatch.link.Link`` and ``dispatch.remote.link.RemoteLink``; the first says what each means."""

    loading_since: float | None
    load_limit: float
    """Seconds that a load may take."""

    def control(self, message: worker_pb2.ToWorker) -> None: ...

    def infer(
        self,
        model: int,
        plan: Plan,
        inputs: Sequence[InputTensor],
        output_bytes: int,
        *,
        start_by: float,
        expire_at: float | None,
        priority: int,
        hang_limit: float,
        budget_end: float = 0.0,
        placement: Placement | None = None,
        request: Request | None = None,
    ) -> Pending: ...

    def expire(self, pending: Pending) -> None: ...

    def abandon(self, pending: Pending, cancel: bool = True) -> None: ...

    def oldest_age(self, now: float) -> float: ...

    def release(self, pending: Pending) -> None: ...

    def close(self, reason: str) -> None: ...
