"""``file:``: a path on this device."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from gateway.models.sources.uris import masked
from gateway.models.store import ArtifactRefused


class FileSource:
    """A regular file. Links are followed: who may write the manifest may name any path."""

    def __init__(self, uri: str) -> None:
        """Raises ArtifactRefused."""
        self._path = local_path(uri)

    def open(self, offset: int, validator: str) -> FileDownload:
        try:
            file = open_regular(self._path)
        except OSError as failed:
            raise ArtifactRefused(f"{self._path.name}: {failed.strerror}") from failed
        return FileDownload(file, self._path.name, offset, validator)


class FileDownload:
    """An open file."""

    def __init__(self, file: BinaryIO, name: str, offset: int, validator: str) -> None:
        status = os.fstat(file.fileno())
        self._file = file
        self._name = name
        self.size: int | None = status.st_size
        self.validator = f"{status.st_dev} {status.st_ino} {status.st_mtime_ns} {status.st_size}"
        self.start = offset if validator == self.validator else 0
        file.seek(self.start)

    def read(self, most: int) -> bytes:
        try:
            return self._file.read(most)
        except OSError as failed:
            raise ArtifactRefused(f"{self._name}: {failed.strerror}") from failed

    def abort(self) -> None:
        """Reading a regular file always ends by itself."""

    def close(self) -> None:
        self._file.close()


def local_path(uri: str) -> Path:
    """The absolute path that a ``file:`` URI names.

    Raises:
        ArtifactRefused: another host, or a relative path.
    """
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ArtifactRefused(f"{masked(uri)}: a file: URI names a path on this device, not a host")
    path = Path(unquote(parts.path))
    if not path.is_absolute() or "\0" in str(path):
        raise ArtifactRefused(f"{masked(uri)}: the path must be absolute by now")
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open for reading; a FIFO or a device would block for ever or never end.

    Raises:
        ArtifactRefused: it is no regular file.
        OSError
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ArtifactRefused(f"{path.name} is not a regular file")
    return os.fdopen(fd, "rb")
