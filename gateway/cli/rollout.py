"""``edgeway promote, rollback, traffic``: which version gets how much."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control, control_option


@click.command(short_help="Give a version all traffic.")
@click.argument("name")
@click.argument("version")
@control_option
def promote(name: str, version: str, gateway: Control) -> None:
    """Give VERSION of deployment NAME 100 %: steps are over, other trials end, the current version becomes previous.

    A version that is not loaded is loaded first; until then the one before serves. Survives restarts, and the same
    manifest applied again.
    """
    _say(gateway.call("Promote", control.PromoteRequest(name=name, version=version)))


@click.command(short_help="Leave the version on trial, or return to the one before.")
@click.argument("name")
@click.option("--to", default="", metavar="V", help="Return to this version.")
@control_option
def rollback(name: str, to: str, gateway: Control) -> None:
    """Cancel the running canary of deployment NAME; without one, return to previousVersion, else to the previous one.

    The version that is left gets 0 % and is not tried again until it is promoted, or applied with other content.
    """
    _say(gateway.call("Rollback", control.RollbackRequest(name=name, to=to), _LOAD_LIMIT))


@click.command(short_help="Set the shares of versions.")
@click.argument("name")
@click.argument("shares", nargs=-1, required=True, metavar="VERSION=PERCENT...")
@control_option
def traffic(name: str, shares: Sequence[str], gateway: Control) -> None:
    r"""Set the shares of versions of deployment NAME; the newest version without one takes what is left.

    \b
    edgeway traffic detector 2.3=10        a tenth for 2.3
    edgeway traffic detector 2.3=0         2.3 only by pin
    """
    percents: dict[str, int] = {}
    for share in shares:
        label, equals, percent = share.rpartition("=")
        if not equals or not label or not percent.isascii() or not percent.isdigit() or int(percent) > 100:
            raise click.UsageError(f"expected VERSION=PERCENT with a percent from 0 to 100, got {share!r}")
        if label in percents:
            raise click.UsageError(f"{label} is given twice")
        percents[label] = int(percent)
    _say(gateway.call("SetTraffic", control.SetTrafficRequest(name=name, percent=percents)))


_LOAD_LIMIT = 300.0
"""Seconds: a version that is returned to may have to be loaded first."""


def _say(response: control.ChangeResponse) -> None:
    click.echo(response.message)
