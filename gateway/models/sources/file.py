"""``file:``: a path on this device."""

from __future__ import annotations

import os
from typing import BinaryIO

from gateway.models.artifact import ArtifactRefused
from gateway.models.files import local_path, open_regular


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

    def abort(self) -> None:
        """Opening a regular file waits for nobody."""


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
