"""How a verb fails: one line on stderr, exit code 1."""

from __future__ import annotations

from typing import NoReturn

import click


def fail(message: str) -> NoReturn:
    """End the command. The message names what is wrong and, where there is one, the remedy."""
    click.echo(f"edgeway: {message}", err=True)
    raise SystemExit(1)
