"""grpc.health.v1, per model and for the whole gateway; reflection."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from edgeway.v1.pool import POOL
from gateway.front.ports import Lifecycle, Models

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_SERVICES = ("", "inference.GRPCInferenceService")


class Health:
    """Follows the catalog: a model serves while any allowed target can serve it."""

    def __init__(self, models: Models, lifecycle: Lifecycle) -> None:
        self._models = models
        self._lifecycle = lifecycle
        self._servicer = health.aio.HealthServicer()
        self._known: dict[str, bool] = {}
        self._update: asyncio.Task[None] | None = None
        self._stale = False
        self._unsubscribe = models.subscribe(self.refresh)

    def add_to(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def refresh(self) -> None:
        """Something may have changed; watchers hear of it in a moment."""
        self._stale = True
        if self._update is None or self._update.done():
            self._update = asyncio.create_task(self._publish())

    async def drain(self) -> None:
        """NOT_SERVING for everything, for good."""
        self._unsubscribe()
        await self._servicer.enter_graceful_shutdown()

    async def _publish(self) -> None:
        while self._stale:
            self._stale = False
            serving = dict(self._models.serving())
            for name in self._known.keys() - serving.keys():
                await self._servicer.set(name, _UNKNOWN)
            for name, now in serving.items():
                if self._known.get(name) is not now:
                    await self._servicer.set(name, _SERVING if now else _NOT_SERVING)
            for name in _SERVICES:
                await self._servicer.set(name, _SERVING if self._lifecycle.ready else _NOT_SERVING)
            self._known = serving


def add_reflection(server: grpc.aio.Server, services: tuple[str, ...]) -> None:
    """Let tools ask for the services' descriptors, which live in our own pool."""
    for module in (health_pb2, reflection_pb2):
        POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    names = (*services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=POOL)
