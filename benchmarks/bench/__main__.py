"""All that the gateway costs, as ratios to bare Python gRPC and to ONNX Runtime, measured in one run.

python -m benchmarks.bench [ROW ...] [--short] [--rounds N] [-o json]
python -m benchmarks.bench --save FILE | --check FILE
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.bench import saved
from benchmarks.bench.effort import FULL, SHORT
from benchmarks.bench.figures import Figure
from benchmarks.bench.machine import facts
from benchmarks.bench.measure import measure
from benchmarks.bench.rows import ROWS, chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(row.name for row in ROWS)}; none: all")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; shows that it works, no more")
    parser.add_argument("--rounds", type=int, help="in which all systems take turns; 5")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--save", type=Path, metavar="FILE", help="write ratios and noise there")
    kept.add_argument("--check", type=Path, metavar="FILE", help="fail where a row is worse than it was there")
    options = parser.parse_args()
    try:
        rows = chosen(options.rows)
        before = saved.read(options.check) if options.check else None
    except (ValueError, OSError) as wrong:
        parser.error(str(wrong))
    effort = SHORT if options.short else FULL
    effort = replace(effort, rounds=options.rounds or effort.rounds)
    if before is not None:
        rows = [row for row in rows if row.name in before.rows]
    figures = measure(rows, effort)
    if options.save:
        saved.write(options.save, figures)
        report(figures, options.output, partial=True)
        return 0
    if before is not None:
        return saved.compare(figures, before)
    return report(figures, options.output, partial=options.short)


def report(figures: list[Figure], output: str, partial: bool) -> int:
    """Print them; 1 when one is short, has failed or, unless the run is ``partial``, is absent."""
    if output == "json":
        print(json.dumps({"machine": facts(), "rows": [figure.plain() for figure in figures]}, indent=2))
    else:
        print(f"machine {', '.join(f'{name} {fact}' for name, fact in facts().items())}")
        for figure in figures:
            print(figure.line())
    tolerated = {"ok", "absent"} if partial else {"ok"}
    return int(any(figure.state not in tolerated for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
