"""``edgeway doctor``: what this device could run on, and why not."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from gateway.cli.errors import fail
from gateway.cli.output import show
from gateway.config import DeviceConfig, load_device_config
from gateway.dispatch.launch import default_workers
from gateway.dispatch.probes import Asked, probe_all
from gateway.strict_yaml import ConfigError


@click.command(short_help="List backends: available or not, and why.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Device config: ask for its workers.")
@click.option("--python", metavar="FILE", help="Interpreter of a worker, where it is another.  [default: ours]")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds that a probe gets."
)
def doctor(form: str, config: Path | None, python: str | None, timeout: float) -> None:
    """List every backend: whether it can work on this device, because of what, and how to enable it.

    With --config, under the interpreter of each of its workers too; the exit code is 1 if one of them can't work.
    Needs no gateway. Every probe runs in a process of its own: a vendor's library may crash, or hang.
    """
    try:
        device = load_device_config(config) if config else None
    except ConfigError as refused:
        fail(str(refused))
    rows = probe_all(interpreters(device, python or sys.executable), timeout)
    columns = [(name.upper(), name) for name in ("backend", "available", "kind", "devices", "code", "reason", "remedy")]
    texts = [{**row, **{many: ", ".join(row[many]) for many in ("workers", "devices")}} for row in rows]
    if device is not None:
        columns[1:1] = [("WORKERS", "workers")]
    if len({row["python"] for row in rows}) > 1:
        columns.append(("PYTHON", "python"))
    show(texts if form == "table" else rows, form, columns, "no backends")
    if any(row["workers"] and not row["available"] for row in rows):
        raise SystemExit(1)


def interpreters(device: DeviceConfig | None, ours: str) -> Iterable[Asked]:
    """Ours with all backends, and each of the config that differs from it, in its program or in its variables."""
    asked: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, list[str]]] = {(ours, ()): {}}
    for worker in default_workers(device.workers) if device is not None else ():
        key = worker.python or ours, tuple(sorted(worker.env.items()))
        asked.setdefault(key, {}).setdefault(worker.backend, []).append(worker.name)
    programs: set[str] = set()
    for (python, env), workers in asked.items():
        # The variables of one worker say nothing of other backends.
        yield Asked(python, dict(env), workers, everything=python not in programs)
        programs.add(python)
