"""``edgeway version``."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version

import click

_PARTS = ("edgeway", "grpcio", "protobuf", "numpy", "onnxruntime", "opentelemetry-sdk")


@click.command(name="version", short_help="Print versions.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def show_version(form: str) -> None:
    """Print the versions of Edgeway, Python and the parts that matter in a bug report."""
    found = {part: _version(part) for part in _PARTS} | {
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    if form == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(f"{part} {what}" for part, what in found.items()))


def _version(part: str) -> str:
    try:
        return version(part)
    except PackageNotFoundError:
        return "not installed"
