"""Opens what a client names in /dev/shm, with no more rights than the client may have."""

from __future__ import annotations

import os
import stat

from gateway.errors import InvalidRequest
from gateway.regions.region import within

FOLDER = "/dev/shm"  # noqa: S108 - where the names of POSIX shared memory live
LONGEST_KEY = 255
"""Bytes of a file's name."""


def open_key(key: str, offset: int, nbytes: int, group: int) -> int:
    """A descriptor of the file that a client has named, open for reading and writing.

    gRPC does not say who calls, but who can: the gateway's own user, and members of the listener's ``group``. The file
    must be one that all of these may open by themselves, or else a caller could reach another user's memory through a
    gateway that runs as root: it belongs to the gateway's user and the group is the gateway's own, or its mode lets the
    group, or everybody, read and write.

    Args:
        key: name in /dev/shm, with or without one slash before it.
        offset: where the region begins in the file.
        nbytes: of the region.
        group: of the Unix socket on which the call came.

    Raises:
        InvalidRequest: no such file, no regular one, not the caller's to use, or too short. Which of the first three is
            not said: it would tell of other users' files.
    """
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > LONGEST_KEY:
        raise InvalidRequest(f"key: expected the name of a file in {FOLDER}, without a further slash, got {key!r:.80}")
    refusal = f"key {key!r}: expected a regular file in {FOLDER} that the callers of this listener may read and write"
    try:
        folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Not blocking: opening a pipe would wait for its other end.
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            fd = os.open(name, flags, dir_fd=folder)
            device = os.fstat(folder).st_dev
        finally:
            os.close(folder)
    except (OSError, ValueError) as failed:
        raise InvalidRequest(refusal) from failed
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_dev != device or not may_use(status, group):
            raise InvalidRequest(refusal)
        if not nbytes or not within(offset, nbytes, status.st_size):
            raise InvalidRequest(
                f"key {key!r} has {status.st_size} bytes, got a region of {nbytes} from offset {offset} on"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def may_use(status: os.stat_result, group: int) -> bool:
    """Whether everybody who can call may read and write the file."""
    mode, both = status.st_mode, stat.S_IROTH | stat.S_IWOTH
    if mode & both == both:
        return True
    both = stat.S_IRGRP | stat.S_IWGRP
    if status.st_gid == group and mode & both == both:
        return True
    return status.st_uid == os.geteuid() and group == os.getegid()
