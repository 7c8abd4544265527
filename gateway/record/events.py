"""Events: what changed on the device, kept for operators."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

KEPT = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``time``: wall-clock seconds; ``sequence`` counts from 1."""

    sequence: int
    time: float
    kind: str
    message: str
    deployment: str = ""
    version: str = ""
    worker: str = ""


class Events:
    """A bounded ring with watchers. Each event is also one line of the log."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=KEPT)
        self._count = 0
        self._arrived = asyncio.Event()

    def emit(self, kind: str, message: str, *, deployment: str = "", version: str = "", worker: str = "") -> None:
        self._count += 1
        event = Event(self._count, time.time(), kind, message, deployment, version, worker)
        self._ring.append(event)
        about = " ".join(part for part in (deployment, version, worker) if part)
        log.info("%s %s: %s", kind, about, message)
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

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
