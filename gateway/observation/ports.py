"""What is handed on of the answers seen here; ``observation.observer`` has the real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.observation.figures import Figures, Labelled, Seen, Watched


class Observer(Protocol):
    """Looks at values, in a process of its own. None of it waits, but for what a label says."""

    @property
    def figures(self) -> Mapping[tuple[str, str], Figures]:
        """By model and version."""
        ...

    @property
    def dropped(self) -> int:
        """What it had no room for."""
        ...

    def watch(self, model: str, version: str, watched: Watched) -> None: ...

    def forget(self, model: str, version: str) -> None: ...

    def answered(self, model: str, version: str, request_id: str, outputs: Sequence[Seen]) -> None:
        """``request_id``: by which a label may come; empty: none will."""
        ...

    def compared(self, model: str, version: str, real: Sequence[Seen], shadow: Sequence[Seen]) -> None:
        """What others answered, and what this version, a shadow, answers to the same; nothing: it failed."""
        ...

    def sample_due(self, model: str, version: str) -> bool:
        """Whether the inputs of this request are to be kept; asked once for each."""
        ...

    def inputs(self, model: str, version: str, request_id: str, inputs: Sequence[Seen]) -> None: ...

    async def label(self, model: str, request_id: str, label: str) -> Labelled:
        """Raises NotFound, and other errors of ours."""
        ...
