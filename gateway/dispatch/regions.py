"""The regions that one link's worker has open."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from edgeway import frames
from gateway.regions.placement import Placement
from gateway.regions.region import Region


class LinkRegions:
    """Tells a worker of regions when a run needs them for the first time, and of their end. So a worker that was
    replaced, or is disposable, gets them as well.
    """

    def __init__(self, send: Callable[[bytes, Sequence[int]], None]) -> None:
        """``send`` takes a frame, and descriptors that it closes."""
        self._send = send
        self._told: dict[int, Region] = {}

    def infer(self, frame: bytes, placement: Placement) -> None:
        """Send the INFER of a run, tensors of which lie in regions. Raises OSError: there is no descriptor left."""
        for region in placement.regions():
            if region.number not in self._told:
                fd, size = os.dup(region.fd), region.offset + region.nbytes
                self._told[region.number] = region
                region.holders.add(self._drop)
                self._send(frames.pack_region(region.number, size, region.sealed), (fd,))
        token = () if placement.token is None else (os.dup(placement.token),)
        self._send(placement.packed + frame, token)

    def close(self) -> None:
        """The link is gone, and the worker with it."""
        for region in self._told.values():
            region.holders.discard(self._drop)
        self._told.clear()

    def _drop(self, number: int) -> None:
        if self._told.pop(number, None) is not None:
            self._send(frames.pack_drop_region(number), ())

    def __len__(self) -> int:
        return len(self._told)
