"""What a remote target asks of its connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.remote.options import RemoteOptions
from gateway.request import Signature


class Endpoint(Protocol):
    """One connection to an endpoint; ``gateway.remote.endpoint`` has the real one. All raise RemoteFailure."""

    async def introduce(self, seconds: float) -> str: ...

    async def check(self, seconds: float) -> None: ...

    async def model(self, name: str, version: str, seconds: float) -> Signature: ...

    async def infer(self, message: bytes, seconds: float, metadata: Sequence[tuple[str, str]]) -> bytes: ...

    async def close(self) -> None: ...


Connect = Callable[[RemoteOptions, int], Endpoint]
"""Takes the options and the largest answer in bytes. Raises RemoteFailure."""
