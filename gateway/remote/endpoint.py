"""The gRPC side of a remote target: one channel to one endpoint of the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from edgeway.v1 import open_inference_pb2 as oip
from gateway.errors import Code
from gateway.remote.failure import NotServing, RemoteFailure
from gateway.remote.options import RemoteOptions, RemoteTls
from gateway.request import Signature, TensorSpec

_SERVICE = "inference.GRPCInferenceService"
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""HealthCheckResponses, whole."""
_BESIDE = 1 << 20
"""Bytes that a message may have beside its tensors."""
_LONGEST_TEXT = 300
_CONNECTING = re.compile(r"^failed to connect to all addresses; last error: [A-Z_]+: (?:(?:ipv[46]|unix):\S+: )?")
"""How gRPC begins to say why there is no connection; the URL stands before it anyway."""


class Endpoint:
    """Calls one endpoint. All failures are ``RemoteFailure``; a new channel is made for each connection, so that what
    gRPC remembers of failed ones does not hold up the next.
    """

    def __init__(self, options: RemoteOptions, max_bytes: int) -> None:
        """Raises RemoteFailure: a file of ``tls`` can't be used."""
        self._options = options
        settings: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", max_bytes + _BESIDE),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),  # dispatch decides who gets a request next
        ]
        if options.tls is None:
            self._channel = aio.insecure_channel(options.url, settings)
        else:
            if options.tls.server_name:
                settings.append(("grpc.ssl_target_name_override", options.tls.server_name))
            self._channel = aio.secure_channel(options.url, _credentials(options.tls), settings)
        self._infer: Any = self._channel.unary_unary(f"/{_SERVICE}/ModelInfer")
        self._health: Any = self._channel.unary_unary(_HEALTH)
        self._speaks_health = True

    async def introduce(self, seconds: float) -> str:
        """Connect; what it calls itself. Raises RemoteFailure, NotServing."""
        await self.check(seconds)
        try:
            said = await self._ask("ServerMetadata", oip.ServerMetadataRequest(), seconds)
        except RemoteFailure as failed:
            if failed.gone:
                raise
            return ""
        return f"{said.name} {said.version}".strip()

    async def check(self, seconds: float) -> None:
        """Whether it takes work. Raises RemoteFailure, NotServing."""
        if self._speaks_health:
            try:
                said = await self._call(self._health, b"", seconds)
            except RemoteFailure as failed:
                if failed.code not in (Code.UNIMPLEMENTED, Code.NOT_FOUND):
                    raise
                self._speaks_health = False
            else:
                if said.startswith(_SERVING):
                    return
                raise NotServing("it says that it is not serving")
        if not (await self._ask("ServerReady", oip.ServerReadyRequest(), seconds)).ready:
            raise NotServing("it says that it is not ready")

    async def model(self, name: str, version: str, seconds: float) -> Signature:
        """What a model of it takes and gives. Raises RemoteFailure, NotServing: the model is not ready."""
        if not (await self._ask("ModelReady", oip.ModelReadyRequest(name=name, version=version), seconds)).ready:
            raise NotServing(f"it says that model {name} is not ready")
        said = await self._ask("ModelMetadata", oip.ModelMetadataRequest(name=name, version=version), seconds)
        return Signature(said.platform, _specs(said.inputs), _specs(said.outputs))

    async def infer(self, message: bytes, seconds: float, metadata: Sequence[tuple[str, str]]) -> bytes:
        """A ModelInferResponse. Raises RemoteFailure. Cancelling this cancels the call."""
        return await self._call(self._infer, message, seconds, metadata)

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, method: str, message: Any, seconds: float) -> Any:
        rpc: Any = self._channel.unary_unary(f"/{_SERVICE}/{method}")
        content = await self._call(rpc, message.SerializeToString(), seconds)
        try:
            return oip.SERVICES[_SERVICE][method].response.FromString(content)
        except DecodeError as malformed:
            raise RemoteFailure(Code.INTERNAL, f"its answer to {method} is malformed: {malformed}") from malformed

    async def _call(
        self, rpc: Any, content: bytes, seconds: float, metadata: Sequence[tuple[str, str]] | None = None
    ) -> bytes:
        try:
            answer: bytes = await rpc(content, timeout=seconds, metadata=metadata)
        except aio.AioRpcError as failed:
            raise RemoteFailure(failed.code().value[0], _text(failed)) from None
        except asyncio.CancelledError:
            raise
        except (aio.UsageError, aio.InternalError, grpc.RpcError) as failed:  # the channel was closed meanwhile
            raise RemoteFailure(Code.UNAVAILABLE, str(failed)) from None
        return answer


def _text(failed: aio.AioRpcError) -> str:
    """What it says, in one line; the status where it says nothing."""
    text = " ".join((failed.details() or failed.code().name).split())
    text = _CONNECTING.sub("", text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _credentials(tls: RemoteTls) -> grpc.ChannelCredentials:
    try:
        ca, key, cert = (Path(name).read_bytes() if name else None for name in (tls.ca, tls.key, tls.cert))
    except OSError as failed:
        raise RemoteFailure(Code.FAILED_PRECONDITION, f"tls: {failed.filename}: {failed.strerror}") from None
    return grpc.ssl_channel_credentials(ca, key, cert)


def _specs(tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each.name, each.datatype, tuple(each.shape)) for each in tensors)
