"""``edgeway demo``."""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live

from gateway.cli.errors import fail
from gateway.demo.script import SCENARIOS, kill_times, phases_of
from gateway.demo.stage import Stage, StageFailedError, camera, stage, stated_accuracy
from gateway.demo.tally import Check, Tally, judge
from gateway.demo.view import live, plain, table, verdict

RATE = 30.0
BUDGET_MS = 20.0
_SHOWN_NEWS = 4
_PICTURE_WIDTH = 116


@click.command(short_help="See it work: a camera, and an accelerator that fails.")
@click.option("--seconds", type=click.FloatRange(min=5, max=3600), default=30, show_default=True)
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="failover", show_default=True)
@click.option("--plain", "lines", is_flag=True, help="Lines instead of a live table; so without a terminal, too.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Save the last screen as a picture.")
def demo(seconds: float, scenario: str, lines: bool, svg: Path | None) -> None:
    """Play a 30 Hz camera of handwritten digits while a simulated accelerator gets busy, hot and killed.

    Real images, real inference, real processes and a real SIGKILL; only the accelerator is simulated. Succeeds when no
    request failed, accelerator and CPU both served, 95 % came within the budget of 20 ms, and the digits were read as
    well as the model can.
    """
    console = Console()
    show = Play(console, scenario, seconds, lines or not console.is_terminal)
    try:
        with tempfile.TemporaryDirectory(prefix="edgeway-demo-") as folder:
            checks = show.run(Path(folder))
    except StageFailedError as failed:
        fail(str(failed))
    except KeyboardInterrupt:
        fail("interrupted")
    if svg is not None:
        picture = Console(record=True, width=_PICTURE_WIDTH, file=io.StringIO())
        picture.print("$ make demo", style="bold")
        picture.print(show.result(checks))
        svg.write_text(picture.export_svg(title="edgeway demo"))
    if not all(check.passed for check in checks):
        raise SystemExit(1)


class Play:
    """One run of the demonstration."""

    def __init__(self, console: Console, scenario: str, seconds: float, lines: bool) -> None:
        self._console = console
        self._seconds = seconds
        self._lines = lines
        self._phases = phases_of(scenario, seconds)
        self._tallies = [Tally(BUDGET_MS) for _ in self._phases]
        self._total = Tally(BUDGET_MS)
        self._news: deque[str] = deque(maxlen=_SHOWN_NEWS)
        self._current = 0

    def run(self, folder: Path) -> Sequence[Check]:
        """Play it; what was found."""
        console = self._console
        waiting = console.status("starting a gateway with a CPU worker and a simulated accelerator")
        with waiting, stage(folder, self._phases) as started:
            waiting.stop()
            if self._lines:
                self._watch(started, None)
            else:
                with Live(console=console, refresh_per_second=8, transient=True) as screen:
                    self._watch(started, screen)
        checks = judge(self._total, round(self._seconds * RATE), stated_accuracy())
        if self._lines:
            console.print(plain("all", self._total), soft_wrap=True, highlight=False)
            console.print(verdict(checks), soft_wrap=True)
        else:
            console.print(self.result(checks))
        return checks

    def result(self, checks: Sequence[Check]) -> Group:
        """The last screen."""
        return Group(table(self._phases, self._tallies, self._total, None), verdict(checks))

    def _watch(self, started: Stage, screen: Live | None) -> None:
        kills = deque(kill_times(self._phases))
        with camera(started, self._seconds, RATE) as seen:
            for line in seen:
                at = line["at"]
                while self._current + 1 < len(self._phases) and at >= self._phases[self._current].end:
                    self._end_phase()
                self._tallies[self._current].add(line)
                self._total.add(line)
                if kills and at >= kills[0]:
                    kills.popleft()
                    pid = started.kill_accelerator()
                    self._tell(
                        f"{at:5.1f} s  SIGKILL to the accelerator's worker, pid {pid}" if pid else f"{at:5.1f} s  -"
                    )
                if screen is not None:
                    screen.update(live(self._phases, self._tallies, self._total, self._current, self._news))
        self._end_phase()

    def _end_phase(self) -> None:
        if self._lines:
            self._console.print(
                plain(self._phases[self._current].title, self._tallies[self._current]), soft_wrap=True, highlight=False
            )
        self._current = min(self._current + 1, len(self._phases) - 1)

    def _tell(self, news: str) -> None:
        self._news.append(news)
        if self._lines:
            self._console.print(news, soft_wrap=True, highlight=False)
