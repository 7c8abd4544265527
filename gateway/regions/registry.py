"""Regions: all that is shared, by name, within the limits of the device."""

from __future__ import annotations

import fcntl
import os
import secrets

from gateway.errors import AlreadyExists, InvalidRequest, NotFound, Shed
from gateway.regions.files import open_key
from gateway.regions.region import MAX_INT, Region

MAX_REGIONS = 256
"""Each costs a descriptor here and one in each worker that has used it."""
LONGEST_NAME = 256
MADE = "edgeway:"
"""How names of regions begin that the gateway made; nobody can register one."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Regions:
    """The regions of all clients. Those that clients registered stay until they are unregistered; those that the
    gateway made are their maker's lease.
    """

    def __init__(self, max_bytes: int, max_regions: int = MAX_REGIONS) -> None:
        self._max_bytes = max_bytes
        self._max_regions = max_regions
        self._by_name: dict[str, Region] = {}
        self._numbers = 0
        self._bytes = 0
        self._count = 0

    @property
    def bytes(self) -> int:
        """Of all regions, those included that are still used although their client has let go of them."""
        return self._bytes

    def register(self, name: str, key: str, offset: int, nbytes: int, group: int) -> Region:
        """Take a file in /dev/shm, see ``open_key``.

        Raises:
            InvalidRequest: the name, the range or the file won't do.
            AlreadyExists: the name is taken.
            Shed: too many regions, or bytes.
        """
        if not name or len(name) > LONGEST_NAME or "\0" in name or name.startswith(MADE):
            raise InvalidRequest(
                f"region name: expected 1 to {LONGEST_NAME} characters, not beginning with {MADE}, got {name!r:.80}"
            )
        if name in self._by_name:
            raise AlreadyExists(f"region {name!r} is registered already")
        if not 0 < nbytes <= MAX_INT or not 0 <= offset <= MAX_INT - nbytes:
            raise InvalidRequest(f"region {name!r}: expected a range of a file, got {nbytes} bytes from {offset} on")
        self._make_room(nbytes)
        fd = open_key(key, offset, nbytes, group)
        return self._add(name, key, offset, nbytes, fd, sealed=False)

    def create(self, nbytes: int) -> Region:
        """Make a region of memory that can't shrink, with a name that can't be guessed.

        Raises:
            InvalidRequest: 0 bytes.
            Shed: too many regions, or bytes.
        """
        if nbytes <= 0:
            raise InvalidRequest(f"byte_size: expected at least 1, got {nbytes}")
        self._make_room(nbytes)
        fd = os.memfd_create("edgeway-region", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, nbytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return self._add(MADE + secrets.token_hex(16), "", 0, nbytes, fd, sealed=True)

    def find(self, name: str) -> Region:
        """Raises NotFound."""
        region = self._by_name.get(name)
        if region is None:
            raise NotFound(f"region {name!r} is not registered")
        return region

    def registered(self, name: str = "") -> list[Region]:
        """That of this name, or all that clients have registered.

        Raises:
            NotFound: there is none of this name.
        """
        if name:
            region = self._by_name.get(name)
            if region is None or not region.key:
                raise NotFound(f"region {name!r} is not registered")
            return [region]
        return [region for region in self._by_name.values() if region.key]

    def unregister(self, name: str = "") -> None:
        """Let go of that of this name, or of all that clients have registered; no complaint if there is none."""
        for region in [r for r in self._by_name.values() if r.key and name in ("", r.name)]:
            self.end(region)

    def end(self, region: Region) -> None:
        """Nobody may begin to use it any more. Its memory is free when the last one has ended."""
        if self._by_name.get(region.name) is region:
            del self._by_name[region.name]
            region.retire()

    def close(self) -> None:
        """Let go of all."""
        for region in list(self._by_name.values()):
            self.end(region)

    def _make_room(self, nbytes: int) -> None:
        if self._count >= self._max_regions:
            raise Shed(f"there are {self._count} regions already, which is the limit")
        if self._bytes + nbytes > self._max_bytes:
            raise Shed(
                f"sharedMemory.maxMB allows {self._max_bytes} bytes of regions, of which {self._bytes} are in use; "
                f"got {nbytes}"
            )

    def _add(self, name: str, key: str, offset: int, nbytes: int, fd: int, sealed: bool) -> Region:
        self._numbers += 1
        region = self._by_name[name] = Region(self._numbers, name, key, offset, nbytes, fd, sealed, self._ended)
        self._bytes += nbytes
        self._count += 1
        return region

    def _ended(self, region: Region) -> None:
        self._bytes -= region.nbytes
        self._count -= 1

    def __repr__(self) -> str:
        return f"<Regions {self._count}, {self._bytes >> 20} of {self._max_bytes >> 20} MB>"
