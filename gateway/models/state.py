"""What outlives the process, beside model files: accepted manifests, roll-outs, counters and events, in SQLite.

In WAL mode with ``synchronous = FULL``, a commit that has returned survives a power cut, and one that has not is there
whole or not at all.

Source: https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.event import KEPT, Event
from gateway.models.rollout import Rollout
from gateway.models.signing import Highest

_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS manifests (
  name TEXT, version TEXT, sequence INTEGER, applied REAL, origin TEXT, content TEXT, PRIMARY KEY (name, version));
CREATE TABLE IF NOT EXISTS rollouts (name TEXT PRIMARY KEY, content TEXT);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, counter INTEGER, content TEXT);
CREATE TABLE IF NOT EXISTS events (
  sequence INTEGER PRIMARY KEY, time REAL, kind TEXT, message TEXT, deployment TEXT, version TEXT, worker TEXT);
"""


class StateUnusable(Exception):
    """The database can't be read or written. The message says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An accepted manifest. ``sequence`` orders them by acceptance; ``applied`` is wall-clock seconds; ``origin`` says
    who brought it: empty (an operator) or ``folder:FILE``.
    """

    sequence: int
    applied: float
    manifest: Mapping[str, Any]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """All that is stored, and a line for each entry that can't be read."""

    manifests: Sequence[Stored]
    rollouts: Mapping[str, Rollout]
    counters: Mapping[str, Highest]
    events: Sequence[Event]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit writes. ``rollouts``: None for a name that goes."""

    manifests: Mapping[tuple[str, str], Stored] = field(default_factory=dict)
    forgotten: Sequence[tuple[str, str]] = ()
    rollouts: Mapping[str, Rollout | None] = field(default_factory=dict)
    counters: Mapping[str, Highest] = field(default_factory=dict)
    events: Sequence[Event] = ()


class State:
    """One database. All methods block and belong to one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "state.db"
        self._database: sqlite3.Connection | None = None

    def open(self) -> str:
        """Open it, or make it; a line about one that was damaged and put aside, or nothing.

        Raises:
            StateUnusable: no permission, no room, a disk that fails.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            try:
                self._connect()
            except sqlite3.DatabaseError as damaged:
                if isinstance(damaged, sqlite3.OperationalError):
                    raise
                return self._put_aside(damaged)
        except (OSError, sqlite3.Error) as failed:
            raise StateUnusable(f"{self._path}: {_cause(failed)}") from failed
        return ""

    def read(self) -> Known:
        """Raises StateUnusable."""
        problems: list[str] = []
        manifests, rollouts = [], {}
        try:
            database = self._connected()
            for name, version, sequence, applied, origin, content in database.execute(
                "SELECT name, version, sequence, applied, origin, content FROM manifests ORDER BY sequence"
            ):
                try:
                    manifests.append(Stored(int(sequence), float(applied), dict(json.loads(content)), str(origin)))
                except (ValueError, TypeError) as damaged:
                    problems.append(f"{name} {version}: {damaged}")
            for name, content in database.execute("SELECT name, content FROM rollouts"):
                try:
                    rollouts[str(name)] = msgspec.json.decode(content, type=Rollout)
                except msgspec.DecodeError as damaged:
                    problems.append(f"{name}: {damaged}")
            rows = database.execute("SELECT name, counter, content FROM counters")
            counters = {str(name): Highest(int(counter), str(content)) for name, counter, content in rows}
            rows = database.execute(
                "SELECT sequence, time, kind, message, deployment, version, worker FROM events ORDER BY sequence"
            )
            events = [Event(*row) for row in rows]
        except sqlite3.Error as failed:
            raise StateUnusable(f"{self._path}: {_cause(failed)}") from failed
        return Known(manifests, rollouts, counters, events, problems)

    def commit(self, change: Change) -> None:
        """Write all of it or, when that fails, nothing.

        Raises:
            StateUnusable: no room, a disk that fails.
        """
        try:
            with self._connected() as database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany(
                    "DELETE FROM manifests WHERE name = ? AND version = ?", [tuple(key) for key in change.forgotten]
                )
                database.executemany(
                    "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (name, version, each.sequence, each.applied, each.origin, json.dumps(each.manifest))
                        for (name, version), each in change.manifests.items()
                    ],
                )
                for name, rollout in change.rollouts.items():
                    if rollout is None:
                        database.execute("DELETE FROM rollouts WHERE name = ?", (name,))
                    else:
                        content = msgspec.json.encode(rollout).decode()
                        database.execute("INSERT OR REPLACE INTO rollouts VALUES (?, ?)", (name, content))
                database.executemany(
                    "INSERT OR REPLACE INTO counters VALUES (?, ?, ?)",
                    [(name, each.counter, each.content) for name, each in change.counters.items()],
                )
                database.executemany(
                    "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(e.sequence, e.time, e.kind, e.message, e.deployment, e.version, e.worker) for e in change.events],
                )
                if change.events:
                    oldest = change.events[-1].sequence - KEPT
                    database.execute("DELETE FROM events WHERE sequence <= ?", (oldest,))
        except sqlite3.Error as failed:
            raise StateUnusable(f"{self._path.name}: {_cause(failed)}") from failed

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _connect(self) -> None:
        self._database = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)

    def _put_aside(self, damaged: sqlite3.DatabaseError) -> str:
        """Go on with an empty one: a device that serves nothing is worse than one that has to be told again."""
        self.close()
        aside = self._path.with_name("state.db.damaged")
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._path.replace(aside)
        self._connect()
        return f"{self._path.name} was damaged ({_cause(damaged)}); it lies in {aside.name}, and all begins anew"

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            raise StateUnusable(f"{self._path}: not open")
        return self._database


def _cause(failed: Exception) -> str:
    name = getattr(failed, "sqlite_errorname", "")  # Python 3.11 and newer
    text = failed.strerror if isinstance(failed, OSError) and failed.strerror else str(failed)
    return f"{text} ({name})" if name and name != "SQLITE_ERROR" else text
