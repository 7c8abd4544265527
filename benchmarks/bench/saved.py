"""The figures that are committed, and whether a new run is worse than they were."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench.figures import Figure
from benchmarks.bench.machine import facts


@dataclass(frozen=True)
class Saved:
    """One row of the file. ``noise``: how far it may lie from a new figure that is no worse."""

    value: float
    noise: float


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Rows that could not be measured are left out."""
    rows = {f.row.name: {"value": round(f.value, 3), "noise": round(f.noise, 3)} for f in figures if not f.missing}
    path.write_text(json.dumps({"machine": facts(), "rows": rows}, indent=2) + "\n")


def read(path: Path) -> dict[str, Saved]:
    """Raises OSError: there is no such file; ValueError: it is not one of ours."""
    try:
        rows = json.loads(path.read_text())["rows"]
        return {name: Saved(float(row["value"]), float(row["noise"])) for name, row in rows.items()}
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"{path}: expected rows with value and noise, got none: {wrong}") from wrong


def compare(figures: Sequence[Figure], before: Mapping[str, Saved]) -> int:
    """Print each row beside what it was; 1 when one is worse by more than the noise of then, or can't be had now."""
    worse = 0
    for figure in figures:
        row, was = figure.row, before[figure.row.name]
        if figure.missing:
            print(f"WORSE  {row.name:12} {figure.missing}; was {was.value:.2f}")
            worse += 1
            continue
        lost = row.worse_by(figure.value, was.value) > was.noise
        worse += lost
        print(
            f"{'WORSE ' if lost else 'ok    '} {row.name:12} {figure.value:.2f}, was {was.value:.2f} +- {was.noise:.2f}"
        )
    return int(worse > 0)
