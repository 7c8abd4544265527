"""The control service, on the control listener only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message

from edgeway.v1 import control_pb2 as control
from gateway.errors import EdgewayError, NotOffered
from gateway.front.inference import message_handler
from gateway.front.ports import Operations
from gateway.front.status import abort

SERVICE = "edgeway.v1.Control"


class ControlService:
    """edgeway.v1.Control over the operations that the gateway offers."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def handlers(self) -> grpc.GenericRpcHandler:
        """To be added to a grpc.aio server."""
        table = {
            name: message_handler(method.request, getattr(self, f"_{name}", self._not_offered))
            for name, method in control.SERVICES[SERVICE].items()
            if not method.response_streaming
        }
        table["WatchEvents"] = grpc.unary_stream_rpc_method_handler(self._watch_events)
        return grpc.method_handlers_generic_handler(SERVICE, table)

    async def _Apply(self, request: Any, context: Any) -> Message:  # noqa: N802 - the RPC's name
        return await self._operations.apply(list(request.manifests), list(request.signed))

    async def _Delete(self, request: Any, context: Any) -> Message:  # noqa: N802
        return await self._operations.delete(request.name, request.version)

    async def _GetDeployments(self, request: Any, context: Any) -> Message:  # noqa: N802
        return self._operations.get_deployments(request.name)

    async def _GetTargets(self, request: Any, context: Any) -> Message:  # noqa: N802
        return self._operations.get_targets(request.name)

    async def _GetAccelerators(self, request: Any, context: Any) -> Message:  # noqa: N802
        return self._operations.get_accelerators(request.name)

    async def _GetEvents(self, request: Any, context: Any) -> Message:  # noqa: N802
        return self._operations.get_events(request.name)

    async def _Promote(self, request: Any, context: Any) -> Message:  # noqa: N802
        return await self._operations.promote(request.name, request.version)

    async def _Rollback(self, request: Any, context: Any) -> Message:  # noqa: N802
        return await self._operations.roll_back(request.name, request.to)

    async def _SetTraffic(self, request: Any, context: Any) -> Message:  # noqa: N802
        return await self._operations.set_traffic(request.name, dict(request.percent))

    async def _Drain(self, request: Any, context: Any) -> Message:  # noqa: N802
        self._operations.drain()
        return control.DrainResponse()

    async def _Feedback(self, request: Any, context: Any) -> Message:  # noqa: N802
        return await self._operations.feedback(request.name, request.request_id, request.label)

    async def _not_offered(self, request: Any, context: Any) -> Message:
        raise NotOffered(f"{type(request).__name__.removesuffix('Request')} is not offered yet")

    async def _watch_events(self, content: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            after = control.WatchEventsRequest.FromString(content).after
            async for event in self._operations.watch_events(after):
                yield event.SerializeToString()
        except EdgewayError as error:
            await abort(context, error)
