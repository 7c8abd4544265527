"""The figures that are committed, and whether a new run is worse than they were."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench.figures import Figure
from benchmarks.bench.machine import facts

_SAME = ("processor", "cpus")
"""Facts without which figures can't be compared. Versions may differ: to see what they do is the point."""


@dataclass(frozen=True)
class Saved:
    """One row of the file. ``noise``: how far it may lie from a new figure that is no worse."""

    value: float
    noise: float


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Rows that could not be measured are left out."""
    rows = {f.row.name: {"value": round(f.value, 3), "noise": round(f.noise, 3)} for f in figures if not f.missing}
    path.write_text(json.dumps({"machine": facts(), "rows": rows}, indent=2) + "\n")


@dataclass(frozen=True)
class Baseline:
    """A file of saved rows, and the machine on which they were measured."""

    rows: Mapping[str, Saved]
    machine: Mapping[str, str]

    def elsewhere(self) -> str:
        """What is another machine here; empty: nothing."""
        here = facts()
        differing = [name for name in _SAME if self.machine.get(name) != here[name]]
        return ", ".join(f"{name} was {self.machine.get(name)}, is {here[name]}" for name in differing)


def read(path: Path) -> Baseline:
    """Raises OSError: there is no such file; ValueError: it is not one of ours."""
    try:
        found = json.loads(path.read_text())
        rows = {name: Saved(float(row["value"]), float(row["noise"])) for name, row in found["rows"].items()}
        return Baseline(rows, dict(found["machine"]))
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"{path}: expected a machine, and rows with value and noise; got none: {wrong}") from wrong


def compare(figures: Sequence[Figure], before: Baseline) -> int:
    """Print each row beside what it was; 1 when one is worse by more than the noise, or can't be had now.

    The noise is that of then or of now, whichever is larger: a busy machine must not look like a slow gateway.
    """
    worse = 0
    if elsewhere := before.elsewhere():
        print(f"note   the saved figures are not of this machine ({elsewhere}): make bench-save first")
    for figure in figures:
        row, was = figure.row, before.rows[figure.row.name]
        if figure.missing:
            print(f"WORSE  {row.name:12} {figure.missing}; was {was.value:.2f}")
            worse += 1
            continue
        noise = max(was.noise, figure.noise)
        lost = row.worse_by(figure.value, was.value) > noise
        worse += lost
        word = "WORSE " if lost else "ok    "
        print(f"{word} {row.name:12} {figure.value:.2f}, was {was.value:.2f} +- {noise:.2f}")
    return int(worse > 0)
