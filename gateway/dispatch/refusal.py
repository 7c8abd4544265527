"""What a worker program says when it can't start: code, reason and remedy."""

from __future__ import annotations

import json

from edgeway.process import UNAVAILABLE

MISSING_INTERPRETER = "missing-interpreter"


def refused(line: str) -> dict[str, str] | None:
    """Code, reason and remedy, where a worker program says in this line why it can't start."""
    if not line.startswith(UNAVAILABLE):
        return None
    try:
        told = json.loads(line.removeprefix(UNAVAILABLE))
        return {key: str(told.get(key, "")) for key in ("code", "reason", "remedy")}
    except (ValueError, AttributeError):
        return None


def no_interpreter(python: str, failed: OSError) -> tuple[str, str]:
    """Reason and remedy of one that can't be started."""
    return f"the interpreter {python} can't be started: {failed.strerror}", "correct workers[].python, or install it"
