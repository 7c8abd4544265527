"""A bar on stderr for whoever watches; nothing where nobody does."""

from __future__ import annotations

import sys
from types import TracebackType

WIDTH = 30


class Progress:
    """``total`` steps."""

    def __init__(self, total: int, shown: bool | None = None) -> None:
        self._total = total
        self._done = 0
        self._shown = sys.stderr.isatty() if shown is None else shown

    def begin(self, what: str) -> None:
        """Say what comes next."""
        if self._shown:
            filled = WIDTH * self._done // self._total
            bar = "#" * filled + "." * (WIDTH - filled)
            print(f"\r[{bar}] {self._done}/{self._total} {what:40.40}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        self._done += 1

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
