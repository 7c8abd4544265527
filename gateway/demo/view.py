"""How the demonstration looks: a table per phase on a terminal, lines without one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.demo.scenario import Scenario
from gateway.demo.tally import Check, Tally


def table(scenario: Scenario, tallies: Sequence[Tally], total: Tally, current: int | None) -> Table:
    """The figures so far; ``current`` is the phase that is on."""
    load = scenario.load
    title = f"digits: a {load.rate:g} Hz camera, frames of 480x640x3, budget {load.budget_ms:g} ms"
    shown = Table(title=title, title_justify="left")
    for heading, justify in (
        ("", "left"),
        ("frames", "right"),
        ("simulated\naccelerator", "right"),
        ("CPU", "right"),
        ("why not the accelerator", "left"),
        ("p50 ms", "right"),
        ("p99 ms", "right"),
        ("over\nbudget", "right"),
        ("failed", "right"),
        ("accuracy", "right"),
    ):
        shown.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for index, (phase, tally) in enumerate(zip(scenario.phases, tallies, strict=True)):
        style = "bold" if index == current else "dim" if not tally.frames else ""
        shown.add_row(("> " if index == current else "  ") + phase.heading, *_cells(tally), style=style)
    shown.add_section()
    shown.add_row("  all", *_cells(total), style="bold")
    return shown


def _cells(tally: Tally) -> list[str]:
    if not tally.frames:
        return [""] * 9
    p50, p99 = tally.quantile(0.50), tally.quantile(0.99)
    return [
        str(tally.frames),
        str(tally.kinds["simulated"]),
        str(tally.kinds["cpu"]),
        ", ".join(f"{reason} {count}" for reason, count in tally.reasons.most_common()),
        "" if p50 is None else f"{p50:.1f}",
        "" if p99 is None else f"{p99:.1f}",
        str(tally.late),
        str(len(tally.failures)),
        f"{tally.accuracy:.1%}",
    ]


def live(
    scenario: Scenario,
    tallies: Sequence[Tally],
    total: Tally,
    current: int | None,
    news: Sequence[str],
) -> RenderableType:
    """What the terminal shows meanwhile: the table and the last events."""
    return Group(table(scenario, tallies, total, current), *(Text(line, style="dim") for line in news))


def verdict(checks: Sequence[Check]) -> Group:
    """What was asked and found, one line each."""
    return Group(
        *(
            Text.assemble(
                ("ok    " if check.passed else "FAILED", "green" if check.passed else "bold red"), " ", check.figure
            )
            for check in checks
        )
    )


def plain(title: str, tally: Tally) -> str:
    """One stretch in one line, for logs."""
    if not tally.frames:
        return f"{title}: no frames"
    why = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.most_common()) or "-"
    p50, p99 = tally.quantile(0.50) or 0.0, tally.quantile(0.99) or 0.0
    return (
        f"{title}: {tally.frames} frames, simulated accelerator {tally.kinds['simulated']}, CPU {tally.kinds['cpu']}"
        f" ({why}), p50 {p50:.1f} ms, p99 {p99:.1f} ms, over budget {tally.late}, failed {len(tally.failures)},"
        f" accuracy {tally.accuracy:.1%}"
    )
