"""One run of the benchmarks: the rounds are outermost, so that slow changes meet all rows alike."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import grpc

from benchmarks.bench.effort import Effort
from benchmarks.bench.figures import Figure, NotMeasured, Reading
from benchmarks.bench.probes import PROBES, Probe
from benchmarks.bench.progress import Progress
from benchmarks.bench.rows import Row
from benchmarks.bench.stage import Stage, stage


def measure(rows: Sequence[Row], effort: Effort) -> list[Figure]:
    """A figure for each row, in the rows' order."""
    wanted = {row.name for row in rows}
    probes = [probe for probe in PROBES if wanted & set(probe.rows)]
    readings: dict[str, list[Reading]] = {row.name: [] for row in rows}
    missing: dict[str, tuple[str, bool]] = {}
    steps = sum(min(probe.rounds, effort.rounds) for probe in probes)
    with stage() as on, Progress(steps) as progress:
        for number in range(effort.rounds):
            for probe in probes:
                if number >= probe.rounds:
                    continue
                progress.begin(f"round {number + 1}: {', '.join(probe.rows)}")
                if not missing.keys() & set(probe.rows):
                    _round(probe, on, effort, number, readings, missing)
                progress.end()
    return [Figure(row, tuple(readings[row.name]), *missing.get(row.name, ("", False))) for row in rows]


def _round(
    probe: Probe,
    on: Stage,
    effort: Effort,
    number: int,
    readings: dict[str, list[Reading]],
    missing: dict[str, tuple[str, bool]],
) -> None:
    """One that fails costs its rows, not the minutes that the others have taken."""
    try:
        found = probe.once(on, effort, number)
    except NotMeasured as why:
        missing.update(dict.fromkeys(probe.rows, (str(why), False)))
    except (RuntimeError, OSError, subprocess.SubprocessError, grpc.RpcError) as failed:
        missing.update(dict.fromkeys(probe.rows, (f"failed: {type(failed).__name__}: {failed}"[:300], True)))
    else:
        for name in found.keys() & readings.keys():
            readings[name].append(found[name])
