"""What is handed on of the answers seen here; ``observation.observer`` has the real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.observation.figures import Figures, Labelled, Seen


class Observer(Protocol):
    """Looks at values, in a process of its own. None of it waits, but for a label's fate."""

    def answered(self, model: str, version: str, request_id: str, outputs: Sequence[Seen]) -> None:
        """``request_id``: by which a label may come; empty: none will."""
        ...

    def compared(self, model: str, version: str, real: Sequence[Seen], shadow: Sequence[Seen]) -> None:
        """What others answered, and what this version, a shadow, answers to the same; nothing: it failed."""
        ...

    def inputs(self, model: str, version: str, request_id: str, inputs: Sequence[Seen]) -> None:
        """A sample to be kept."""
        ...

    async def label(self, model: str, request_id: str, label: str) -> Labelled:
        """Raises NotFound, Conflict."""
        ...

    def figures(self, model: str, version: str) -> Figures: ...
