"""Which front pays: variants of the gateway process against the one that is shipped, on the whole path, interleaved.

    python -m benchmarks.front [--variants uvloop,threads] [--rounds 5] [--seconds 1] [--short] [-o json] [--markdown]

Client -> gateway -> worker -> gateway -> client, with a model that does next to nothing. Each round starts the base,
and beside it each variant; the two are measured one right after the other in every cell (input of 64 B, 0.9 MB and
4.9 MB; 1 and 16 clients), in alternating order. Ratios are those of a round; what is told is their median, with the
lowest and the highest. The variant ``again`` is the base once more: what it shows is noise.

All processes share ``--cores`` CPUs. Ctrl-C ends a run early and tells what was measured. ``--from FILE`` makes the
tables of a run that ``-o json`` wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc

from benchmarks.front.measure import Bench, Figures, Pair
from benchmarks.front.tables import markdown, text
from benchmarks.front.variants import VARIANTS, chosen

WIDTH = 30


class Progress:
    """A bar on stderr, where that is a terminal; elsewhere a line now and then."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._said = steps, 0, 0.0
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        left = (now - self._began) / self._done * (self._steps - self._done) if self._done else 0.0
        filled = WIDTH * self._done // self._steps
        bar = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self._done}/{self._steps}"
        line = f"{bar} {what}{f', {left:.0f} s left' if self._done else ''}"
        self._done += 1
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif now - self._said > 20:
            self._said = now
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "of": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
    }


def pairs_of(run: dict[str, Any]) -> list[Pair]:
    """Those of a run that was written."""
    return [
        Pair(each["variant"], each["size"], each["clients"], Figures(**each["base"]), Figures(**each["other"]))
        for each in run["pairs"]
    ]


def conditions(run: dict[str, Any]) -> str:
    """A sentence on how a run was made."""
    its = run["machine"]
    stopped = "" if run["complete"] else " (ended early)"
    return (
        f"{run['rounds']} rounds{stopped} of {run['seconds']:g} s, all processes on {its['cpus']} CPUs of {its['of']},"
        f" load {its['load']:.1f} when it began, Linux {its['kernel']}, Python {its['python']}, grpcio {its['grpcio']}."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.front", description=(__doc__ or "").splitlines()[0])
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument("--variants", default="", help=f"of {names}; comma-separated [default: all]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--short", action="store_true", help="one round of 0.3 s: does it work, not what is faster")
    parser.add_argument("--cores", type=int, default=2, help="CPUs that all processes share")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="tables of a run that was written")
    parser.add_argument("-o", "--output", choices=["text", "json", "markdown"], default="text")
    parser.add_argument("--markdown", dest="output", action="store_const", const="markdown", help="same as -o markdown")
    options = parser.parse_args(arguments)
    try:
        options.chosen = chosen(options.variants)
    except ValueError as unknown:
        parser.error(str(unknown))
    if options.short:
        options.rounds, options.seconds = 1, 0.3
    return options


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """A run, as it is written."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    before = machine()
    bench = Bench(options.chosen, options.rounds, options.seconds, lambda what: progress(what))
    progress = Progress(bench.steps)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    complete = True
    try:
        bench.run()
    except KeyboardInterrupt:
        complete = False
    progress.end()
    return {
        "machine": before,
        "complete": complete,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "pairs": [asdict(pair) for pair in bench.pairs],
        "missing": bench.missing,
    }


def main() -> None:
    options = parse()
    run = json.loads(options.source.read_text()) if options.source else measured(options)
    pairs = pairs_of(run)
    if options.output == "json":
        print(json.dumps(run, indent=1))
    else:
        print(conditions(run) + "\n")
        print((markdown if options.output == "markdown" else text)(pairs, run["missing"]))
    failed = sum(figures.failed for pair in pairs for figures in (pair.base, pair.other))
    if failed:
        print(f"{failed} calls were not answered", file=sys.stderr)
    raise SystemExit(1 if failed or not pairs else 0)


if __name__ == "__main__":
    main()
