"""Model files on disk, under the digest of their content: whole and verified, or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway.config import StoreSettings
from gateway.models.sources.uris import masked, suffix_of
from gateway.models.space import Item, free_room, no_room, to_go

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_LOOK_AGAIN = 1 << 20
"""Bytes after which a download looks again whether there is room: others write to the disk, too."""
_LISTED = ".listed"
"""In the folder of a model with external data: the digests of its files, by name. No file that a manifest lists can be
called so.
"""
_DIGEST = "[0-9a-f]{64}"
_FILE = re.compile(rf"{_DIGEST}(\.[A-Za-z0-9]{{1,16}})?")
_FOLDER = re.compile(rf"{_DIGEST}-{_DIGEST}")
_MARK = re.compile(rf"{_DIGEST}@{_DIGEST}")

Told = Callable[[int, int], None]
"""Is told of bytes had and bytes in all (0: not known), from the thread that fetches. What it raises ends the fetch."""


class ArtifactRefused(Exception):
    """The file can't be had, or is not what the manifest says. The message says which."""


class LinkLost(ArtifactRefused):
    """The source can't be reached any more. What came so far is kept, and the next fetch goes on from there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that a manifest names. ``name``: of external data, as the model names it. ``sha256``: hex digest; empty:
    any content will do, and it is fetched anew when ``edition`` changes.
    """

    uri: str
    sha256: str
    size: int | None = None
    name: str = ""
    edition: str = ""

    @property
    def key(self) -> str:
        """64 hex digits that the store has it by."""
        return self.sha256.lower() or hashlib.sha256(f"{self.edition} {self.uri}".encode()).hexdigest()

    @property
    def suffix(self) -> str:
        """``.onnx``; empty: its name has none."""
        suffix = suffix_of(self.uri)
        return suffix if _FILE.fullmatch("0" * 64 + suffix) else ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file that was verified. ``suffix``: ``.onnx``."""

    path: Path
    sha256: str
    suffix: str
    external: tuple[tuple[str, str], ...] = ()
    """Name and SHA-256 of each file of external data, which lie beside ``path``."""


Fetch = Callable[[Wanted, Path, Told], str]
"""Completes the file at the path, where a beginning may be, and gives the hex digest of all of it. Raises LinkLost when
a later call may go on, ArtifactRefused when it may not, OSError when the file can't be written.
"""


class Store:
    """Model files under one state directory. Methods block: call them in a thread; any of them may run beside another.

    A file is ``models/DIGEST.onnx``; a model with external data is a folder of its own; a file that was wanted without
    checksum has a mark beside it, ``DIGEST@KEY``. ``models/partial`` has what is not complete.
    """

    def __init__(
        self,
        root: Path,
        fetch: Fetch | None = None,
        settings: StoreSettings | None = None,
        kept: Callable[[], Mapping[str, str]] = dict,
        wanted: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        """``kept()`` gives the keys of files that must stay, each with who needs it, ``wanted()`` those that accepted
        manifests name. Any thread calls them.
        """
        self._fetch: Fetch = fetch or copy_local
        self._settings = settings or StoreSettings()
        self._kept, self._wanted = kept, wanted
        self._models = root / "models"
        self._partial = self._models / "partial"
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._promised: dict[str, int] = {}
        """Bytes that downloads under way still need, by key."""
        self._verified: dict[Path, tuple[int, ...]] = {}
        """Stamps of files whose digest was right."""

    def prepare(self) -> list[str]:
        """Make the folders and sweep up what an interrupted write left; a line for each thing that is not as it should.

        Raises:
            OSError: there is no folder and none can be made.
        """
        problems = []
        self._partial.mkdir(parents=True, exist_ok=True, mode=0o750)
        with contextlib.suppress(OSError):
            sync_folder(self._models)  # a process that was killed may have renamed a file, and no more
        for path in [*self._models.iterdir(), *self._partial.glob("*.whole")]:
            try:
                if path.parent == self._partial:
                    shutil.rmtree(path)
                elif path != self._partial and _item(path) is None and not _MARK.fullmatch(path.name):
                    problems.append(f"{path}: no model file of this store; it is left alone")
                elif not os.access(path, os.R_OK):
                    problems.append(f"{path}: not readable; it is fetched again when it is needed")
            except OSError as failed:
                problems.append(f"{path}: {failed.strerror}")
        return problems

    def fetch(self, wanted: Wanted, external: Sequence[Wanted], told: Told) -> Artifact:
        """Have a file in the store, verified, with the files of external data that belong to it.

        The bytes that are hashed are the bytes that are stored: what changes afterwards at the source changes nothing.
        What is there is not fetched again.

        Raises:
            ArtifactRefused: it can't be had, it has another checksum, no room, the disk fails.
        """
        with self._alone({each.key for each in (wanted, *external)}):
            try:
                self._partial.mkdir(parents=True, exist_ok=True, mode=0o750)
                return self._folder(wanted, external, told) if external else self._file(wanted, told)
            except OSError as failed:
                at = f" ({Path(failed.filename).name})" if isinstance(failed.filename, str) else ""
                raise ArtifactRefused(f"the model store can't take {_name(wanted)}: {failed.strerror}{at}") from failed

    def sweep(self) -> tuple[list[str], bool]:
        """Delete what no accepted manifest wants any more; the names of what went, and whether more is to go later.

        Nothing of it can be wanted again meanwhile: who begins to fetch waits. What is being fetched goes later.
        """
        gone: list[str] = []
        with self._guard, contextlib.suppress(OSError):
            wanted, busy = self._wanted(), self._busy()
            unwanted = [(item.path, item.keys) for item in self._items() if item.keys.isdisjoint(wanted)]
            unwanted += [(part, frozenset((part.name[:64],))) for part in self._partial.iterdir()]
            free = [path for path, keys in unwanted if keys.isdisjoint(busy.union(wanted))]
            gone = [path.name for path in free if _delete(path)]
            return gone, any(keys.isdisjoint(wanted) and not keys.isdisjoint(busy) for _, keys in unwanted)
        return gone, False

    def collect(self, room: int) -> list[str]:
        """Delete until there is room for so many bytes, the oldest use first, nothing that must stay.

        Gives the names of what went. There may be less room afterwards: then nothing more may go.
        """
        with self._guard, contextlib.suppress(OSError):  # a folder that is gone has nothing that may go
            going = to_go(self._items(), self._busy().union(self._kept()), room - self._room()[0])
            return [item.path.name for item in going if _delete(item.path)]
        return []

    # -- one file, and a model with its external data --------------------------------------------------------------

    def _file(self, wanted: Wanted, told: Told) -> Artifact:
        path = self._known(wanted)
        if path is None:
            part, digest = self._download(wanted, told)
            path = self._models / (digest + wanted.suffix)
            with _undone(part, path):  # a name that may be gone after a power cut is none that anybody may rely on
                part.replace(path)
                if not wanted.sha256:
                    (self._models / f"{digest}@{wanted.key}").touch(mode=0o640)
                sync_folder(self._models)
            self._is_right(path, digest, just_written=True)
        self._touch(path)
        return Artifact(path, path.name[:64], wanted.suffix)

    def _known(self, wanted: Wanted) -> Path | None:
        """Where it is already."""
        digests = [wanted.key] if wanted.sha256 else [mark.name[:64] for mark in self._models.glob(f"*@{wanted.key}")]
        paths = (self._models / (digest + wanted.suffix) for digest in digests)
        return next((path for path in paths if self._is_right(path, path.name[:64])), None)

    def _folder(self, wanted: Wanted, external: Sequence[Wanted], told: Told) -> Artifact:
        """A folder is made whole under another name, and renamed: no model is ever beside data of another version."""
        model = "model" + wanted.suffix
        files = {model: wanted} | {each.name: each for each in external}
        if len(files) <= len(external) or not all(each.name and each.sha256 for each in external) or not wanted.sha256:
            raise ArtifactRefused(
                f"{_name(wanted)}: every file of external data needs a checksum and a name of its own, not {model}"
            )
        listed = tuple(sorted((each.name, each.key) for each in external))
        folder = self._models / f"{wanted.key}-{hashlib.sha256(json.dumps(listed).encode()).hexdigest()}"
        if not all(self._is_right(folder / name, each.key) for name, each in files.items()):
            whole = self._partial / f"{folder.name}.whole"
            shutil.rmtree(whole, ignore_errors=True)
            missing = sum((each.size or 0) - _size(self._partial / each.key) for each in files.values())
            self._make_room(wanted, missing)  # for all of them, before any is fetched
            parts = {name: self._download(each, told)[0] for name, each in files.items()}
            with _undone(whole, folder, *parts.values()):
                whole.mkdir(mode=0o750)
                for name, each in files.items():
                    if parts[name].exists():
                        parts[name].replace(whole / name)
                    else:  # two names for one content
                        first = next(other for other, one in files.items() if one.key == each.key)
                        copy_local(Wanted((whole / first).as_uri(), each.key), whole / name, told)
                        _settle(whole / name, each.key)
                _write(whole / _LISTED, json.dumps({name: each.key for name, each in files.items()}).encode())
                sync_folder(whole)
                _delete(folder)
                whole.replace(folder)
                sync_folder(self._models)
            for name, each in files.items():
                self._is_right(folder / name, each.key, just_written=True)
        self._touch(folder / model)
        return Artifact(folder / model, wanted.key, wanted.suffix, listed)

    # -- downloads -------------------------------------------------------------------------------------------------

    def _download(self, wanted: Wanted, told: Told) -> tuple[Path, str]:
        """The complete and verified file, not under its name yet, and its digest."""
        part = self._partial / wanted.key
        here = self._here(wanted.sha256.lower())
        source, fetch = (Wanted(here.as_uri(), wanted.key), copy_local) if here else (wanted, self._fetch)
        if not wanted.sha256:
            self._drop(part)  # nothing could tell whether what comes is the rest of this
        try:
            if part.exists() and file_sha256(part) == wanted.key:
                return part, _settle(part, wanted.key)
            self._make_room(wanted, (wanted.size or 0) - _size(part))
            digest = _settle(part, fetch(source, part, self._watched(wanted, told)).lower())
            if wanted.sha256 and digest != wanted.key:
                raise ArtifactRefused(
                    f"checksum mismatch: {_name(wanted)}: expected sha256:{wanted.key}, got sha256:{digest}"
                )
            self._make_room(wanted, 0)
        except LinkLost:
            raise
        except (ArtifactRefused, OSError):
            self._drop(part)
            raise
        finally:
            with self._guard:
                self._promised.pop(wanted.key, None)
        return part, digest

    def _here(self, digest: str) -> Path | None:
        """A file of this content that some other version has, perhaps with another suffix, or beside its model."""
        if not digest:
            return None
        found = [path for path in self._models.glob(f"{digest}.*") if path.is_file()]
        for listing in self._models.glob(f"*/{_LISTED}"):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                names = json.loads(listing.read_bytes()).items()
                found += [listing.with_name(str(name)) for name, each in names if each == digest]
        return next((path for path in found if self._is_right(path, digest)), None)

    def _drop(self, part: Path) -> None:
        """The beginning of a file, and what its source noted beside it."""
        for each in self._partial.glob(f"{part.name}*"):
            _delete(each)

    def _watched(self, wanted: Wanted, told: Told) -> Told:
        """Like ``told``, and it looks whether there is room for what is still to come."""
        again = -1

        def watched(done: int, total: int) -> None:
            nonlocal again
            told(done, total)
            if done > again:
                again = done + _LOOK_AGAIN
                known = total or wanted.size
                self._make_room(wanted, known - done if known else 0)

        return watched

    def _make_room(self, wanted: Wanted, needed: int) -> None:
        """Raises ArtifactRefused: there is none, even without all that may go; then nothing goes."""
        needed = max(needed, 0)
        with self._guard:
            kept = self._kept()
            free, limit = self._room()
            free -= sum(promise for key, promise in self._promised.items() if key != wanted.key)
            items = list(self._items())
            going = to_go(items, self._busy().union(kept), needed - free)
            if free + sum(item.size for item in going) < needed:
                raise ArtifactRefused(no_room(_name(wanted), needed, free, limit, items, kept))
            for item in going:
                log.info("deleted to make room: %s", item.path.name)
                _delete(item.path)
            self._promised[wanted.key] = needed

    def _room(self) -> tuple[int, str]:
        taken = sum(item.size for item in self._items()) + sum(_size(part) for part in self._partial.glob("*"))
        return free_room(self._models, taken, self._settings)

    # -- what is there ---------------------------------------------------------------------------------------------

    def _items(self) -> Iterator[Item]:
        marks: dict[str, set[str]] = {}
        try:
            paths = list(self._models.iterdir())
        except OSError:
            return
        for path in paths:
            if _MARK.fullmatch(path.name):
                marks.setdefault(path.name[:64], set()).add(path.name[65:])
        for path in paths:
            if item := _item(path, marks.get(path.name[:64], ())):
                yield item

    def _is_right(self, path: Path, digest: str, just_written: bool = False) -> bool:
        """Whether this is a file that nothing else links to, with this digest. Hashed once while it does not change."""
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                return False
            if not just_written and self._verified.get(path) != _stamp(status) and file_sha256(path) != digest:
                return False
        except (OSError, ArtifactRefused):
            return False  # whatever it is, it can't be used: a new one takes its place
        self._verified[path] = _stamp(status)
        return True

    def _touch(self, path: Path) -> None:
        """Note that it is used. The access time says so, since that survives a restart and costs no file."""
        with contextlib.suppress(OSError):
            before = path.lstat()
            os.utime(path, ns=(time.time_ns(), before.st_mtime_ns))
            if self._verified.get(path) == _stamp(before):
                self._verified[path] = _stamp(path.lstat())

    @contextlib.contextmanager
    def _alone(self, keys: Collection[str]) -> Iterator[None]:
        """Nobody else fetches or deletes files of these keys."""
        with contextlib.ExitStack() as held:
            for key in sorted(keys):  # in order, so that no two wait for each other
                with self._guard:
                    lock = self._locks.setdefault(key, threading.Lock())
                held.enter_context(lock)
            yield

    def _busy(self) -> set[str]:
        """Keys of what is being fetched."""
        return {key for key, lock in self._locks.items() if lock.locked()}


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


def _settle(part: Path, digest: str) -> str:
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


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _undone(*paths: Path) -> Iterator[None]:
    """When a step fails, none of these stays."""
    try:
        yield
    except OSError:
        for path in paths:
            _delete(path)
        raise


def _item(path: Path, marks: Collection[str] = ()) -> Item | None:
    """What is at a path of the store; None: nothing of ours."""
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and _FILE.fullmatch(path.name):
            return Item(path, frozenset((path.name[:64], *marks)), status.st_size, status.st_atime)
        if stat.S_ISDIR(status.st_mode) and _FOLDER.fullmatch(path.name):
            files = [file.lstat() for file in path.iterdir()]
            used = max((file.st_atime for file in files), default=0.0)
            return Item(path, frozenset((path.name[:64],)), sum(file.st_size for file in files), used)
    except OSError:
        return None  # it went meanwhile
    return None


def _delete(path: Path) -> bool:
    """Whether it is gone, with its marks."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        for mark in path.parent.glob(f"{path.name[:64]}@*"):
            mark.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else sum(_size(file) for file in path.iterdir())
    except OSError:
        return 0


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Changes when the file does."""
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns


def _name(wanted: Wanted) -> str:
    return wanted.name or PurePosixPath(unquote(urlsplit(wanted.uri).path)).name or masked(wanted.uri)
