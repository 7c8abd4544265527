"""Events: what changed on the device, kept for operators."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence

from gateway.event import KEPT, Event

log = logging.getLogger(__name__)


class Events:
    """A bounded ring with watchers. Each event is also one line of the log."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=KEPT)
        self._count = 0
        self._arrived = asyncio.Event()

    def restore(self, events: Sequence[Event]) -> None:
        """What was kept from before the process started, oldest first; what came up meanwhile is renumbered."""
        if not events:
            return
        young = list(self._ring)
        self._ring.clear()
        self._ring.extend(events)
        self._count = events[-1].sequence
        for each in young:
            self._count += 1
            self._ring.append(
                Event(self._count, each.time, each.kind, each.message, each.deployment, each.version, each.worker)
            )

    def emit(self, kind: str, message: str, *, deployment: str = "", version: str = "", worker: str = "") -> None:
        self._count += 1
        event = Event(self._count, time.time(), kind, message, deployment, version, worker)
        self._ring.append(event)
        about = " ".join(part for part in (deployment, version, worker) if part)
        log.info("%s %s: %s", kind, about, message)
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    @property
    def newest(self) -> int:
        """Sequence of the newest event; 0: there was none."""
        return self._count

    def since(self, sequence: int) -> list[Event]:
        return [event for event in self._ring if event.sequence > sequence]

    async def watch(self, after: int) -> AsyncIterator[Event]:
        """All kept events after a sequence number, then each new one."""
        while True:
            arrived = self._arrived
            for event in self.since(after):
                after = event.sequence
                yield event
            await arrived.wait()
