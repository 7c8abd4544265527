"""Rows that scripts of their own measure: start and memory."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.bench.effort import Effort
from benchmarks.bench.figures import NotMeasured, Reading
from benchmarks.bench.stage import Stage

LIMIT = 300.0


def start(stage: Stage, effort: Effort, number: int) -> Mapping[str, Reading]:
    del stage, effort, number
    return {"start": Reading(figure("benchmarks.start", "seconds"))}


def memory(stage: Stage, effort: Effort, number: int) -> Mapping[str, Reading]:
    del stage, number
    return {"memory": Reading(figure("benchmarks.memory", "pssMB", "--requests", str(effort.requests)))}


def figure(module: str, key: str, *arguments: str) -> float:
    """What the script says with ``-o json`` under this key; its own verdict does not count.

    Raises:
        NotMeasured: there is no such script, or it says nothing of the kind.
    """
    if importlib.util.find_spec(module) is None:
        raise NotMeasured(f"not measured: there is no {module}")
    command = [sys.executable, "-m", module, *arguments, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    try:
        said: Any = json.loads(done.stdout)
        return float(said[key])
    except (ValueError, KeyError, TypeError) as wrong:
        last = done.stderr.strip().rpartition("\n")[2] or f"no {key!r} in its JSON"
        raise NotMeasured(f"not measured: {module} ended with {done.returncode}: {last}") from wrong
