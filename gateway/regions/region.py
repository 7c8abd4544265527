"""Region: memory that a client shares with the gateway's workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from gateway.errors import InvalidRequest

MAX_INT = (1 << 63) - 1
"""Largest number that the kernel takes for a place in a file."""


class Region:
    """One region: bytes ``offset`` to ``offset + nbytes`` of an open file. The gateway never maps it or reads from it;
    it hands the descriptor on to workers.

    It ends (descriptor closed, workers told) when it was retired and no request uses it any more. A run that nobody
    waits for may go on using it in the worker, which has a descriptor of its own.
    """

    __slots__ = (
        "_ended",
        "_on_end",
        "fd",
        "holders",
        "key",
        "name",
        "nbytes",
        "number",
        "offset",
        "retired",
        "sealed",
        "users",
    )

    def __init__(
        self,
        number: int,
        name: str,
        key: str,
        offset: int,
        nbytes: int,
        fd: int,
        sealed: bool,
        on_end: Callable[[Region], None],
    ) -> None:
        """``key``: its name in /dev/shm, empty for one that the gateway made. ``sealed``: it can't shrink."""
        self.number = number
        self.name = name
        self.key = key
        self.offset = offset
        self.nbytes = nbytes
        self.fd = fd
        self.sealed = sealed
        self.users = 0
        self.holders: set[Callable[[int], None]] = set()
        """Called with the number when it ends: links whose workers have it open."""
        self._on_end = on_end
        self.retired = False
        """No request may begin to use it any more."""
        self._ended = False

    def span(self, offset: int, nbytes: int) -> RegionSpan:
        """A piece of it; ``offset`` from its beginning.

        Raises:
            InvalidRequest: not all of it lies in the region.
        """
        if not within(offset, nbytes, self.nbytes):
            raise InvalidRequest(f"region {self.name!r} has {self.nbytes} bytes, got {nbytes} from offset {offset} on")
        return RegionSpan(self, self.offset + offset, nbytes)

    def enter(self) -> None:
        """A request uses it."""
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        self._end_if_unused()

    def retire(self) -> None:
        self.retired = True
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self.retired and not self.users and not self._ended:
            self._ended = True
            os.close(self.fd)
            holders, self.holders = self.holders, set()
            for drop in holders:
                drop(self.number)
            self._on_end(self)

    def __repr__(self) -> str:
        kind = "sealed" if self.sealed else "named"
        state = ", ended" if self._ended else ", retired" if self.retired else ""
        return f"<Region {self.number} {kind} {self.nbytes >> 10} kB, {self.users} users{state}>"


class RegionSpan(NamedTuple):
    """Where a tensor lies. It stands where else the tensor's bytes would."""

    region: Region
    offset: int
    """Bytes from the beginning of the region's file."""
    nbytes: int

    def read(self) -> bytes:
        """A copy of the bytes, as many as are there. For fingerprints of requests that have killed workers only."""
        return os.pread(self.region.fd, self.nbytes, self.offset)


def within(offset: int, nbytes: int, size: int) -> bool:
    """Whether ``nbytes`` from ``offset`` on lie within ``size`` bytes; any integers."""
    return 0 <= offset <= size and 0 <= nbytes <= size - offset
