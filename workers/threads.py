"""The worker's threads: one that fails ends the process."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any


def start(name: str, work: Any, *arguments: Any) -> None:
    threading.Thread(target=_guard, args=(work, *arguments), name=name, daemon=True).start()


def _guard(work: Any, *arguments: Any) -> None:
    """A thread of the worker that fails leaves it half dead: end it, so that the gateway starts a whole one."""
    try:
        work(*arguments)
    except BaseException as bug:  # noqa: BLE001 - the edge of a thread: it ends the process
        print(f"worker thread failed: {type(bug).__name__}: {bug}", file=sys.stderr, flush=True)
        os._exit(5)
