"""Shared memory of clients: who may offer it on a listener, and the RPCs to do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from edgeway.v1 import open_inference_pb2 as oip
from edgeway.v1 import regions_pb2
from gateway.errors import EdgewayError, NotOffered
from gateway.regions.door import Door
from gateway.regions.registry import Regions


@dataclass(frozen=True, slots=True)
class RegionOffer:
    """What the callers of one listener may do with shared memory."""

    regions: Regions
    group: Callable[[], int]
    """Members of this group, and the gateway's own user, are those who can call."""
    door: Door | None = None
    """Where clients get regions that the gateway makes; None: it makes none here."""
    refuse: Callable[[], EdgewayError] | None = None
    """Makes the error that says why these callers may not use it; None: they may."""

    def allowed(self) -> Regions:
        """Raises EdgewayError: these callers may not use shared memory."""
        if self.refuse is not None:
            raise self.refuse()
        return self.regions


class SystemSharedMemory:
    """The protocol's RPCs on regions in /dev/shm."""

    def __init__(self, offer: RegionOffer) -> None:
        self._offer = offer

    async def status(self, request: Any, context: Any) -> Message:
        response = oip.SystemSharedMemoryStatusResponse()
        for region in self._offer.allowed().registered(request.name):
            status = response.regions[region.name]
            status.name, status.key = region.name, region.key
            status.offset, status.byte_size = region.offset, region.nbytes
        return response

    async def register(self, request: Any, context: Any) -> Message:
        regions = self._offer.allowed()
        regions.register(request.name, request.key, request.offset, request.byte_size, self._offer.group())
        return oip.SystemSharedMemoryRegisterResponse()

    async def unregister(self, request: Any, context: Any) -> Message:
        self._offer.allowed().unregister(request.name)
        return oip.SystemSharedMemoryUnregisterResponse()


class MadeRegions:
    """edgeway.v1.Regions: memory that can't shrink, so that workers may look at it where it lies."""

    def __init__(self, offer: RegionOffer) -> None:
        self._offer = offer

    async def create(self, request: Any, context: Any) -> Message:
        self._offer.allowed()
        if self._offer.door is None:
            raise NotOffered("regions are made on Unix sockets of this gateway only")
        region, token = self._offer.door.create(request.byte_size)
        return regions_pb2.CreateRegionResponse(name=region.name, address=str(self._offer.door.path), token=token)
