"""The store of model files: fetched, verified, within a disk budget; whole, or not there."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from gateway.config import StoreSettings
from gateway.models.artifact import Artifact, ArtifactRefused, Fetch, LinkLost, Told, Wanted
from gateway.models.files import copy_local, file_sha256, settle, size_of
from gateway.models.space import free_room, no_room, to_go
from gateway.models.stock import Stock, delete

log = logging.getLogger(__name__)

_LOOK_AGAIN = 1 << 20
"""Bytes after which a download looks again whether there is room: others write to the disk, too."""


class Store:
    """Model files under one state directory. Methods block: call them in a thread; any of them may run beside
    another.
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
        self._stock = Stock(root)
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._promised: dict[str, int] = {}
        """Bytes that downloads under way still need, by key."""

    def prepare(self) -> list[str]:
        """Before anything else; as ``Stock.prepare``."""
        return self._stock.prepare()

    def fetch(self, wanted: Wanted, external: Sequence[Wanted], told: Told) -> Artifact:
        """Have a file in the store, verified, with the files of external data that belong to it.

        The bytes that are hashed are the bytes that are stored: what changes afterwards at the source changes nothing.
        What is there is not fetched again.

        Raises:
            ArtifactRefused: it can't be had, it has another checksum, no room, the disk fails.
        """
        with self._alone({each.key for each in (wanted, *external)}):
            try:
                self._stock.make_folders()
                return self._folder(wanted, external, told) if external else self._file(wanted, told)
            except OSError as failed:
                at = f" ({Path(failed.filename).name})" if isinstance(failed.filename, str) else ""
                raise ArtifactRefused(f"the model store can't take {wanted.label}: {failed.strerror}{at}") from failed

    def sweep(self) -> tuple[list[str], bool]:
        """Delete what no accepted manifest wants any more; the names of what went, and whether more is to go later.

        Nothing of it can be wanted again meanwhile: who begins to fetch waits. What is being fetched goes later.
        """
        gone: list[str] = []
        with self._guard, contextlib.suppress(OSError):
            wanted, busy = self._wanted(), self._busy()
            unwanted = [(item.path, item.keys) for item in self._stock.items() if item.keys.isdisjoint(wanted)]
            unwanted += [(part, frozenset((part.name[:64],))) for part in self._stock.parts()]
            free = [path for path, keys in unwanted if keys.isdisjoint(busy.union(wanted))]
            gone = [path.name for path in free if delete(path)]
            return gone, any(keys.isdisjoint(wanted) and not keys.isdisjoint(busy) for _, keys in unwanted)
        return gone, False

    def collect(self, room: int) -> list[str]:
        """Delete until there is room for so many bytes, the oldest use first, nothing that must stay.

        Gives the names of what went. There may be less room afterwards: then nothing more may go.
        """
        with self._guard, contextlib.suppress(OSError):  # a folder that is gone has nothing that may go
            going = to_go(self._stock.items(), self._busy().union(self._kept()), room - self._room()[0])
            return [item.path.name for item in going if delete(item.path)]
        return []

    # -- one file, and a model with its external data --------------------------------------------------------------

    def _file(self, wanted: Wanted, told: Told) -> Artifact:
        path = self._stock.find(wanted)
        if path is None:
            part, digest = self._download(wanted, told)
            path = self._stock.put(part, digest, wanted)
        self._stock.touch(path)
        return Artifact(path, path.name[:64], wanted.suffix)

    def _folder(self, wanted: Wanted, external: Sequence[Wanted], told: Told) -> Artifact:
        model = "model" + wanted.suffix
        files = {model: wanted} | {each.name: each for each in external}
        if len(files) <= len(external) or not all(each.name and each.sha256 for each in external) or not wanted.sha256:
            raise ArtifactRefused(
                f"{wanted.label}: every file of external data needs a checksum and a name of its own, not {model}"
            )
        digests = {name: each.key for name, each in files.items()}
        listed = tuple(sorted((each.name, each.key) for each in external))
        folder = self._stock.folder(wanted.key, listed)
        if not self._stock.has(folder, digests):
            self._stock.drop(folder.name)
            missing = sum((each.size or 0) - size_of(self._stock.part(each.key)) for each in files.values())
            self._make_room(wanted, missing)  # for all of them, before any is fetched
            parts = {name: self._download(each, told)[0] for name, each in files.items()}
            self._stock.put_folder(folder, digests, parts, told)
        self._stock.touch(folder / model)
        return Artifact(folder / model, wanted.key, wanted.suffix, listed)

    # -- downloads -------------------------------------------------------------------------------------------------

    def _download(self, wanted: Wanted, told: Told) -> tuple[Path, str]:
        """The complete and verified file, not under its name yet, and its digest."""
        part = self._stock.part(wanted.key)
        here = self._stock.same(wanted.sha256.lower())
        source, fetch = (Wanted(here.as_uri(), wanted.key), copy_local) if here else (wanted, self._fetch)
        if not wanted.sha256:
            self._stock.drop(wanted.key)  # nothing could tell whether what comes is the rest of this
        try:
            if part.exists() and file_sha256(part) == wanted.key:
                return part, settle(part, wanted.key)
            self._make_room(wanted, (wanted.size or 0) - size_of(part))
            digest = settle(part, fetch(source, part, self._watched(wanted, told)).lower())
            if wanted.sha256 and digest != wanted.key:
                raise ArtifactRefused(
                    f"checksum mismatch: {wanted.label}: expected sha256:{wanted.key}, got sha256:{digest}"
                )
            self._make_room(wanted, 0)
        except LinkLost:
            raise
        except (ArtifactRefused, OSError):
            self._stock.drop(wanted.key)
            raise
        finally:
            with self._guard:
                self._promised.pop(wanted.key, None)
        return part, digest

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
            items = list(self._stock.items())
            going = to_go(items, self._busy().union(kept), needed - free)
            if free + sum(item.size for item in going) < needed:
                raise ArtifactRefused(no_room(wanted.label, needed, free, limit, items, kept))
            for item in going:
                log.info("deleted to make room: %s", item.path.name)
                delete(item.path)
            self._promised[wanted.key] = needed

    def _room(self) -> tuple[int, str]:
        return free_room(self._stock.models, self._stock.taken(), self._settings)

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
