"""How verbs print: a table for people, JSON or YAML for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def show(rows: Sequence[Row], form: str, columns: Sequence[tuple[str, str]], nothing: str) -> None:
    """Print rows.

    Args:
        rows: whole, as JSON shows them.
        columns: (heading, path in a row with dots) of the table.
        nothing: the line instead of an empty table.
    """
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
    elif form == "yaml":
        click.echo(yaml.safe_dump(list(rows), sort_keys=False).rstrip())
    elif not rows:
        click.echo(nothing)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, _ in columns:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(_text(_at(row, path)) for _, path in columns))
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=200)
        console.print(table)


def progress_text(status: Any) -> str:
    """The state of a version and, while it is fetched, how far that is: ``fetching 12.5 of 50.0 MB``."""
    if not status.HasField("progress"):
        return str(status.state)
    done, total = status.progress.done / 1e6, status.progress.total / 1e6
    return f"{status.state} {done:.1f} of {total:.1f} MB" if total else f"{status.state} {done:.1f} MB"


def stamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC; empty for 0."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _at(row: Row, path: str) -> Any:
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
