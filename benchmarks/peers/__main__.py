"""Edgeway against other servers that run the same models.

    python -m benchmarks.peers [--peers NAME...] [--rows NAME...] [--rounds 5] [--short] [-o text|json|bounds]

Exits 1 when a row is short, and, with 5 rounds or more, when one could not be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.harness import Verdict, scratch
from benchmarks.peers import models
from benchmarks.peers.client import Client
from benchmarks.peers.rows import ROUNDS, ROWS, UNITS, Judged, chosen, exit_code, judge
from benchmarks.peers.runs import OURS, Lengths, Run, Samples, duration, installed
from benchmarks.peers.servers import Server

SHORT = Lengths(loop=0.5, warm=0.2, open=4.0)
NAMES = {"mlserver": "MLServer", "kserve": "KServe", "triton": "Triton (Python backend)"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME", help="mlserver, kserve, triton")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} give a verdict (with --short: 1)")
    parser.add_argument("--short", action="store_true", help="short loops: whether all can be measured, not how well")
    parser.add_argument("-o", "--output", choices=["text", "json", "bounds"], default="text")
    options = parser.parse_args()
    try:
        rows = chosen(options.peers, options.rows)
    except ValueError as unknown:
        parser.error(str(unknown))
    if not rows:
        parser.error("no row has both")
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        print("peers: two CPUs are needed, one for the servers and one for the client", file=sys.stderr)
        return 1
    rounds = options.rounds or (1 if options.short else ROUNDS)
    lengths = SHORT if options.short else Lengths()
    os.sched_setaffinity(0, {cpus[1]})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    samples = Samples()
    with scratch() as folder, progress(duration(rows, rounds, lengths)) as step:
        found = installed(rows, samples, lambda what: step(what, 0.0))
        step("models", 0.0)
        vision = models.write(folder / "models")
        with Client(folder / "models", cpus[1]) as client:

            def launch(name: str, collector: str) -> Server:
                return Server(name, folder / "models", folder / "work", cpus[0], collector)

            Run(client, launch, lengths, samples).measure(rows, rounds, step)
    judged = [judge(row, samples.figure(row)) for row in rows]
    about = {"rounds": rounds, "visionMs": round(vision * 1e3, 2), "machine": machine(), "versions": found}
    {"text": _text, "json": _json, "bounds": _bounds}[options.output](judged, samples, about)
    return exit_code(judged, rounds)


@contextlib.contextmanager
def progress(seconds: float) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr, told what begins and how many seconds it takes."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    # Drawn at each step only: a bar that moves takes the client's CPU.
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("begin", total=seconds)
        before = [0.0]

        def step(what: str, takes: float) -> None:
            bar.update(task, advance=before[0], description=what, refresh=True)
            before[0] = takes

        yield step


def machine() -> dict[str, Any]:
    """What ran it."""
    with open("/proc/cpuinfo") as lines:  # noqa: PTH123
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": named[0] if named else platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def controls(samples: Samples) -> dict[str, Any]:
    """What the same run says of itself: an echo against itself, the bare server, how late the client sent at worst."""
    once, again = (samples.values.get((name, "latency", "small"), []) for name in ("echo", "echo-again"))
    said: dict[str, Any] = {}
    if once and len(once) == len(again):
        ratios = [b / a for a, b in zip(once, again, strict=True)]
        said["echoAgainstItself"] = round(statistics.median(ratios), 3)
        said["echoRounds"] = [round(ratio, 3) for ratio in ratios]
        said["echoP50Ms"] = round(statistics.median(once), 3)
    for (name, kind, load), values in samples.values.items():
        if name == "direct" and kind in ("latency", "open"):
            said[f"direct{kind.capitalize()}{load.capitalize()}Ms"] = round(statistics.median(values), 3)
        if kind == "openClientLateMs":
            said[kind] = max(said.get(kind, 0.0), round(max(values), 1))
    return said


def _row(each: Judged) -> dict[str, Any]:
    row, figure = each.row, each.figure
    said: dict[str, Any] = {"name": row.name, "peer": row.peer, "what": row.text, "unit": UNITS[row.kind]}
    said |= {"state": each.state, "bound": row.bound, "aim": row.aim, "aimReached": each.aim_reached}
    if each.ratio is None:
        return said | {"why": figure.missing}
    said |= {"ratio": round(each.ratio, 3), "ratios": [round(ratio, 3) for ratio in figure.ratios]}
    return said | {"ours": [round(v, 3) for v in figure.ours], "theirs": [round(v, 3) for v in figure.theirs]}


def _json(judged: Sequence[Judged], samples: Samples, about: Mapping[str, Any]) -> None:
    everything = {
        f"{server} {kind} {load}".strip(): [round(value, 4) for value in values]
        for (server, kind, load), values in samples.values.items()
    }
    document = {**about, "rows": [_row(each) for each in judged], "control": controls(samples)}
    print(json.dumps({**document, "notes": samples.notes, "samples": everything}, indent=2))


def _text(judged: Sequence[Judged], samples: Samples, about: Mapping[str, Any]) -> None:
    table = Table("row", "", "Edgeway", "peer", "ratio", "rounds", "bound", "aim", "", box=None, pad_edge=False)
    for each in judged:
        row, figure = each.row, each.figure
        limits = f"{row.bound:g}", f"{row.aim:g}"
        if each.ratio is None:
            table.add_row(row.name, row.text, "", "", "", "", *limits, f"not measured: {figure.missing}")
            continue
        sides = (f"{statistics.median(side):.3g} {UNITS[row.kind]}" for side in (figure.ours, figure.theirs))
        spread = f"{min(figure.ratios):.2f}-{max(figure.ratios):.2f}"
        state = each.state + (", aim reached" if each.aim_reached else "")
        table.add_row(row.name, row.text, *sides, f"{each.ratio:.3f}", spread, *limits, state)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(f"control: {controls(samples)}")
    print(f"notes: { {name: round(value, 1) for name, value in samples.notes.items()} }")
    print(f"about: {json.dumps(about)}")


def _bounds(judged: Sequence[Judged], samples: Samples, about: Mapping[str, Any]) -> None:
    verdict = Verdict(f"Edgeway against other servers, {about['rounds']} rounds; CNN of {about['visionMs']} ms")
    if said := controls(samples):
        verdict.control(f"of the same run: {said}")
    for each in judged:
        row, figure, unit = each.row, each.figure, UNITS[each.row.kind]
        head = f"{NAMES[row.peer]}, {row.text}"
        if each.ratio is None:
            if about["rounds"] >= ROUNDS:
                verdict.check(False, f"{head}: not measured, {figure.missing}")
            else:
                print(f"  none   {head}: not measured, {figure.missing}")
            continue
        mine, other = (f"{statistics.median(side):.3g} {unit}" for side in (figure.ours, figure.theirs))
        spread = f"rounds {min(figure.ratios):.2f} to {max(figure.ratios):.2f}"
        aim = "aim reached" if each.aim_reached else f"aim {row.aim:g}"
        sides = f"{OURS} {mine}, {row.peer} {other}; {spread}"
        verdict.check(each.state == "ok", f"{head}: {each.ratio:.3f} (at most {row.bound:g}, {aim}); {sides}")


if __name__ == "__main__":
    raise SystemExit(main())
