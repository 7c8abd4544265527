"""MemoryRelief: what follows when memory becomes short, and when it is there again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.device.memory import MemoryState


class Room(Protocol):
    """What can make room and use it; ``models.catalog.Catalog`` is the real one."""

    def relieve(self) -> list[str]:
        """Unload what nobody uses."""
        ...

    def retry(self) -> list[str]:
        """Bring up again what there was no room for, as far as there is now."""
        ...


class MemoryRelief:
    """Told of every sample of memory: makes room while it is short, and uses it when it is not."""

    def __init__(self, room: Room, emit: Callable[[str, str], object]) -> None:
        """``emit(kind, message)`` records an event."""
        self._room = room
        self._emit = emit
        self._pressed = False

    def sampled(self, state: MemoryState) -> None:
        if state.pressed != self._pressed:
            self._pressed = state.pressed
            if state.pressed:
                self._emit("memory-pressure", f"tasks wait for memory {state.pressure_percent or 0:.0f} % of the time")
            else:
                self._emit("memory-calm", "memory is not short any more")
        if state.pressed:
            self._room.relieve()
        else:
            self._room.retry()
