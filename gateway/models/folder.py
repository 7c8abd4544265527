"""A folder of manifests that is followed: each file by itself, so that one with a mistake never stops the others."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from gateway.errors import EdgewayError, NotFound
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import SUFFIXES, content_hash
from gateway.models.signing import SUFFIX, Trust, Untrusted, read_signature, read_signed
from gateway.models.states import COMING
from gateway.strict_yaml import ConfigError

log = logging.getLogger(__name__)

INTERVAL = 0.25
"""Seconds between two looks: a change is taken on the second look that finds it the same, so within a second."""
MAX_FILES = 1000
MAX_BYTES = 64 * 1024
"""Of one file."""
ORIGIN = "folder:"
"""What the origin of a version begins with that came from the folder; then comes the file's name."""
_RETRY = 5.0
"""Seconds after which what was refused is offered again: a full disk may have got room, or an operator made it."""
_FOLDER = "/"
"""Begins the keys of problems that are not of one file, as no file's name does."""
_NOT_BY_ITSELF = ("unloaded", "rolledBack")
"""States of versions that are there, but not on their way into service."""

Identity = tuple[str, str]
"""Deployment and version."""
Stamp = tuple[int, ...]
"""Changes whenever the file does, or what its name leads to."""


@dataclass(frozen=True)
class File:
    """What a file says. ``problem``: why it is not taken, on one line; what came from it before goes on then."""

    name: str
    manifests: tuple[ModelDeployment, ...] = ()
    signer: str = ""
    problem: str = ""

    @cached_property
    def contents(self) -> Mapping[Identity, str]:
        """The ``content_hash`` of each version."""
        return {(manifest.name, manifest.version): content_hash(manifest) for manifest in self.manifests}


@dataclass(frozen=True, slots=True)
class Said:
    """What was last taken of a version: from which file, and its ``content_hash``."""

    file: str
    content: str


class Deployments(Protocol):
    """What the folder's manifests are offered to."""

    def origins(self) -> Mapping[Identity, str]:
        """Where every accepted manifest came from, also of a time before this process."""
        ...

    def state(self, name: str, version: str) -> str:
        """``ready`` if it is in service, else what became of it."""
        ...

    async def accept(self, manifests: Sequence[ModelDeployment], origin: str, signed: Container[Identity]) -> object:
        """All or none. Raises EdgewayError, OSError."""
        ...

    async def delete(self, name: str, version: str, origin: str) -> object:
        """Unless it comes from elsewhere by now. Raises EdgewayError, OSError."""
        ...


# -- what a change means: values in, values out ---------------------------------------------------------------------


def without_duplicates(files: Mapping[str, File], owners: Mapping[Identity, str], folder: Path) -> dict[str, File]:
    """The files, those with a problem that declare a version which belongs to another.

    It belongs to its owner, the file it was accepted from, if that still declares it; else to the first by name.
    """
    declared: dict[Identity, list[str]] = {}
    for name in sorted(files):
        for identity in files[name].contents:
            declared.setdefault(identity, []).append(name)
    checked = dict(files)
    for identity, names in declared.items():
        first = owners.get(identity)
        kept = first if first in names else names[0]
        for name in names:
            if name != kept:
                text = f"{' '.join(identity)} is declared in {kept} already; take it out of one of them"
                checked[name] = replace(files[name], problem=f"{folder / name}: spec.model.version: {text}")
    return checked


def news(
    files: Iterable[File], said: Mapping[Identity, Said], origins: Mapping[Identity, str]
) -> list[tuple[File, list[ModelDeployment]]]:
    """What is to be accepted, file by file: versions with new content, and those that moved here from another file.

    A version that an operator applied or deleted since is left as it is until its content here changes.
    """
    found = []
    for file in files:
        if file.problem:
            continue
        wanted = []
        for manifest in file.manifests:
            identity = (manifest.name, manifest.version)
            before, origin = said.get(identity), origins.get(identity, "")
            same = before is not None and before.content == file.contents[identity]
            if not same or (origin.startswith(ORIGIN) and origin != ORIGIN + file.name):
                wanted.append(manifest)
        if wanted:
            found.append((file, wanted))
    return found


def leaving(files: Mapping[str, File], origins: Mapping[Identity, str]) -> list[Identity]:
    """Versions that came from the folder, and that no file declares any more.

    A file with a problem keeps its own, and one that is still there the versions that it names as ``previousVersion``:
    they are what a roll-back goes to.
    """
    declared = {identity for file in files.values() for identity in file.contents}
    found = []
    for identity, origin in origins.items():
        if not origin.startswith(ORIGIN) or identity in declared:
            continue
        file = files.get(origin.removeprefix(ORIGIN))
        if file is None or not (file.problem or identity in _previous(file)):
            found.append(identity)
    return found


def _previous(file: File) -> set[tuple[str, str | None]]:
    return {(manifest.name, manifest.spec.rollback.previous_version) for manifest in file.manifests}


# -- the folder on disk; these block ----------------------------------------------------------------------------------


def look(folder: Path) -> dict[str, Stamp]:
    """The folder's manifest files by name, each with what changes when it or its signature does.

    Links are followed: a ConfigMap's files lead through ``..data``, which is swapped. Modification time and size can
    be the same after that, inode and status change time can't. A link that leads nowhere is a file that went.

    Raises:
        OSError: the folder can't be read.
    """
    stamps: dict[str, Stamp] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith((*SUFFIXES, SUFFIX)):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            except OSError:
                stamps[entry.name] = ()  # reading it says what is wrong
                continue
            if not stat.S_ISDIR(status.st_mode):
                times = (status.st_mtime_ns, status.st_ctime_ns)
                stamps[entry.name] = (status.st_dev, status.st_ino, status.st_size, *times)
    return {name: stamps[name] + stamps.get(name + SUFFIX, ()) for name in sorted(stamps) if not name.endswith(SUFFIX)}


@dataclass(frozen=True, slots=True)
class _Content:
    content: bytes
    signature: bytes
    folder: str
    source: str


def read(path: Path, trust: Trust) -> File:
    """What a file says, or why it says nothing. ``file:`` URIs are relative to its folder, also where it is a link."""
    try:
        content = _content(path)
        try:
            signature = read_signature(_content(path.with_name(path.name + SUFFIX)))
        except FileNotFoundError:
            signature = b""
        signer, manifests = read_signed(_Content(content, signature, str(path.parent), str(path)), trust)
    except OSError as failed:
        return File(path.name, problem=f"{path}: can't be read: {failed.strerror}")
    except ConfigError as refused:
        return File(path.name, problem=str(refused))
    except Untrusted as refused:
        return File(path.name, problem=f"{path}: {refused}")
    file = File(path.name, tuple(manifests), signer)
    _ = file.contents  # here, in a thread: a thousand of them would keep the loop for a tenth of a second
    return file


def _content(path: Path) -> bytes:
    """Raises OSError, ConfigError. A FIFO would block for ever, hence the flag."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigError(str(path), None, "", "is not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(str(path), None, "", f"is longer than {MAX_BYTES // 1024} KiB; split it")
    return content


# -- following it -----------------------------------------------------------------------------------------------------


class Follower:
    """Keeps the deployments as a folder of manifests says.

    A version goes when no file declares it any more, unless an operator applied it since. Where another version of its
    deployment is on its way up instead, it serves until one is ready.
    """

    def __init__(self, folder: Path, trust: Trust, deployments: Deployments, emit: Callable[[str, str], None]) -> None:
        self._folder = folder.absolute()
        self._trust = trust
        self._deployments = deployments
        self._emit = emit
        self._before: dict[str, Stamp] = {}
        """As the last look found it; below, as it was taken."""
        self._stamps: dict[str, Stamp] = {}
        self._read: dict[str, File] = {}
        self._files: dict[str, File] = {}
        """As they were taken, with the problems that came up then."""
        self._said: dict[Identity, Said] | None = None
        self._leaving: dict[Identity, set[Identity]] = {}
        """Versions that no file declares, each with those that are, or were since, on their way up instead."""
        self._told: dict[str, tuple[Stamp, str]] = {}
        self._retry_at: float | None = None
        """Monotonic seconds; None: nothing was refused."""

    async def follow(self, looked: Callable[[], None]) -> None:
        """Until cancelled. ``looked()`` is called after each look, first when what is there is accepted."""
        while True:
            try:
                await self.look()
            except Exception as failed:
                log.error("following %s failed", self._folder, exc_info=failed)
                self._tell(_FOLDER, f"{self._folder}: {type(failed).__name__}: {failed}")
            looked()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Look once, and take what changed.

        A file that is still being written has a new stamp at every look, so only what stayed the same for one interval
        is taken. A folder that can't be read changes nothing.
        """
        try:
            stamps = await asyncio.to_thread(look, self._folder)
        except OSError as failed:
            self._tell(_FOLDER, f"{self._folder}: can't be read: {failed.strerror}")
            return
        self._told.pop(_FOLDER, None)
        settled, self._before = stamps == self._before, stamps
        if self._said is None or (stamps != self._stamps and settled):
            await self._changed(stamps)
        elif self._retry_at is not None and time.monotonic() >= self._retry_at:
            await self.take(self._read)
        elif self._leaving:
            await self._remove(())

    async def _changed(self, stamps: dict[str, Stamp]) -> None:
        names, over = list(stamps)[:MAX_FILES], list(stamps)[MAX_FILES:]
        again = [name for name in names if name not in self._read or self._stamps.get(name) != stamps[name]]
        found = await asyncio.to_thread(lambda: [read(self._folder / name, self._trust) for name in again])
        kept = {name: self._read[name] for name in names if name not in again}
        problem = f"{self._folder}: has {len(stamps)} manifests; the first {MAX_FILES} by name are followed"
        beyond = {name: File(name, problem=problem) for name in over}
        self._read = kept | {file.name: file for file in found} | beyond
        self._stamps = stamps
        await self.take(self._read)

    async def take(self, read: Mapping[str, File]) -> None:
        """Make the deployments as these files say, which are all there are. What is refused is tried again later."""
        if self._said is None:
            self._said = self._applied_since(read)
        origins = self._deployments.origins()
        owners = {identity: said.file for identity, said in self._said.items()}
        owners |= {key: origin.removeprefix(ORIGIN) for key, origin in origins.items() if origin.startswith(ORIGIN)}
        files = without_duplicates(read, owners, self._folder)
        pending = news(files.values(), self._said, origins)
        taken: set[Identity] = set()
        while True:
            refused: dict[str, File] = {}
            for file, manifests in pending:
                problem = await self._accept(file, manifests)
                if problem:
                    refused[file.name] = replace(file, problem=problem)
                else:
                    taken.update((manifest.name, manifest.version) for manifest in manifests)
            self._files = files | refused
            removed = await self._remove(taken)
            if not refused or (len(refused) == len(pending) and not removed):
                break  # else what was accepted or removed may have made room: percents of two files change places
            pending = [(file, manifests) for file, manifests in pending if file.name in refused]
        declared = {identity for file in self._files.values() for identity in file.contents}
        bad = {file.name for file in self._files.values() if file.problem}
        self._said = {key: said for key, said in self._said.items() if key in declared or said.file in bad}
        self._retry_at = time.monotonic() + _RETRY if refused else None
        self._told = {key: told for key, told in self._told.items() if key in bad or key.startswith(_FOLDER)}
        for problem in dict.fromkeys(file.problem for file in self._files.values() if self._first_time(file)):
            self._emit("manifest-refused", problem)

    def _applied_since(self, files: Mapping[str, File]) -> dict[Identity, Said]:
        """At the start: versions that an operator applied are not taken back to what the files say."""
        origins, said = self._deployments.origins(), {}
        for file in files.values():
            for identity, content in file.contents.items():
                if identity in origins and not origins[identity].startswith(ORIGIN):
                    said[identity] = Said(file.name, content)
                    text = f"{' '.join(identity)} was applied by hand since; what the file says counts when it changes"
                    self._emit("manifest-kept", f"{self._folder / file.name}: {text}")
        return said

    async def _accept(self, file: File, manifests: Sequence[ModelDeployment]) -> str:
        """The problem; empty: they were accepted."""
        signed = file.contents if file.signer else ()
        try:
            await self._deployments.accept(manifests, ORIGIN + file.name, signed)
        except (EdgewayError, OSError) as refused:
            return f"{self._folder / file.name}: {refused}"
        assert self._said is not None
        for manifest in manifests:
            identity = (manifest.name, manifest.version)
            self._said[identity] = Said(file.name, file.contents[identity])
        return ""

    async def _remove(self, taken: Collection[Identity]) -> bool:
        """Withdraw what no file declares, as far as nothing that replaces it is waited for; whether there was some."""
        origins = dict(self._deployments.origins())
        now = leaving(self._files, origins)
        self._leaving = {identity: waited for identity, waited in self._leaving.items() if identity in now}
        removed = False
        for identity in now:
            if self._waits(identity, taken):
                continue
            key = _FOLDER + " ".join(identity)
            try:
                await self._deployments.delete(*identity, origins[identity])
            except NotFound:
                pass
            except (EdgewayError, OSError) as failed:
                self._tell(key, f"{' '.join(identity)} can't be removed, though its file went: {failed}")
                continue
            removed = True
            self._leaving.pop(identity, None)
            self._told.pop(key, None)
        return removed

    def _waits(self, identity: Identity, taken: Collection[Identity]) -> bool:
        """Whether a version must serve on because others that shall replace it are not ready."""
        state = self._deployments.state
        peers = {key for file in self._files.values() for key in file.contents if key[0] == identity[0]}
        coming = {peer for peer in peers if peer in taken or state(*peer) in COMING}
        waited = self._leaving[identity] = peers & (self._leaving.get(identity, set()) | coming)
        hopes = any(state(*peer) not in _NOT_BY_ITSELF for peer in waited)
        return hopes and not any(state(*peer) == "ready" for peer in peers)

    def _first_time(self, file: File) -> bool:
        """Whether a problem was not told yet since the file changed."""
        if not file.problem:
            return False
        before, now = self._told.get(file.name), (self._stamps.get(file.name, ()), file.problem)
        self._told[file.name] = now
        return before != now

    def _tell(self, key: str, problem: str) -> None:
        """Say what is wrong, but not of a file, once until it is over."""
        if self._told.get(key) != ((), problem):
            self._told[key] = ((), problem)
            self._emit("manifest-refused", problem)
