"""``edgeway infer``: hands over to the client, which the gateway's code never imports."""

from __future__ import annotations

import os
import sys

import click


@click.command(
    short_help="Run one inference.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def infer(arguments: tuple[str, ...]) -> None:
    """Run one inference; see `edgeway infer --help`."""
    os.execv(sys.executable, [sys.executable, "-m", "edgeway.client", *arguments])
