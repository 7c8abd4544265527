"""A tensor in POSIX shared memory, as a camera process would hold it for any Triton-like server."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench.cases import Case

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
