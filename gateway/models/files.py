"""Regular files of this device: opened without waiting, hashed, copied, made durable."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway.models.artifact import ArtifactRefused, Told, Wanted
from gateway.models.sources.uris import masked

_CHUNK = 1 << 20


def copy_local(wanted: Wanted, part: Path, told: Told) -> str:
    """Copy a file of this device; the hex digest.

    Raises:
        ArtifactRefused: it can't be read.
        OSError: the copy can't be written.
    """
    source = local_path(wanted.uri)
    try:
        opened = open_regular(source)
    except OSError as failed:
        raise ArtifactRefused(f"{source.name}: {failed.strerror}") from failed
    digest, done = hashlib.sha256(), 0
    with opened as file, part.open("wb") as copy:
        total = os.fstat(file.fileno()).st_size
        told(0, total)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
            done += len(chunk)
            told(done, total)
    return digest.hexdigest()


def local_path(uri: str) -> Path:
    """The absolute path that a ``file:`` URI names.

    Raises:
        ArtifactRefused: another scheme, another host, or a relative path.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise ArtifactRefused(f"{masked(uri)}: only file: URIs name a path")
    if parts.netloc not in ("", "localhost"):
        raise ArtifactRefused(f"{masked(uri)}: a file: URI names a path on this device, not a host")
    path = Path(unquote(parts.path))
    if not path.is_absolute() or "\0" in str(path):
        raise ArtifactRefused(f"{masked(uri)}: the path must be absolute by now")
    return path


def file_sha256(path: Path) -> str:
    """Hex digest of a regular file.

    Raises:
        ArtifactRefused: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as failed:
        raise ArtifactRefused(f"{path.name}: {failed.strerror}") from failed
    return digest.hexdigest()


def open_regular(path: Path) -> Any:
    """Open for reading; a FIFO or a device would block for ever or never end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ArtifactRefused(f"{path.name} is not a regular file")
    return os.fdopen(fd, "rb")


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: what was renamed is there after a power cut. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def settle(part: Path, digest: str) -> str:
    """Make the bytes durable and nobody's to change; gives back the digest. Raises OSError, ArtifactRefused."""
    fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_nlink != 1:
            raise ArtifactRefused(f"{part.name}: another file is linked to it")
        os.fsync(fd)
        os.fchmod(fd, 0o440)
    finally:
        os.close(fd)
    return digest


def write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def size_of(path: Path) -> int:
    try:
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else sum(size_of(file) for file in path.iterdir())
    except OSError:
        return 0
