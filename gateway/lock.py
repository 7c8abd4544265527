"""One gateway per socket and per state directory, by locks that the kernel releases with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another gateway holds the lock."""


def hold(path: Path, what: str) -> int:
    """Lock a file for the life of this process; returns its descriptor, which must stay open.

    Raises:
        AlreadyRunning: naming ``what`` is taken and by which process.
        OSError: the file can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise AlreadyRunning(f"{what} is in use by another gateway (process {pid})") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
