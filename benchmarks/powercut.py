"""A disk whose power can be cut: an ext4 file system in a file, shut down by its own ioctl."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)."""
_NO_LOG_FLUSH = struct.pack("I", 2)
"""The journal stays as it is, as when the power goes: what was not synced is lost."""


class NoDisk(Exception):
    """No such disk can be had here. The message says why."""


class Disk:
    """Mounted at ``at`` within the ``with`` block.

    Raises:
        NoDisk: not root, no loop device, no mkfs.ext4.
    """

    def __init__(self, image: Path, at: Path, megabytes: int = 32) -> None:
        self._image, self._at = image, at
        at.mkdir(exist_ok=True)
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        if os.geteuid() != 0:
            raise NoDisk("only root may mount a file system")
        if shutil.which("mkfs.ext4") is None:
            raise NoDisk("mkfs.ext4 is missing: apt install e2fsprogs")
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        self._mounted = False

    def cut(self) -> None:
        """From now on nothing reaches the disk."""
        fd = os.open(self._at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def mount(self) -> None:
        """With what the journal has."""
        _run("mount", "-o", "loop", str(self._image), str(self._at))
        self._mounted = True

    def unmount(self) -> None:
        """Nobody may have a file of it open."""
        if self._mounted:
            _run("umount", str(self._at))
            self._mounted = False

    def check(self) -> str:
        """What the file system check complains of; empty: nothing. Only while it is not mounted."""
        done = subprocess.run(["e2fsck", "-fn", str(self._image)], capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stdout

    def __enter__(self) -> Disk:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            _run("umount", "--lazy", str(self._at))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoDisk(f"{' '.join(command)}: {(done.stderr.splitlines() or [done.returncode])[0]}")
