"""The model files that are on the disk: their names, whether they are whole, and when they were used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from gateway.models.artifact import SUFFIX, ArtifactRefused, Told, Wanted
from gateway.models.files import copy_local, file_sha256, settle, size_of, sync_folder, write
from gateway.models.space import Item

_LISTED = ".listed"
"""In the folder of a model with external data: the digests of its files, by name. No file that a manifest lists can be
called so.
"""
_DIGEST = "[0-9a-f]{64}"
_FILE = re.compile(rf"{_DIGEST}({SUFFIX})?")
_FOLDER = re.compile(rf"{_DIGEST}-{_DIGEST}")
_MARK = re.compile(rf"{_DIGEST}@{_DIGEST}")


class Stock:
    """Files of models, by the digests of their contents.

    A file is ``models/DIGEST.onnx``; a model with external data is a folder of its own; a file that was wanted without
    checksum has a mark beside it, ``DIGEST@KEY``. ``models/partial`` has what is not complete, by key.
    """

    def __init__(self, root: Path) -> None:
        self.models = root / "models"
        self._partial = self.models / "partial"
        self._verified: dict[Path, tuple[int, ...]] = {}
        """Stamps of files whose digest was right."""

    def prepare(self) -> list[str]:
        """Make the folders and sweep up what an interrupted write left; a line for each thing that is not as it should.

        Raises:
            OSError: there is no folder and none can be made.
        """
        problems = []
        self.make_folders()
        with contextlib.suppress(OSError):
            sync_folder(self.models)  # a process that was killed may have renamed a file, and no more
        for path in [*self.models.iterdir(), *self._partial.glob("*.whole")]:
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

    def make_folders(self) -> None:
        """Raises OSError."""
        self._partial.mkdir(parents=True, exist_ok=True, mode=0o750)

    # -- what is there ---------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        marks: dict[str, set[str]] = {}
        try:
            paths = list(self.models.iterdir())
        except OSError:
            return
        for path in paths:
            if _MARK.fullmatch(path.name):
                marks.setdefault(path.name[:64], set()).add(path.name[65:])
        for path in paths:
            if item := _item(path, marks.get(path.name[:64], ())):
                yield item

    def parts(self) -> Iterator[Path]:
        """What is not complete, and what its sources noted beside it. Raises OSError."""
        return self._partial.iterdir()

    def taken(self) -> int:
        """Bytes of all of it."""
        return sum(item.size for item in self.items()) + sum(size_of(part) for part in self._partial.glob("*"))

    def find(self, wanted: Wanted) -> Path | None:
        """Where it is already."""
        digests = [wanted.key] if wanted.sha256 else [mark.name[:64] for mark in self.models.glob(f"*@{wanted.key}")]
        paths = (self.models / (digest + wanted.suffix) for digest in digests)
        return next((path for path in paths if self._is_right(path, path.name[:64])), None)

    def same(self, digest: str) -> Path | None:
        """A file of this content that some other version has, perhaps with another suffix, or beside its model."""
        if not digest:
            return None
        found = [path for path in self.models.glob(f"{digest}.*") if path.is_file()]
        for listing in self.models.glob(f"*/{_LISTED}"):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                names = json.loads(listing.read_bytes()).items()
                found += [listing.with_name(str(name)) for name, each in names if each == digest]
        return next((path for path in found if self._is_right(path, digest)), None)

    def part(self, key: str) -> Path:
        """Where a file is until it is complete."""
        return self._partial / key

    def folder(self, key: str, external: Sequence[tuple[str, str]]) -> Path:
        """Where a model is that has this external data: names and digests, sorted."""
        return self.models / f"{key}-{hashlib.sha256(json.dumps(external).encode()).hexdigest()}"

    def has(self, folder: Path, files: Mapping[str, str]) -> bool:
        """``files``: digests by name."""
        return all(self._is_right(folder / name, digest) for name, digest in files.items())

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

    def touch(self, path: Path) -> None:
        """Note that it is used. The access time says so, since that survives a restart and costs no file."""
        with contextlib.suppress(OSError):
            before = path.lstat()
            os.utime(path, ns=(time.time_ns(), before.st_mtime_ns))
            if self._verified.get(path) == _stamp(before):
                self._verified[path] = _stamp(path.lstat())

    # -- what comes and goes ---------------------------------------------------------------------------------------

    def put(self, part: Path, digest: str, wanted: Wanted) -> Path:
        """Give a complete file its name. Raises OSError; then it is gone."""
        path = self.models / (digest + wanted.suffix)
        with _undone(part, path):  # a name that may be gone after a power cut is none that anybody may rely on
            part.replace(path)
            if not wanted.sha256:
                (self.models / f"{digest}@{wanted.key}").touch(mode=0o640)
            sync_folder(self.models)
        self._is_right(path, digest, just_written=True)
        return path

    def put_folder(self, folder: Path, files: Mapping[str, str], parts: Mapping[str, Path], told: Told) -> None:
        """A folder is made whole under another name, and renamed: no model is ever beside data of another version.

        Args:
            folder: see ``folder``.
            files: digests by name.
            parts: complete files by name.
            told: of copies.

        Raises:
            OSError: nothing of it is left.
        """
        whole = self._partial / f"{folder.name}.whole"
        with _undone(whole, folder, *parts.values()):
            whole.mkdir(mode=0o750)
            for name, digest in files.items():
                if parts[name].exists():
                    parts[name].replace(whole / name)
                else:  # two names for one content
                    first = next(other for other, each in files.items() if each == digest)
                    copy_local(Wanted((whole / first).as_uri(), digest), whole / name, told)
                    settle(whole / name, digest)
            write(whole / _LISTED, json.dumps(dict(files)).encode())
            sync_folder(whole)
            delete(folder)
            whole.replace(folder)
            sync_folder(self.models)
        for name, digest in files.items():
            self._is_right(folder / name, digest, just_written=True)

    def drop(self, part: str) -> None:
        """The beginning of a file or folder, and what its source noted beside it."""
        for each in self._partial.glob(f"{part}*"):
            delete(each)


def delete(path: Path) -> bool:
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


@contextlib.contextmanager
def _undone(*paths: Path) -> Iterator[None]:
    """When a step fails, none of these stays."""
    try:
        yield
    except OSError:
        for path in paths:
            delete(path)
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


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Changes when the file does."""
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns
