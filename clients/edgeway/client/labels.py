"""Labels, AsyncLabels: what the right answers would have been, told later."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from edgeway.client.channel import OPTIONS, target
from edgeway.client.errors import error_of
from edgeway.places import control_address
from edgeway.v1 import control_pb2 as control

_FEEDBACK = control.SERVICES["edgeway.v1.Control"]["Feedback"]


@dataclass(frozen=True)
class Verdict:
    """What a label said of an answer that was given before."""

    version: str
    """That had answered."""
    predicted: str
    """The label that its answer meant."""
    right: bool


class Labels:
    """A connection to a gateway's control socket, for labels. Threads may share it.

    >>> client.infer("digits", {"frame": frame}, request_id="frame-17")
    >>> with Labels() as labels:
    ...     labels.send("digits", "frame-17", "7").right
    """

    def __init__(self, address: str | None = None, *, deadline_ms: float = 5000) -> None:
        """``address``: ``unix:/path`` or ``host:port``; None: the control socket in the runtime directory."""
        self.address = address or control_address()
        self._deadline = deadline_ms / 1e3
        self._channel = grpc.insecure_channel(target(self.address), OPTIONS)
        self._send: Any = self._channel.unary_unary(_FEEDBACK.path)

    def send(self, model: str, request_id: str, label: str) -> Verdict:
        """Tell what the answer to this request should have been; a second label for it takes the place of the first.

        Raises:
            NotFound: no answer of this id is remembered.
            InferenceError: its ``code`` is FAILED_PRECONDITION where the model's outputs are none that a label could be
                compared with.
        """
        try:
            answer = self._send(_request(model, request_id, label), timeout=self._deadline)
        except grpc.RpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return _verdict(answer)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Labels:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncLabels:
    """As ``Labels``, for asyncio."""

    def __init__(self, address: str | None = None, *, deadline_ms: float = 5000) -> None:
        self.address = address or control_address()
        self._deadline = deadline_ms / 1e3
        self._channel = grpc.aio.insecure_channel(target(self.address), OPTIONS)
        self._send: Any = self._channel.unary_unary(_FEEDBACK.path)

    async def send(self, model: str, request_id: str, label: str) -> Verdict:
        """As ``Labels.send``."""
        try:
            answer = await self._send(_request(model, request_id, label), timeout=self._deadline)
        except grpc.aio.AioRpcError as failed:
            raise error_of(failed.code(), failed.details(), failed.trailing_metadata(), self.address) from None
        return _verdict(answer)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> AsyncLabels:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _request(model: str, request_id: str, label: str) -> bytes:
    return control.FeedbackRequest(name=model, request_id=request_id, label=label).SerializeToString()


def _verdict(answer: bytes) -> Verdict:
    told = control.FeedbackResponse.FromString(answer)
    return Verdict(told.version, told.predicted, told.right)
