"""Runs a module and counts what its main thread does in Python.

    python -m benchmarks.counts.counted FILE MODULE [ARGUMENT ...]

The first SIGUSR2 begins the count, the second ends it and writes FILE: calls of Python and C functions in the main
thread between the two, and by how many blocks of memory the interpreter has grown. A third begins again.
"""

from __future__ import annotations

import gc
import json
import runpy
import signal
import sys
from pathlib import Path
from typing import Any


class Counter:
    """``note`` is the signal's handler, which Python calls in the main thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = 0
        self._blocks: int | None = None

    def note(self, *_: object) -> None:
        if self._blocks is None:
            self._calls = 0
            gc.collect()
            self._blocks = sys.getallocatedblocks()
            self._write({"began": True})
            sys.setprofile(self._count)
        else:
            sys.setprofile(None)
            gc.collect()
            found = {"calls": self._calls, "blocks": sys.getallocatedblocks() - self._blocks}
            self._blocks = None
            self._write(found)

    def _count(self, frame: object, event: str, argument: object) -> None:
        del frame, argument
        self._calls += event in ("call", "c_call")

    def _write(self, found: dict[str, Any]) -> None:
        whole = self._path.with_suffix(".tmp")
        whole.write_text(json.dumps(found))
        whole.rename(self._path)


def main() -> None:
    del sys.argv[0]
    signal.signal(signal.SIGUSR2, Counter(Path(sys.argv.pop(0))).note)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
