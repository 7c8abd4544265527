"""References: has the files with which the outputs of versions are compared fetched, beside all that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.models.artifact import Artifact, ArtifactRefused, Told
from gateway.models.revision import Plan

FIRST_RETRY, LONGEST_RETRY = 10.0, 600.0
"""Seconds until a fetch that failed is tried again; each time twice as many."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A version's reference. ``path``: None: it is not here (yet); ``problem``: why not; empty: it is on its way, or
    the version wants none.
    """

    path: Path | None = None
    problem: str = ""


class _Ended(Exception):
    """Nobody waits for the file any more."""


@dataclass(slots=True, eq=False)
class _Fetch:
    content: str
    found: Reference = Reference()
    ended: bool = False
    task: asyncio.Task[None] | None = None

    def told(self, done: int, total: int) -> None:
        """Called by the thread that fetches."""
        if self.ended:
            raise _Ended

    def end(self) -> None:
        self.ended = True
        if self.task is not None:
            self.task.cancel()


class References:
    """One fetch for each version that has a reference, tried again until it succeeds. Belongs to the loop."""

    def __init__(self, changed: Callable[[], None] = lambda: None, first_retry: float = FIRST_RETRY) -> None:
        """``changed()`` is called when the reference of a version is here, or can't be had for now."""
        self.changed = changed
        self._first_retry = first_retry
        self._fetches: dict[tuple[str, str], _Fetch] = {}

    def of(self, plan: Plan) -> Reference:
        """The reference of a version; the first question has it fetched."""
        key = plan.name, plan.version
        fetch = self._fetches.get(key)
        if fetch is None or fetch.content != plan.content:
            self.forget(*key)
            fetch = self._fetches[key] = _Fetch(plan.content)
            if plan.reference is not None:
                fetch.task = asyncio.create_task(self._fetch(fetch, plan.reference), name=f"reference of {plan.name}")
            elif plan.drift is not None or plan.rollback.max_drift is not None:
                fetch.found = Reference(problem="the manifest has neither drift.reference nor golden samples")
        return fetch.found

    def forget(self, name: str, version: str) -> None:
        """The version is no more."""
        fetch = self._fetches.pop((name, version), None)
        if fetch is not None:
            fetch.end()

    async def close(self) -> None:
        """End all fetches."""
        tasks = [fetch.task for fetch in self._fetches.values() if fetch.task is not None]
        for fetch in self._fetches.values():
            fetch.end()
        if tasks:
            await asyncio.wait(tasks)

    async def _fetch(self, fetch: _Fetch, blocking: Callable[[Told], Artifact]) -> None:
        delay = self._first_retry
        while fetch.found.path is None:
            try:
                artifact = await asyncio.to_thread(blocking, fetch.told)
            except _Ended:
                return
            except ArtifactRefused as refused:
                fetch.found = Reference(problem=f"the reference can't be had: {refused}")
            else:
                fetch.found = Reference(artifact.path)
            self.changed()
            if fetch.found.path is None:
                await asyncio.sleep(delay)
                delay = min(LONGEST_RETRY, 2 * delay)
