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
    del stage, number
    said = answer_of("benchmarks.start", "--launches", str(effort.launches))
    try:
        first, direct = (float(said[server]["firstAnswerSeconds"]) for server in ("gateway", "direct"))
    except (KeyError, TypeError) as wrong:
        raise NotMeasured(f"not measured: benchmarks.start says nothing of {wrong}") from wrong
    return {"start": Reading(first, {"direct s": direct})}


def memory(stage: Stage, effort: Effort, number: int) -> Mapping[str, Reading]:
    del stage, number
    said = answer_of("benchmarks.memory", "--requests", str(effort.requests))
    try:
        ours, direct = float(said["pssMB"]), float(said["direct"]["pssMB"])
    except (KeyError, TypeError) as wrong:
        raise NotMeasured(f"not measured: benchmarks.memory says nothing of {wrong}") from wrong
    return {"memory": Reading(ours, {"direct MB": direct})}


def answer_of(module: str, *arguments: str) -> Any:
    """The JSON of a script; its own verdict does not count.

    Raises:
        NotMeasured: there is no such script, or it printed none.
    """
    if importlib.util.find_spec(module) is None:
        raise NotMeasured(f"not measured: there is no {module}")
    command = [sys.executable, "-m", module, *arguments, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    try:
        return json.loads(done.stdout)
    except ValueError as wrong:
        last = done.stderr.strip().rpartition("\n")[2]
        raise NotMeasured(f"not measured: {module} ended with {done.returncode}: {last}") from wrong
