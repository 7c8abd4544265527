"""A tensor in shared memory: POSIX, as any Triton-like server takes it, or sealed, as the gateway makes it."""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import Case
from benchmarks.bench.figures import NotMeasured
from edgeway.client import Client

_SHM = Path("/dev/shm")


@dataclass(frozen=True)
class Region:
    """``key``: its name in /dev/shm, with a slash; ``name``: the one under which it is registered."""

    name: str
    key: str
    nbytes: int

    @classmethod
    @contextlib.contextmanager
    def holding(cls, case: Case) -> Iterator[Region]:
        """A region of whole pages that begins with the case's tensor; gone afterwards."""
        name = f"edgeway-bench-{os.getpid()}-{case.name}"
        size = -(-case.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.open(_SHM / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, size)
            with mmap.mmap(fd, size) as memory:
                memory[: case.nbytes] = case.array().tobytes()
            yield cls(name, f"/{name}", size)
        finally:
            os.close(fd)
            (_SHM / name).unlink()


@contextlib.contextmanager
def sealed(address: str, case: Case) -> Iterator[str]:
    """Name of a region that the gateway has made, which begins with the case's tensor.

    Raises:
        NotMeasured: the gateway makes none.
    """
    if importlib.util.find_spec("edgeway.client.region") is None:
        raise NotMeasured("not offered: the client asks for no memory of the gateway's")
    client: Any = Client(address)
    with client, client.region(case.nbytes) as region:
        if not region.shared:
            raise NotMeasured(f"not offered: {region.reason}")
        tensor = case.array()
        region.array(tensor.shape, tensor.dtype)[...] = tensor
        yield region.name
