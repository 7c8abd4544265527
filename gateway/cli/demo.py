"""``edgeway demo``."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live

from gateway.cli.errors import fail
from gateway.demo.scenario import Scenario, Signal, load_scenario, scenario_files, signals
from gateway.demo.signalling import Signaller
from gateway.demo.stage import Stage, StageFailedError, camera, stage, stated_accuracy
from gateway.demo.tally import Check, Tally, judge
from gateway.demo.view import live, plain, table, verdict
from gateway.strict_yaml import ConfigError

DEFAULT = "failover"
_SHOWN_NEWS = 4
_PICTURE_WIDTH = 116


def _scenario_path(_: click.Context, __: click.Parameter, value: str) -> Path:
    """The file of a scenario that is given by its name or its path."""
    files = scenario_files()
    path = files.get(value, Path(value))
    if not path.is_file():
        known = ", ".join(files) or "the scenarios (reinstall edgeway)"
        raise click.BadParameter(f"{value!r} is no file and none of {known}")
    return path


@click.command(short_help="See it work: a camera, and an accelerator that fails.")
@click.option("--seconds", type=click.FloatRange(min=5, max=3600), help="How long to play; all its times follow.")
@click.option(
    "--scenario",
    "path",
    metavar="NAME|FILE",
    callback=_scenario_path,
    default=DEFAULT,
    show_default=True,
    help=f"One of {', '.join(scenario_files())}, or a file like those in examples/scenarios.",
)
@click.option("--plain", "lines", is_flag=True, help="Lines instead of a live table; so without a terminal, too.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Save the last screen as a picture.")
def demo(seconds: float | None, path: Path, lines: bool, svg: Path | None) -> None:
    """Play a 30 Hz camera of handwritten digits while a simulated accelerator gets busy, hot and killed.

    Real images, real inference, real processes and a real SIGKILL; only the accelerator is simulated. Succeeds when no
    request failed, accelerator and CPU both served, 95 % came within the budget of 20 ms, and the digits were read as
    well as the model can. Other scenarios play, and expect, something else.
    """
    console = Console()
    try:
        scenario = load_scenario(path)
    except ConfigError as wrong:
        fail(str(wrong))
    show = Play(console, scenario.lasting(seconds or scenario.seconds), lines or not console.is_terminal)
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
    """One play of a scenario."""

    def __init__(self, console: Console, scenario: Scenario, lines: bool) -> None:
        self._console = console
        self._scenario = scenario
        self._lines = lines
        budget = scenario.load.budget_ms
        self._tallies = [Tally(budget) for _ in scenario.phases]
        self._total = Tally(budget)
        self._news: deque[str] = deque(maxlen=_SHOWN_NEWS)
        self._current = 0

    def run(self, folder: Path) -> Sequence[Check]:
        """Play it; what was found."""
        console, scenario = self._console, self._scenario
        waiting = console.status("starting a gateway with a CPU worker and a simulated accelerator")
        with waiting, stage(folder, scenario) as started:
            waiting.stop()
            if self._lines:
                self._watch(started, None)
            else:
                with Live(console=console, refresh_per_second=8, transient=True) as screen:
                    self._watch(started, screen)
        by_name = {phase.name: tally for phase, tally in zip(scenario.phases, self._tallies, strict=True)}
        frames = round(scenario.seconds * scenario.load.rate)
        checks = judge(scenario.expect, self._total, by_name, frames, stated_accuracy())
        if self._lines:
            console.print(plain("all", self._total), soft_wrap=True, highlight=False)
            console.print(verdict(checks), soft_wrap=True)
        else:
            console.print(self.result(checks))
        return checks

    def result(self, checks: Sequence[Check]) -> Group:
        """The last screen."""
        return Group(table(self._scenario, self._tallies, self._total, None), verdict(checks))

    def _watch(self, started: Stage, screen: Live | None) -> None:
        phases, due = self._scenario.phases, deque(signals(self._scenario))
        with contextlib.closing(Signaller(started.pid_of)) as signaller, camera(started, self._scenario) as seen:
            for line in seen:
                at = line["at"]
                while self._current + 1 < len(phases) and at >= phases[self._current].end:
                    self._end_phase()
                self._tallies[self._current].add(line)
                self._total.add(line)
                while due and at >= due[0].at:
                    self._signal(signaller, due.popleft(), at)
                if screen is not None:
                    screen.update(live(self._scenario, self._tallies, self._total, self._current, self._news))
        self._end_phase()

    def _signal(self, signaller: Signaller, what: Signal, at: float) -> None:
        pid = signaller.send(what)
        if pid:
            self._tell(f"{at:5.1f} s  {what.name} to the worker {what.worker}, pid {pid}")

    def _end_phase(self) -> None:
        if self._lines:
            self._console.print(
                plain(self._scenario.phases[self._current].heading, self._tallies[self._current]),
                soft_wrap=True,
                highlight=False,
            )
        self._current = min(self._current + 1, len(self._scenario.phases) - 1)

    def _tell(self, news: str) -> None:
        self._news.append(news)
        if self._lines:
            self._console.print(news, soft_wrap=True, highlight=False)
