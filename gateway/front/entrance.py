"""The entrance: what is served on which address, from binding to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.config import SharedMemoryClients
from gateway.errors import EdgewayError, NotOffered, Refused
from gateway.front.control import SERVICE as CONTROL_SERVICE
from gateway.front.control import ControlService
from gateway.front.health import Health, add_reflection
from gateway.front.inference import SERVICE as INFERENCE_SERVICE
from gateway.front.inference import InferenceService, region_handlers
from gateway.front.listeners import CantListen, Listener, bind
from gateway.front.ports import Handler, Lifecycle, Models, Operations, Recorder, Repository
from gateway.front.regions import RegionOffer
from gateway.regions.door import Door
from gateway.regions.registry import Regions
from gateway.settings import ServeSettings

_MB = 1 << 20


class Entrance:
    """All listeners, and beside those on Unix sockets the doors to shared memory."""

    def __init__(
        self,
        handler: Handler,
        recorder: Recorder,
        models: Models,
        lifecycle: Lifecycle,
        repository: Repository | None,
        operations: Operations,
        regions: Regions,
        version: str,
    ) -> None:
        self._handler = handler
        self._recorder = recorder
        self._models = models
        self._lifecycle = lifecycle
        self._repository = repository
        self._operations = operations
        self._regions = regions
        self._version = version
        self._listeners: list[Listener] = []
        self._doors: list[Door] = []
        self.health = Health(models, lifecycle)

    @property
    def addresses(self) -> list[str]:
        """As clients use them; that for operators is the last one."""
        return [listener.address for listener in self._listeners]

    def bind(self, settings: ServeSettings) -> None:
        """Take all addresses; nothing is served before ``publish``. Raises CantListen."""
        for address in settings.listen:
            listener = self._bind(address, 0o660, settings, settings.model_control == "explicit")
            if settings.reflection:
                add_reflection(listener.server, (INFERENCE_SERVICE,))
        control = self._bind(settings.control, 0o600, settings, True)
        control.server.add_generic_rpc_handlers((ControlService(self._operations).handlers(),))
        add_reflection(control.server, (INFERENCE_SERVICE, CONTROL_SERVICE))

    async def publish(self) -> None:
        for door in self._doors:
            door.publish()
        for listener in self._listeners:
            await listener.publish()

    async def drain(self, limit: float) -> None:
        """Health first, so that callers leave; then finish what is in flight, within so many seconds."""
        await self.health.drain()
        await asyncio.gather(*(listener.stop(limit) for listener in self._listeners))

    async def close(self) -> None:
        for door in self._doors:
            door.close()
        self._regions.close()
        for listener in self._listeners:
            await listener.stop(0)

    def _bind(self, address: str, mode: int, settings: ServeSettings, writable: bool) -> Listener:
        """``writable``: whether callers may load and unload models."""
        config = settings.config
        listener = bind(address, (config.limits.max_message_mb + 1) * _MB, mode, config.tls, settings.insecure)
        self._listeners.append(listener)
        offer = self._offer(settings.client_shared_memory, listener)
        service = InferenceService(
            self._handler,
            self._recorder,
            self._models,
            self._lifecycle,
            self._repository if writable else None,
            self._version,
            offer,
        )
        listener.server.add_generic_rpc_handlers((service.handlers(), region_handlers(offer)))
        self.health.add_to(listener.server)
        return listener

    def _offer(self, clients: SharedMemoryClients, listener: Listener) -> RegionOffer:
        """What the callers of a listener may do with shared memory. Raises CantListen: its door can't be bound."""
        refuse: Callable[[], EdgewayError] | None = None
        if clients == "off":
            refuse = partial(
                NotOffered, "shared memory of clients is off: see sharedMemory.clients of the device config"
            )
        elif clients == "unix" and listener.socket is None:
            refuse = partial(Refused, "shared memory is for callers on a Unix socket of this gateway")
        if refuse is not None or listener.socket is None:
            return RegionOffer(self._regions, listener.group, None, refuse)
        try:
            door = Door(listener.socket, listener.mode, self._regions)
        except OSError as failed:
            raise CantListen(f"{listener.address}.regions can't be bound: {failed}") from failed
        self._doors.append(door)
        return RegionOffer(self._regions, listener.group, door)
