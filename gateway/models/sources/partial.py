"""A file on its way in: what is here of it, hashed, and what it is the beginning of."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_CHUNK = 1 << 20


class Partial:
    """The file at ``path``, which is added to, and beside it a note (``.from``) of where it comes from.

    The bytes that an earlier process left are read again for their digest; after a power cut they may still be wrong,
    so a digest that comes out wrong says nothing about the source unless the file came ``in_one_piece``.
    """

    def __init__(self, path: Path, uri: str) -> None:
        """Raises OSError."""
        self._path = path
        self._note = note_of(path)
        self._of = hashlib.sha256(uri.encode()).hexdigest()  # a URI may hold keys, which belong on no disk
        self._digest = hashlib.sha256()
        self.position = 0
        self.best = 0
        """The highest position that was ever reached: what is fetched again is no progress."""
        self.total: int | None = None
        self.validator = ""
        self._pieces = 0
        self._file: BinaryIO = path.open("a+b")
        self._recall()

    def _recall(self) -> None:
        try:
            note = json.loads(self._note.read_text("utf-8"))
            known = note["of"] == self._of
            self.validator, self.total = str(note["validator"]), note["total"]
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            self.restart()
            return
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self._digest.update(chunk)
            self.position += len(chunk)
        self._pieces = 1 if self.position else 0
        self.best = self.position

    @property
    def complete(self) -> bool:
        return self.total is not None and self.position == self.total

    @property
    def in_one_piece(self) -> bool:
        """One answer of the source gave all of it, to this process."""
        return self._pieces == 1

    def restart(self) -> None:
        """Forget what is here."""
        self._file.truncate(0)
        self._digest, self.position, self._pieces = hashlib.sha256(), 0, 0
        self.validator, self.total = "", None

    def begin(self, start: int, total: int | None, validator: str) -> None:
        """An answer comes that begins at ``start``: here, or at 0."""
        if start == 0:
            self.restart()
            self.validator, self.total = validator, total
            note = {"of": self._of, "validator": validator, "total": total}
            self._note.write_text(json.dumps(note), "utf-8")
        self._pieces += 1

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.position += len(chunk)
        self.best = max(self.best, self.position)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing behind."""
        for path in (self._path, self._note):
            with contextlib.suppress(OSError):
                path.unlink()

    def done(self) -> None:
        """All of it is here: the note has served."""
        self._file.flush()
        self._note.unlink(missing_ok=True)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError:
            if error is None:
                raise


def note_of(partial: Path) -> Path:
    """Where the note on a partial file lies."""
    return partial.with_name(partial.name + ".from")
