"""Runs the shows in a short form and draws what happened: docs/failover/*.svg, and their figures in docs/failover.md.

    python -m benchmarks.timelines [CASE ...]

One dot is one request: when it was sent, how long its caller waited, and who served it. Ends with 1 when a show falls
short; what it draws is what happened in any case.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from benchmarks.harness import scratch
from benchmarks.load import Sample

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "failover.md"
PICTURES = ROOT / "docs" / "failover"
CASES: dict[str, list[str]] = {
    "kill": ["--kills", "4"],
    "hang": ["--before", "2", "--seconds", "8", "--hang", "5"],
    "refusal": ["--count", "300", "--pairs", "2", "--window", "3"],
    "overload": ["--seconds", "10", "--light", "5", "--no-sweep"],
    "heat": ["--seconds", "24", "--phase", "2.5", "--after", "12"],
    "never": ["--phase", "2.5", "--calls", "500"],
    "poison": ["--again", "10", "--seconds", "8"],
}
LIMIT = 240.0
"""Seconds for one show."""

WIDTH, HEIGHT = 880, 132
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 34, 20
SHORTEST_MS, LONGEST_MS = 1.0, 200.0
GRID_MS = (1, 3, 10, 30, 100)
MOST_DOTS = 900
"""Of a panel; those that missed their budget are drawn all the same."""
COLOURS = {"the accelerator": "#2563a8", "the CPU": "#d9822b", "nobody": "#b3261e"}
WHO = {"sim": "the accelerator", "cpu": "the CPU"}


@dataclass
class Story:
    """One run."""

    title: str
    marks: list[tuple[float, str]]
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Panel:
    """One diagram of a picture."""

    title: str
    samples: Sequence[Sample]
    marks: Sequence[tuple[float, str]]
    seconds: float

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / self.seconds

    @staticmethod
    def y(ms: float) -> float:
        """Logarithmic: a few milliseconds and a missed budget are both to be seen."""
        clamped = min(max(ms, SHORTEST_MS), LONGEST_MS)
        share = math.log(clamped / SHORTEST_MS) / math.log(LONGEST_MS / SHORTEST_MS)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def stories(path: Path) -> list[Story]:
    """What a show recorded."""
    told: list[Story] = []
    for line in path.read_text().splitlines():
        plain = json.loads(line)
        if "title" in plain:
            told.append(Story(plain["title"], [(at, what) for at, what in plain["marks"]]))
        else:
            told[-1].samples.append(Sample(**plain))
    return told


def panels(told: Sequence[Story]) -> list[Panel]:
    """One for each class of callers of each run."""
    drawn = []
    for story in told:
        seconds = max((s.sent for s in story.samples), default=1.0)
        callers = list(dict.fromkeys(s.caller for s in story.samples))
        callers.sort(key=lambda caller: {"high": 0, "normal": 1, "low": 2}.get(caller, 0))
        for caller in callers:
            title = story.title if len(callers) == 1 else f"{story.title}: {caller}"
            drawn.append(Panel(title, [s for s in story.samples if s.caller == caller], story.marks, seconds))
    return drawn


def svg(told: Sequence[Panel]) -> str:
    """The picture."""
    height = HEIGHT * len(told) + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="11" fill="#333">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, panel in enumerate(told):
        parts += [f'<g transform="translate(0 {number * HEIGHT})">', *_panel(panel), "</g>"]
    parts += [*_legend(height), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(panel: Panel) -> Iterator[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield f'<text x="{LEFT}" y="12" font-weight="bold">{escape(panel.title)}</text>'
    for ms in GRID_MS:
        y = panel.y(ms)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e4e4e4"/>'
        yield f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end" fill="#777">{ms} ms</text>'
    for second in _ticks(panel.seconds):
        yield f'<text x="{panel.x(second):.1f}" y="{floor + 13}" text-anchor="middle" fill="#777">{second:g} s</text>'
    for budget in sorted({s.budget for s in panel.samples if s.budget}):
        y = panel.y(budget * 1e3)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#2e7d32" stroke-dasharray="5 4"/>'
    for at, what in panel.marks:
        x = panel.x(at)
        yield f'<path d="M{x:.1f} {TOP - 8}V{floor}" stroke="#888"/>'
        yield f'<text x="{x + 3:.1f}" y="{TOP - 10}" fill="#555" font-size="10">{escape(what)}</text>'
    for who, colour in COLOURS.items():
        dots = [s for s in panel.samples if _who(s) == who]
        if dots:
            size = 4 if who != "nobody" else 5
            where = "".join(f"M{panel.x(s.sent):.0f} {panel.y(s.latency * 1e3):.0f}h0" for s in _thinned(dots))
            yield f'<path d="{where}" stroke="{colour}" stroke-width="{size}" stroke-linecap="round" opacity=".7"/>'


def _who(sample: Sample) -> str:
    return WHO.get(sample.target, sample.target) if sample.outcome == "served" else "nobody"


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Every so many of those in budget, and all others as long as they are few."""
    step = max(1, math.ceil(len(samples) / MOST_DOTS))
    late = [s for s in samples if not s.in_budget]
    return [s for s in samples if s.in_budget][::step] + late[:: max(1, math.ceil(len(late) / MOST_DOTS))]


def _ticks(seconds: float) -> Iterator[float]:
    step = next(each for each in (1, 2, 5, 10, 20, 60) if seconds / each <= 14 or each == 60)
    yield from range(0, int(seconds) + 1, step)


def _legend(height: int) -> Iterator[str]:
    x = LEFT
    for who, colour in COLOURS.items():
        said = f"served by {who}" if who != "nobody" else "no answer, or a refusal"
        yield f'<circle cx="{x}" cy="{height - 14}" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 8}" y="{height - 10}">{said}</text>'
        x += 160
    yield f'<path d="M{x} {height - 14}h24" stroke="#2e7d32" stroke-dasharray="5 4"/>'
    yield f'<text x="{x + 30}" y="{height - 10}">budget</text>'


def figures(page: str, case: str, verdict: str) -> str:
    """The page with a show's verdict at its place."""
    block = f"<!-- figures: {case} -->\n```\n{verdict}\n```\n<!-- end -->"
    place = re.compile(rf"<!-- figures: {case} -->.*?<!-- end -->", re.DOTALL)
    if not place.search(page):
        raise SystemExit(f"{PAGE.name} has no place for the figures of {case}")
    return place.sub(lambda _: block, page)


def verdict_lines(output: str) -> str:
    """Of what a show printed: what it promises, and the controls."""
    lines = [line for line in output.splitlines() if re.match(r"  (ok    |SHORT |control )", line)]
    return "\n".join(line[2:] for line in lines)


def draw(case: str, folder: Path) -> bool:
    """Run one show, draw it, and put its figures into the page. Whether it held."""
    record = folder / f"{case}.jsonl"
    command = [sys.executable, "-m", f"benchmarks.show.{case}", *CASES[case], "--record", str(record)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT, cwd=ROOT)
    print(done.stdout, flush=True)
    if not record.exists() or not done.stdout:
        raise SystemExit(f"show-{case} ended with {done.returncode} before there was anything to draw")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{case}.svg").write_text(svg(panels(stories(record))))
    PAGE.write_text(figures(PAGE.read_text(), case, verdict_lines(done.stdout)))
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", nargs="*", choices=[*CASES, []], help="by default all")
    options = parser.parse_args()
    with scratch() as folder:
        held = {case: draw(case, folder) for case in options.case or CASES}
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    PAGE.write_text(figures(PAGE.read_text(), "rig", where))
    short = [case for case, well in held.items() if not well]
    print(f"drawn: {', '.join(held)}" + (f"; short: {', '.join(short)}" if short else ""))
    raise SystemExit(1 if short else 0)


if __name__ == "__main__":
    main()
