"""The store: verified model files, under the state directory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_CHUNK = 1 << 20


Told = Callable[[int, int], None]
"""Is told of bytes had and bytes in all (0: not known), from the thread that fetches. What it raises ends the fetch."""


class ArtifactRefused(Exception):
    """The file can't be had, or is not what the manifest says. The message says which."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that a manifest names. ``name``: of external data, as the model names it."""

    uri: str
    sha256: str
    size: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file that was verified. ``suffix``: ``.onnx``."""

    path: Path
    sha256: str
    suffix: str
    external: tuple[tuple[str, str], ...] = ()
    """Name and SHA-256 of each file of external data, which lie beside ``path``."""


class Store:
    """Files under one state directory. Methods block: call them in a thread."""

    def __init__(self, root: Path) -> None:
        self._models = root / "models"

    def prepare(self) -> None:
        """Make the folder; sweep up what an interrupted write left."""
        self._models.mkdir(parents=True, exist_ok=True, mode=0o750)
        for leftover in self._models.glob("*.partial"):
            leftover.unlink(missing_ok=True)

    def fetch(self, wanted: Wanted, external: Sequence[Wanted], told: Told) -> Artifact:
        """Copy a file into the store, verified.

        The bytes that are hashed are the bytes that are stored: what changes afterwards at the source changes nothing.

        Raises:
            ArtifactRefused: unreadable, not a regular file, another checksum, no room.
        """
        uri, sha256 = wanted.uri, wanted.sha256
        source = local_path(uri)
        final = self._models / (sha256.lower() + source.suffix)
        if final.exists() and file_sha256(final) == sha256.lower():
            return Artifact(final, sha256.lower(), source.suffix)
        partial = final.with_name(final.name + ".partial")
        try:
            with _open_regular(source) as file, partial.open("wb") as copy:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    copy.write(chunk)
                    told(copy.tell(), wanted.size or 0)
                copy.flush()
                os.fsync(copy.fileno())
            if digest.hexdigest() != sha256.lower():
                raise ArtifactRefused(f"checksum mismatch: expected sha256:{sha256}, got sha256:{digest.hexdigest()}")
            partial.replace(final)
            _sync_folder(self._models)
        except OSError as failed:
            raise ArtifactRefused(f"{failed.filename or source.name}: {failed.strerror}") from failed
        finally:
            partial.unlink(missing_ok=True)
        return Artifact(final, sha256.lower(), source.suffix)

    def sweep(self, in_use: Callable[[str], bool]) -> None:
        """Delete model files that no accepted manifest names any more."""
        for path in self._models.iterdir():
            if path.suffix != ".partial" and not in_use(path.stem):
                path.unlink(missing_ok=True)


def local_path(uri: str) -> Path:
    """The absolute path that a ``file:`` URI names.

    Raises:
        ArtifactRefused: another scheme, another host, or a relative path.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise ArtifactRefused(f"{uri}: only file: URIs can be fetched by this gateway, got {parts.scheme or 'none'}:")
    if parts.netloc not in ("", "localhost"):
        raise ArtifactRefused(f"{uri}: a file: URI names a path on this device, not a host")
    path = Path(unquote(parts.path))
    if not path.is_absolute():
        raise ArtifactRefused(f"{uri}: the path must be absolute by now")
    return path


def file_sha256(path: Path) -> str:
    """Hex digest of a regular file.

    Raises:
        ArtifactRefused: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        with _open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as failed:
        raise ArtifactRefused(f"{path.name}: {failed.strerror}") from failed
    return digest.hexdigest()


def _open_regular(path: Path) -> Any:
    """Open for reading; a FIFO or a device would block for ever or never end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ArtifactRefused(f"{path.name} is not a regular file")
    return os.fdopen(fd, "rb")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
