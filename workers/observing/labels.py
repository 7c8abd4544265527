"""Labels: what versions have predicted, by request id, and what turned out to be true, hours later."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import NamedTuple, Optional, Tuple, Union

import numpy as np

KEPT = 100_000
"""Answers, and labels, that are remembered of each model: some 15 MB."""
LONGEST = 256
"""Characters of a label."""
_PRUNED_EVERY = 1000
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA journal_size_limit = 4194304;
CREATE TABLE IF NOT EXISTS answers (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, request BLOB NOT NULL, version TEXT NOT NULL,
  predicted TEXT NOT NULL, UNIQUE (model, request));
CREATE TABLE IF NOT EXISTS labels (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, request BLOB NOT NULL, version TEXT NOT NULL,
  hit INTEGER NOT NULL, UNIQUE (model, request));
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (model, sequence);
CREATE INDEX IF NOT EXISTS labels_by_age ON labels (model, version, sequence);
"""


class Match(NamedTuple):
    """A label beside what was predicted."""

    version: str
    predicted: str
    right: bool


class Labels:
    """A database in which a power cut may cost the newest seconds, and a crash of this process nothing. Its methods
    raise sqlite3.Error where the disk is full or broken.
    """

    def __init__(self, path: Optional[Path], kept: int = KEPT) -> None:
        """None: in memory only. A file that is no such database is put aside, with ``.damaged`` behind its name."""
        self._kept = kept
        self._added = 0
        if path is None:
            self._database = _opened(":memory:")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as damaged:
            if isinstance(damaged, sqlite3.OperationalError):
                raise
            path.replace(path.with_name(path.name + ".damaged"))
            for beside in ("-wal", "-shm"):
                path.with_name(path.name + beside).unlink(missing_ok=True)
            self._database = _opened(path)

    def answered(self, model: str, version: str, request: str, predicted: str) -> None:
        """Remember an answer; the newest one with this id counts. To be followed by ``commit``."""
        row = model, _key(request), version, predicted
        self._database.execute(
            "INSERT OR REPLACE INTO answers (model, request, version, predicted) VALUES (?,?,?,?)", row
        )
        self._added += 1
        if self._added % _PRUNED_EVERY == 0:
            self._prune("answers", model)

    def label(self, model: str, request: str, label: str) -> Optional[Match]:
        """Match and keep a label, in place of an earlier one of this id; None: no such answer is remembered."""
        key = _key(request)
        found = self._database.execute(
            "SELECT version, predicted FROM answers WHERE model = ? AND request = ?", (model, key)
        ).fetchone()
        if found is None:
            return None
        match = Match(found[0], found[1], found[1] == label.strip())
        row = model, key, match.version, match.right
        cursor = self._database.execute(
            "INSERT OR REPLACE INTO labels (model, request, version, hit) VALUES (?,?,?,?)", row
        )
        if cursor.lastrowid is not None and cursor.lastrowid % _PRUNED_EVERY == 0:
            self._prune("labels", model)
        self.commit()
        return match

    def accuracy(self, model: str, version: str, window: int) -> Tuple[int, int]:
        """Right ones, and all, of the newest ``window`` labels."""
        right, total = self._database.execute(
            "SELECT COALESCE(SUM(hit), 0), COUNT(*) FROM (SELECT hit FROM labels WHERE model = ? AND version = ? "
            "ORDER BY sequence DESC LIMIT ?)",
            (model, version, window),
        ).fetchone()
        return right, total

    def forget(self, model: str, version: str) -> None:
        """All of a version that is no more."""
        self._database.execute("DELETE FROM answers WHERE model = ? AND version = ?", (model, version))
        self._database.execute("DELETE FROM labels WHERE model = ? AND version = ?", (model, version))
        self.commit()

    def commit(self) -> None:
        """Let a crash of this process cost nothing of what is known so far."""
        self._database.commit()

    def close(self) -> None:
        self._database.commit()
        self._database.close()

    def _prune(self, table: str, model: str) -> None:
        self._database.execute(
            f"DELETE FROM {table} WHERE model = ? AND sequence <= "  # noqa: S608 - two names, both ours
            f"(SELECT sequence FROM {table} WHERE model = ? ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
            (model, model, self._kept),
        )


def predicted(output: np.ndarray) -> Optional[str]:
    """The label that an output gives: the place of the largest value along the last axis, or its one element, where
    that is a whole number or text; None: it gives none, or several.
    """
    if output.size == 1 and output.dtype.kind in "biu":
        return str(int(output.reshape(-1)[0]))
    if output.size == 1 and output.dtype.kind == "O":
        text: Union[bytes, str] = output.reshape(-1)[0]
        word = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return word.strip() if len(word) <= LONGEST else None
    if output.dtype.kind in "iuf" and output.ndim and output.shape[-1] == output.size >= 2:
        return str(int(output.argmax()))
    return None


def _key(request: str) -> bytes:
    """Of a fixed size, whatever ids callers think of."""
    return hashlib.blake2b(request.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _opened(path: Union[Path, str]) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5.0)
    try:
        database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database
