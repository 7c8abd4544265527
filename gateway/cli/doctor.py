"""``edgeway doctor``: what this device could run on, and why not."""

from __future__ import annotations

import json
import subprocess
import sys

import click

from gateway.cli.errors import fail
from gateway.cli.output import Row, show
from gateway.dispatch.launch import PROGRAM

_LIMIT = 60.0
"""Seconds; a vendor's library may look for its device for long."""


@click.command(short_help="List backends: available or not, and why.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@click.option(
    "--python", metavar="FILE", default=sys.executable, help="Interpreter of the worker, where it is another."
)
def doctor(form: str, python: str) -> None:
    """List every backend: whether it can work on this device, because of what, and how to enable it.

    Needs no gateway. The probes run in a process of their own: a vendor's library may crash.
    """
    columns = [(name.upper(), name) for name in ("backend", "available", "kind", "reason", "remedy")]
    show(probe(python), form, columns, "no backends")


def probe(python: str) -> list[Row]:
    """What the worker program of that interpreter says of each backend."""
    try:
        done = subprocess.run(
            [python, *PROGRAM, "--probe"], capture_output=True, timeout=_LIMIT, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        fail(f"{python} -m workers --probe: {failed}")
    if done.returncode:
        fail(f"{python} -m workers --probe failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows
