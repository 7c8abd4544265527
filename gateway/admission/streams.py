"""Latest wins: a newer frame of a stream takes the place of the one that still waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.admission.slots import Place
from gateway.errors import Superseded


@dataclass(slots=True)
class Streams:
    """The newest request of each stream that is in flight. A stream is a model and the caller's key for it.

    A frame that a worker has begun is left to it: ending it would waste what the chip has done already.
    """

    _newest: dict[tuple[str, str], Place] = field(default_factory=dict)

    def join(self, model: str, key: str, place: Place) -> None:
        """A newer frame: the one before it ends with Superseded, if no worker has begun it."""
        older = self._newest.get((model, key))
        if older is not None and older.ended is None and older.evict():
            older.ended = Superseded(f"superseded: a newer frame of the stream {key!r} came")
        self._newest[model, key] = place

    def leave(self, model: str, key: str, place: Place) -> None:
        """The frame has been answered, or has ended."""
        if self._newest.get((model, key)) is place:
            del self._newest[model, key]

    def __len__(self) -> int:
        return len(self._newest)
