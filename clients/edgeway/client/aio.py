"""AsyncClient: for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from tenacity import AsyncRetrying

from edgeway.client.channel import GRACE, METHODS, OPTIONS, again, target
from edgeway.client.errors import InferenceError, Late, NotFound, Unavailable, error_of
from edgeway.client.message import Call, decode, encode, metadata_of
from edgeway.client.region import CREATE, NOT_SHARED, OpenRegions, Region, attach
from edgeway.client.result import ModelMetadata, Result
from edgeway.places import inference_address
from edgeway.v1 import open_inference_pb2 as oip
from edgeway.v1 import regions_pb2


class AsyncClient:
    """A connection to one gateway, used within one event loop.

    >>> async with AsyncClient() as client:
    ...     result = await client.infer("digits", {"frame": frame}, budget_ms=20)
    ...     result["scores"].argmax(), result.served_by
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        deadline_ms: float = 1000,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """As ``Client``."""
        self.address = address or inference_address()
        self._deadline = deadline_ms / 1e3
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target(self.address), OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target(self.address), credentials, OPTIONS)
        self._regions = OpenRegions()
        self._infer: Any = self._channel.unary_unary(METHODS["ModelInfer"].path)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        budget_ms: float | None = None,
        outputs: Sequence[str] = (),
        version: str = "",
        priority: int = 0,
        route_key: str | None = None,
        stream_key: str | None = None,
        degrade: str | None = None,
        request_id: str = "",
        metadata: Sequence[tuple[str, str]] = (),
        into: Mapping[str, np.ndarray] | None = None,
    ) -> Result:
        """As ``Client.infer``."""

        def call() -> Call:
            before, tensors = encode(
                model,
                inputs,
                outputs,
                version,
                request_id,
                priority,
                route_key,
                stream_key,
                degrade,
                self._regions.shared(),
                into,
            )
            budget = None if budget_ms is None else budget_ms / 1e3
            return Call(before, tensors, budget, self._deadline if budget is None else budget)

        known, started = len(self._regions), time.monotonic()
        try:
            message = await self._persist(call(), started, metadata)
        except NotFound:
            if len(self._regions.shared()) == known:
                raise
            # The gateway was restarted in between: its regions are gone, but what lay in them is still here.
            message = await self._persist(call(), started, metadata)
        return decode(message, time.monotonic() - started, into)

    async def _persist(self, call: Call, started: float, metadata: Sequence[tuple[str, str]]) -> bytes:
        """Ask, and again while nobody is there."""
        try:
            return await self._attempt(call, started, metadata)
        except Unavailable as lost:
            left = call.deadline - (time.monotonic() - started)
            try:
                message: bytes = await AsyncRetrying(**again(left))(self._attempt, call, started, metadata)
            except Late as late:
                if late.total_ms is None:  # nobody took the second try either: the first says why
                    raise lost from None
                raise
            return message

    async def _attempt(self, call: Call, started: float, metadata: Sequence[tuple[str, str]]) -> bytes:
        elapsed = time.monotonic() - started
        timeout = max(0.0, call.deadline - elapsed) + GRACE
        try:
            answer: bytes = await self._infer(call.message(elapsed), timeout=timeout, metadata=tuple(metadata))
        except grpc.aio.AioRpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return answer

    async def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """What the model takes and gives. Raises InferenceError."""
        return metadata_of(
            await self._ask(METHODS["ModelMetadata"].path, oip.ModelMetadataRequest(name=model, version=version))
        )

    async def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the gateway, or a model of it, serves. Raises InferenceError: there is no such model or gateway."""
        if model:
            answer = await self._ask(METHODS["ModelReady"].path, oip.ModelReadyRequest(name=model, version=version))
            return bool(oip.ModelReadyResponse.FromString(answer).ready)
        return bool(
            oip.ServerReadyResponse.FromString(
                await self._ask(METHODS["ServerReady"].path, oip.ServerReadyRequest())
            ).ready
        )

    async def region(self, nbytes: int) -> Region:
        """As ``Client.region``."""
        try:
            answer: bytes = await AsyncRetrying(**again(self._deadline))(
                self._ask, CREATE.path, regions_pb2.CreateRegionRequest(byte_size=nbytes)
            )
        except InferenceError as refused:
            if refused.code not in NOT_SHARED:
                raise
            return Region(nbytes, reason=str(refused))
        created = CREATE.response.FromString(answer)
        region = await asyncio.to_thread(attach, nbytes, created, self.address)
        return self._regions.add(region)

    async def _ask(self, rpc: str, request: Any) -> bytes:
        try:
            answer: bytes = await self._channel.unary_unary(rpc)(request.SerializeToString(), timeout=self._deadline)
        except grpc.aio.AioRpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return answer

    async def close(self) -> None:
        """End the connection and let go of regions; calls under way are cancelled."""
        self._regions.close()
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.address}>"
