"""Region: memory that a client shares with the workers, so that large tensors need not travel."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from numpy.typing import DTypeLike

from edgeway.v1 import regions_pb2

CREATE = regions_pb2.SERVICES["edgeway.v1.Regions"]["Create"]
NOT_SHARED = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""What a gateway answers that shares no memory with this caller, or no more of it."""
_ALIGNMENT = 64
_ATTACH_SECONDS = 2.0
_LONGEST_NAME = 256


class Region:
    """Memory from which arrays are taken. ``infer`` sees which of its arrays lie in a region, and sends only where.

    A worker looks at an input as it lies there: it must not change until the answer is there. Where the gateway shares
    no memory (``shared`` is False, ``reason`` says why), or no longer does because it was restarted, the arrays travel
    as any others do.
    """

    def __init__(
        self, nbytes: int, name: str = "", fd: int = -1, lease: socket.socket | None = None, reason: str = ""
    ) -> None:
        """Takes the descriptor and the lease; without them it is memory of this process."""
        self.nbytes = nbytes
        self.name = name
        self.reason = reason
        """Why it is not shared; empty if it is."""
        self._lease = lease
        self._used = 0
        try:
            self._memory = np.frombuffer(mmap.mmap(fd, nbytes), np.uint8)
        except BaseException:
            self.close()
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        self._begin = address_of(self._memory)

    @property
    def shared(self) -> bool:
        """Whether the gateway has it. It asks the kernel, which takes a microsecond."""
        if self._lease is None:
            return False
        try:
            alive = bool(self._lease.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            alive = True
        except OSError:
            alive = False
        if not alive:
            self.close()
            self.reason = "the gateway that shared it has ended"
        return alive

    def array(self, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        """A new array of the region's memory; its values are zeros, or what the memory was used for before.

        Raises:
            ValueError: there is not so much room left, or the dtype has no fixed size.
        """
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise ValueError(f"an array in a region needs a dtype of fixed size, got {kind}")
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        begin = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        nbytes = kind.itemsize
        for size in sizes:
            nbytes *= size
        if begin + nbytes > self.nbytes:
            raise ValueError(f"an array of {nbytes} bytes, but {max(0, self.nbytes - begin)} of {self.nbytes} are left")
        self._used = begin + nbytes
        return self._memory[begin : begin + nbytes].view(kind).reshape(sizes)

    def reset(self) -> None:
        """Take further arrays from the beginning again; those that were taken share their memory with them."""
        self._used = 0

    def offset_of(self, array: np.ndarray) -> int | None:
        """Where in the region the array lies, in one piece; None: it does not."""
        offset = address_of(array) - self._begin
        inside = 0 <= offset <= self.nbytes - array.nbytes and array.flags.c_contiguous
        return offset if inside and array.dtype.byteorder != ">" and not array.dtype.hasobject else None

    def close(self) -> None:
        """Share it no longer. Its arrays stay good, as memory of this process."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None
            self.reason = "it was closed"

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Region {self._used} of {self.nbytes} bytes used, {self.reason or 'shared'}>"


class OpenRegions:
    """The regions of one client."""

    def __init__(self) -> None:
        self._all: list[Region] = []

    def add(self, region: Region) -> Region:
        if not region.reason:
            self._all.append(region)
        return region

    def shared(self) -> list[Region]:
        """Those that the gateway has."""
        if self._all:
            self._all = [region for region in self._all if region.shared]
        return self._all

    def __len__(self) -> int:
        return len(self._all)

    def close(self) -> None:
        for region in self._all:
            region.close()


def place_of(regions: Sequence[Region], array: np.ndarray) -> tuple[Region, int] | None:
    """The region in which an array lies, and where."""
    for region in regions:
        offset = region.offset_of(array)
        if offset is not None:
            return region, offset
    return None


def address_of(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def attach(nbytes: int, created: Any, address: str) -> Region:
    """Fetch the memory of a region that the gateway has made (CreateRegionResponse); blocks for milliseconds.

    Where that fails, the region is memory of this process, and says why. ``address``: the gateway's; in a container its
    folder may have another name than the gateway's own.
    """
    path = created.address
    if address.startswith("unix:"):
        path = str(Path(address[len("unix:") :]).with_name(Path(path).name))
    lease = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        lease.settimeout(_ATTACH_SECONDS)
        lease.connect(path)
        lease.send(created.token)
        name, fds, _, _ = socket.recv_fds(lease, _LONGEST_NAME, 1)
    except OSError as failed:
        lease.close()
        return Region(nbytes, reason=f"its memory could not be fetched from {path}: {failed}")
    if len(fds) != 1 or name.decode("utf-8", "replace") != created.name:
        lease.close()
        for fd in fds:
            os.close(fd)
        return Region(nbytes, reason="the gateway took its offer back")
    os.set_inheritable(fds[0], False)
    lease.setblocking(False)
    return Region(nbytes, created.name, fds[0], lease)
