"""Engines that were built of models, kept for the next start: the right one for this model on this device, or none.

An entry is a folder, named by a digest of all that its engine was built of and for. Its ``manifest.json`` repeats that
and lists the files with their digests, and is written last. A build has a folder of its own until it is whole, which
is then renamed; so at every instant, after a power cut too, an entry is whole or is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

MANIFEST = "manifest.json"
_BUILDING = "building-"
_LOCK = ".lock"
_FORMAT = 1


@dataclass(frozen=True)
class Origin:
    """All that an engine was built of and for. With anything else, it is another engine."""

    model: str
    """SHA-256 of the model's bytes, and of its external data."""
    device: str
    """Name as the driver has it."""
    capability: str
    """Compute capability: ``8.7``."""
    memory: int
    """Bytes that the device has: what fits decides how it is built."""
    driver: str
    libraries: Mapping[str, str]
    """Version of each library that builds or runs it, by name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """All that it was told: precision, shapes, limits."""

    def key(self) -> str:
        """64 hex digits; equal for equal origins only."""
        return hashlib.sha256(self.text().encode("ascii")).hexdigest()

    def text(self) -> str:
        """The same for the same, whatever the order in which things were said."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True, separators=(",", ":"))


def model_digest(content: bytes, external: Mapping[str, bytes]) -> str:
    """Of a model's bytes and those of the files that it names."""
    parts = [hashlib.sha256(content).hexdigest()]
    parts += [f"{name!r}:{hashlib.sha256(external[name]).hexdigest()}" for name in sorted(external)]
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Entry(NamedTuple):
    """One folder of the cache."""

    name: str
    size: int
    used: float
    """When it was last used; any clock."""


def outgoing(entries: Sequence[Entry], limit: int, keep: Optional[str] = None) -> List[str]:
    """Names of entries that must go so that the rest have at most ``limit`` bytes: those not used for longest first,
    ``keep`` never.
    """
    excess = sum(entry.size for entry in entries) - limit
    gone: List[str] = []
    for entry in sorted(entries, key=lambda entry: (entry.used, entry.name)):
        if excess <= 0:
            break
        if entry.name != keep:
            gone.append(entry.name)
            excess -= entry.size
    return gone


def fault(manifest: Any, origin: Origin, found: Mapping[str, Tuple[int, str]]) -> str:
    """Why an entry must not be used; empty: it may.

    Args:
        manifest: as read from the entry.
        origin: of what is wanted.
        found: size and SHA-256 of each file that is there, the manifest aside.
    """
    if not isinstance(manifest, dict) or manifest.get("origin") != json.loads(origin.text()):
        return "it was built of or for something else"
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        return "its manifest lists no files"
    for name, listed in files.items():
        if name not in found:
            return f"{name} is missing"
        if list(found[name]) != listed:
            return f"{name} is not what was built"
    return ""


class EngineCache:
    """Entries in one folder, which belongs to one worker. ``<EngineCache 2 entries>``"""

    def __init__(self, root: str, limit: int) -> None:
        """``limit``: bytes of all entries together; the newest one may be larger by itself."""
        self._root = root
        self._limit = limit
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._sweep()

    def find(self, origin: Origin) -> Optional[str]:
        """Folder of the engine that was built of and for exactly this; None: it must be built. What was there under
        that name and may not be used is removed.
        """
        folder = os.path.join(self._root, origin.key())
        if not os.path.isdir(folder):
            return None
        if fault(_read_manifest(folder), origin, _files(folder)):
            self._remove(origin.key())
            return None
        os.utime(os.path.join(folder, MANIFEST))
        return folder

    def begin(self, origin: Origin) -> Build:
        """An empty folder to build in. Others may build the same: the first that is whole stays."""
        return Build(self, origin, tempfile.mkdtemp(prefix=_BUILDING, dir=self._root))

    def entries(self) -> List[Entry]:
        return [
            Entry(name, _size(os.path.join(self._root, name)), _used(os.path.join(self._root, name)))
            for name in os.listdir(self._root)
            if not name.startswith(_BUILDING) and os.path.isdir(os.path.join(self._root, name))
        ]

    def shared(self, name: str, facts: Mapping[str, Any]) -> str:
        """A folder for what all builds under the same facts may share and check themselves: timings. Counted as an
        entry.
        """
        told = json.dumps(facts, sort_keys=True).encode()
        folder = os.path.join(self._root, f"{name}-{hashlib.sha256(told).hexdigest()[:16]}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.utime(folder)
        return folder

    def keep(self, folder: str, name: str) -> str:
        """A build that is whole takes its place; the folder that is to be used from now on."""
        place = os.path.join(self._root, name)
        try:
            os.rename(folder, place)
        except OSError:  # another process was quicker: what it built is whole too, or it would not be there
            shutil.rmtree(folder, ignore_errors=True)
        _sync(self._root)
        for old in outgoing(self.entries(), self._limit, keep=name):
            self._remove(old)
        return place

    def _remove(self, name: str) -> None:
        """Out of its place in one step: a folder of which half is gone must not stand there."""
        away = tempfile.mkdtemp(prefix=_BUILDING, dir=self._root)
        with contextlib.suppress(OSError):  # another process was quicker
            os.rename(os.path.join(self._root, name), os.path.join(away, "old"))
        shutil.rmtree(away, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes left that died while they built."""
        for name in os.listdir(self._root):
            folder = os.path.join(self._root, name)
            if name.startswith(_BUILDING) and _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def __repr__(self) -> str:
        return f"<EngineCache {len(self.entries())} entries>"


class Build:
    """A folder in which an engine is built, by this process alone."""

    def __init__(self, cache: EngineCache, origin: Origin, folder: str) -> None:
        self.folder = folder
        self._cache = cache
        self._origin = origin
        self._lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def commit(self) -> str:
        """What lies in the folder is the engine, whole. Returns the folder where it is from now on.

        Raises:
            OSError: the disk is full, or fails; there is no entry then.
        """
        files = _files(self.folder)
        for name in files:
            _sync(os.path.join(self.folder, name))
        manifest = {
            "origin": json.loads(self._origin.text()),
            "files": {name: list(found) for name, found in files.items()},
        }
        _write(os.path.join(self.folder, MANIFEST), json.dumps(manifest, indent=1, sort_keys=True).encode())
        self._unlock()
        return self._cache.keep(self.folder, self._origin.key())

    def discard(self) -> None:
        """It came to nothing."""
        self._unlock()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _abandoned(folder: str) -> bool:
    """Whether nobody builds there: whoever does holds the lock, and a lock dies with its process."""
    try:
        fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # none yet, for a moment, or ever: one that is older than a moment
        return not _recent(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _recent(folder: str, seconds: float = 60.0) -> bool:
    try:
        return os.stat(folder).st_mtime > time.time() - seconds
    except OSError:
        return False


def _read_manifest(folder: str) -> Any:
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            return json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None


def _files(folder: str) -> Dict[str, Tuple[int, str]]:
    """Size and SHA-256 of each file in it, but for those of the cache itself. Links and folders are no files."""
    found: Dict[str, Tuple[int, str]] = {}
    for entry in os.scandir(folder):
        if entry.name not in (MANIFEST, MANIFEST + ".new", _LOCK) and entry.is_file(follow_symlinks=False):
            digest, size = hashlib.sha256(), 0
            with open(entry.path, "rb") as file:
                for chunk in iter(lambda: file.read(1 << 20), b""):
                    digest.update(chunk)
                    size += len(chunk)
            found[entry.name] = size, digest.hexdigest()
    return found


def _write(path: str, content: bytes) -> None:
    """Whole or not at all, also after a power cut."""
    with open(path + ".new", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    _sync(os.path.dirname(path))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _size(folder: str) -> int:
    return sum(_stat_size(os.path.join(folder, name)) for name in _listed(folder))


def _stat_size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _used(folder: str) -> float:
    for path in (os.path.join(folder, MANIFEST), folder):
        try:
            return os.stat(path).st_mtime
        except OSError:
            continue
    return 0.0


def _listed(folder: str) -> Iterable[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return ()
