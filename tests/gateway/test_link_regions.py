"""Regions on a link: told with the first run that needs them, dropped at their end, and no descriptor is left behind."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from pathlib import Path

import pytest

from edgeway import frames
from edgeway.frames import TensorPlace
from gateway.dispatch.link import Link
from gateway.errors import Shed
from gateway.plan import Plan
from gateway.regions.placement import Placement, Placing
from gateway.regions.region import Region
from gateway.regions.registry import Regions
from gateway.request import InputTensor


class Pair:
    """A link and the other end of its socket."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.setblocking(False)
        self.link = Link(ours, asyncio.get_running_loop(), lambda message: None, lambda why: None, 1 << 20)

    def infer(self, placement: Placement, tensor: InputTensor) -> None:
        size = tensor.data.nbytes
        tensors = frames.pack_tensors([TensorPlace(0, 2, (size,), 0, size)], [])
        plan = Plan(size, ((0, size),), frames.aligned(size), (), 64, True, (1, 0), tensors)
        self.link.infer(
            7, plan, [tensor], 64, start_by=1e9, expire_at=None, priority=5, hang_limit=60, placement=placement
        )

    def read(self) -> list[tuple[bytes, int]]:
        """Frames, with how many descriptors each had."""
        found = []
        while True:
            try:
                frame, ancillary, _, _ = self.theirs.recvmsg(frames.MAX_FRAME, socket.CMSG_SPACE(16))
            except BlockingIOError:
                return found
            fds = array.array("i", b"".join(data for _, _, data in ancillary))
            for fd in fds:
                os.close(fd)
            found.append((frame, len(fds)))

    def close(self) -> None:
        self.link.close("the end")
        self.theirs.close()


@pytest.fixture
async def pair():
    made = Pair()
    yield made
    made.close()


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_worker_hears_of_a_region_once_and_of_its_end(pair):
    regions = Regions(1 << 20)
    region = regions.create(4096)
    span = region.span(64, 100)
    before = opened()
    for _ in range(2):
        placement = Placement(Placing([(0, span)], {0: span}))
        pair.infer(placement, InputTensor("x", "UINT8", (100,), span))
        placement.close()
    kinds = [(frames.kind(frame), fds) for frame, fds in pair.read()]
    assert kinds == [(frames.SLOT, 1), (frames.REGION, 1), (frames.PLACES, 1), (frames.SLOT, 1), (frames.PLACES, 1)]
    assert opened() == before + 2  # the maps of two slots
    regions.end(region)
    assert [frame for frame, _ in pair.read()] == [frames.pack_drop_region(region.number)]


async def test_the_worker_that_takes_its_place_hears_of_it_as_well(pair):
    regions = Regions(1 << 20)
    region = regions.create(4096)
    span = region.span(0, 100)
    placement = Placement(Placing([(0, span)], {}))
    pair.infer(placement, InputTensor("x", "UINT8", (100,), span))
    pair.link.close("it died")
    assert not region.holders
    second = Pair()
    second.infer(placement, InputTensor("x", "UINT8", (100,), span))
    assert frames.REGION in [frames.kind(frame) for frame, _ in second.read()]
    second.close()
    regions.close()


async def test_a_descriptor_that_can_not_be_passed_on_costs_one_request_and_no_slot(pair):
    closed = Region(9, "r", "", 0, 4096, -1, True, lambda ended: None)
    span = closed.span(0, 100)
    placement = Placement(Placing([(0, span)], {}))
    for _ in range(3):
        with pytest.raises(Shed, match="descriptor"):
            pair.infer(placement, InputTensor("x", "UINT8", (100,), span))
    assert not closed.holders
    assert [frames.kind(frame) for frame, _ in pair.read()] == [frames.SLOT]  # it was given back each time
