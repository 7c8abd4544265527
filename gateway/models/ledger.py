"""Ledger: changes go to disk in their order, off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from gateway.errors import EdgewayError
from gateway.event import Event
from gateway.models.state import Change, Known, State, StateUnusable

EVENTS_EVERY = 1.0
"""Seconds after which an event that no other change took along is written by itself."""


class NotKept(EdgewayError):
    """The change can't be written, so it was not made. The message names the cause."""


class Events(Protocol):
    """Where events come from; ``record.events.Events`` is the real one."""

    @property
    def newest(self) -> int: ...

    def since(self, sequence: int) -> list[Event]: ...

    def restore(self, events: Sequence[Event]) -> None: ...


class Ledger:
    """The state as the loop sees it. Each commit takes along the events that came up since the one before."""

    def __init__(self, state: State, events: Events) -> None:
        self._state = state
        self._events = events
        self._saved = 0
        self._thread = ThreadPoolExecutor(1, "state")

    async def open(self) -> tuple[Known, str]:
        """All that is stored, and a line about a damaged database that was put aside.

        Raises:
            StateUnusable
        """
        loop = asyncio.get_running_loop()
        problem = await loop.run_in_executor(self._thread, self._state.open)
        known = await loop.run_in_executor(self._thread, self._state.read)
        self._events.restore(known.events)
        self._saved = known.events[-1].sequence if known.events else 0
        return known, problem

    async def commit(self, change: Change) -> None:
        """Returns when it would survive a power cut.

        Raises:
            NotKept: it could not be written; what was there before is.
        """
        events = self._events.since(self._saved)
        saved, self._saved = self._saved, self._events.newest
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._state.commit, replace(change, events=events)
            )
        except StateUnusable as failed:
            self._saved = min(self._saved, saved)  # they go with the next one
            raise NotKept(f"the change can't be kept, so it was not made: {failed}") from failed

    async def keep_events(self) -> None:
        """Write events now and then. Until cancelled."""
        while True:
            await asyncio.sleep(EVENTS_EVERY)
            if self._events.newest > self._saved:
                try:
                    await self.commit(Change())
                except NotKept:  # it will be tried again; whoever wants to change something is told
                    continue

    async def close(self) -> None:
        """Write what is left."""
        try:
            if self._events.newest > self._saved:
                await self.commit(Change())
        except NotKept:
            pass
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._state.close)
            self._thread.shutdown()
