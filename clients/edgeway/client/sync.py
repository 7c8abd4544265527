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
from edgeway.client.errors import Late, Unavailable, error_of
from edgeway.client.message import Call, decode, encode, metadata_of
from edgeway.client.result import ModelMetadata, Result
from edgeway.places import inference_address
from edgeway.v1 import open_inference_pb2 as oip


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

        Raises:
            InferenceError: its subclass and ``code`` say what happened.
            ValueError: an input's dtype has no place in the protocol.
        """
        before, tensors = encode(model, inputs, outputs, version, request_id, priority, route_key, stream_key, degrade)
        budget = None if budget_ms is None else budget_ms / 1e3
        call = Call(before, tensors, budget, self._deadline if budget is None else budget)
        started = time.monotonic()
        try:
            message = self._attempt(call, started, metadata)
        except Unavailable as lost:
            left = call.deadline - (time.monotonic() - started)
            try:
                message = Retrying(**again(left))(self._attempt, call, started, metadata)
            except Late as late:
                if late.total_ms is None:  # nobody took the second try either: the first says why
                    raise lost from None
                raise
        return decode(message, time.monotonic() - started)

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
        return metadata_of(self._ask("ModelMetadata", oip.ModelMetadataRequest(name=model, version=version)))

    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the gateway, or a model of it, serves. Raises InferenceError: there is no such model or gateway."""
        if model:
            answer = self._ask("ModelReady", oip.ModelReadyRequest(name=model, version=version))
            return bool(oip.ModelReadyResponse.FromString(answer).ready)
        return bool(oip.ServerReadyResponse.FromString(self._ask("ServerReady", oip.ServerReadyRequest())).ready)

    def _ask(self, rpc: str, request: Any) -> bytes:
        try:
            answer: bytes = self._channel.unary_unary(METHODS[rpc].path)(
                request.SerializeToString(), timeout=self._deadline
            )
        except grpc.RpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return answer

    def close(self) -> None:
        """End the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.address}>"
