"""Client: for threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from tenacity import Retrying

from edgeway.client.channel import GRACE, METHODS, OPTIONS, again, target
from edgeway.client.errors import InferenceError, Late, NotFound, Unavailable, error_of
from edgeway.client.message import Call, decode, encode, metadata_of
from edgeway.client.region import CREATE, NOT_SHARED, OpenRegions, Region, attach
from edgeway.client.result import ModelMetadata, Result
from edgeway.places import inference_address
from edgeway.v1 import open_inference_pb2 as oip
from edgeway.v1 import regions_pb2


class Client:
    """A connection to one gateway. Threads may share it; a forked process needs its own.

    >>> with Client() as client:
    ...     result = client.infer("digits", {"frame": frame}, budget_ms=20)
    ...     result["scores"].argmax(), result.served_by
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        deadline_ms: float = 1000,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Args:
        address: ``unix:/path`` or ``host:port``; None: the socket in the runtime directory.
        deadline_ms: for calls that give no budget: every call ends.
        credentials: TLS, for a gateway beyond loopback.
        """
        self.address = address or inference_address()
        self._deadline = deadline_ms / 1e3
        if credentials is None:
            self._channel = grpc.insecure_channel(target(self.address), OPTIONS)
        else:
            self._channel = grpc.secure_channel(target(self.address), credentials, OPTIONS)
        self._regions = OpenRegions()
        self._infer: Any = self._channel.unary_unary(METHODS["ModelInfer"].path)

    def infer(
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
        """Compute ``outputs`` (none named: all) of ``model`` from ``inputs``.

        Args:
            budget_ms: the answer is worth nothing later; None: what the deployment says.
            version: pins one; else the deployment's traffic split decides.
            priority: 1 (highest) to 9; 0: 5.
            route_key: the same key meets the same version.
            stream_key: a newer request of the same key supersedes one that still waits.
            degrade: ``never`` forbids another target than the first; None: what the deployment says.
            metadata: of the call, such as ``traceparent``.
            into: outputs that are written into these arrays instead of new ones, without a copy where they lie in a
                region; once there are some, other outputs come only if ``outputs`` names them.

        Raises:
            InferenceError: its subclass and ``code`` say what happened.
            ValueError: an input's dtype has no place in the protocol, or an array of ``into`` can't take its output.
        """

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
            message = self._persist(call(), started, metadata)
        except NotFound:
            if len(self._regions.shared()) == known:
                raise
            # The gateway was restarted in between: its regions are gone, but what lay in them is still here.
            message = self._persist(call(), started, metadata)
        return decode(message, time.monotonic() - started, into)

    def _persist(self, call: Call, started: float, metadata: Sequence[tuple[str, str]]) -> bytes:
        """Ask, and again while nobody is there."""
        try:
            return self._attempt(call, started, metadata)
        except Unavailable as lost:
            left = call.deadline - (time.monotonic() - started)
            try:
                message: bytes = Retrying(**again(left))(self._attempt, call, started, metadata)
            except Late as late:
                if late.total_ms is None:  # nobody took the second try either: the first says why
                    raise lost from None
                raise
            return message

    def _attempt(self, call: Call, started: float, metadata: Sequence[tuple[str, str]]) -> bytes:
        elapsed = time.monotonic() - started
        timeout = max(0.0, call.deadline - elapsed) + GRACE
        try:
            answer: bytes = self._infer(call.message(elapsed), timeout=timeout, metadata=tuple(metadata))
        except grpc.RpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return answer

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """What the model takes and gives. Raises InferenceError."""
        return metadata_of(
            self._ask(METHODS["ModelMetadata"].path, oip.ModelMetadataRequest(name=model, version=version))
        )

    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the gateway, or a model of it, serves. Raises InferenceError: there is no such model or gateway."""
        if model:
            answer = self._ask(METHODS["ModelReady"].path, oip.ModelReadyRequest(name=model, version=version))
            return bool(oip.ModelReadyResponse.FromString(answer).ready)
        return bool(
            oip.ServerReadyResponse.FromString(self._ask(METHODS["ServerReady"].path, oip.ServerReadyRequest())).ready
        )

    def region(self, nbytes: int) -> Region:
        """Memory of that many bytes, for arrays of which only the place is sent.

        Where the gateway shares none (over TCP, or beyond its limits) the region is memory of this process, its arrays
        travel as any others do, and ``Region.reason`` says why.

        >>> with client.region(480 * 640 * 3) as region:
        ...     frame = region.array((480, 640, 3), np.uint8)
        ...     camera.read_into(frame)
        ...     client.infer("digits", {"frame": frame})

        Raises:
            InferenceError: there is no gateway.
        """
        try:
            answer: bytes = Retrying(**again(self._deadline))(
                self._ask, CREATE.path, regions_pb2.CreateRegionRequest(byte_size=nbytes)
            )
        except InferenceError as refused:
            if refused.code not in NOT_SHARED:
                raise
            return Region(nbytes, reason=str(refused))
        created = CREATE.response.FromString(answer)
        region = attach(nbytes, created, self.address)
        return self._regions.add(region)

    def _ask(self, rpc: str, request: Any) -> bytes:
        try:
            answer: bytes = self._channel.unary_unary(rpc)(request.SerializeToString(), timeout=self._deadline)
        except grpc.RpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return answer

    def close(self) -> None:
        """End the connection and let go of regions; calls under way are cancelled."""
        self._regions.close()
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.address}>"
