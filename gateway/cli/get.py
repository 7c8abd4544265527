"""``edgeway get``: what the gateway has and does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import click
from google.protobuf.message import Message

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control, control_option
from gateway.cli.errors import fail
from gateway.cli.output import Row, progress_text, show, stamp

_WATCHED_EVERY = 1.0
"""Seconds between two looks of --watch."""

Columns = list[tuple[str, str]]
_DEPLOYMENT_COLUMNS: Columns = [
    ("NAME", "name"),
    ("VERSION", "version"),
    ("STATE", "state"),
    ("PERCENT", "percent"),
    ("CURRENT", "current"),
    ("REQUESTS", "requests"),
    ("ERRORS", "errors"),
    ("P50 MS", "latency.p50Ms"),
    ("P95 MS", "latency.p95Ms"),
    ("P99 MS", "latency.p99Ms"),
    ("ACCURACY", "accuracy"),
    ("DRIFT", "drift"),
    ("AGREEMENT", "agreement"),
    ("VS CURRENT", "compared"),
    ("REASON", "reason"),
]
_TARGET_COLUMNS: Columns = [
    ("DEPLOYMENT", "deployment"),
    ("VERSION", "version"),
    ("WORKER", "worker"),
    ("KIND", "kind"),
    ("STATE", "state"),
    ("WAIT P95 MS", "waitP95Ms"),
    ("RUN P95 MS", "runP95Ms"),
    ("SHARE", "share"),
    ("REASON", "reason"),
]
_ACCELERATOR_COLUMNS: Columns = [
    ("WORKER", "worker"),
    ("BACKEND", "backend"),
    ("KIND", "kind"),
    ("PID", "pid"),
    ("STATE", "state"),
    ("BAND", "band"),
    ("TEMP C", "temperatureC"),
    ("RESTARTS", "restarts"),
    ("IN FLIGHT", "inFlight"),
    ("QUEUED", "queueDepth"),
    ("CODE", "code"),
    ("REASON", "reason"),
]
_EVENT_COLUMNS: Columns = [
    ("TIME", "time"),
    ("KIND", "kind"),
    ("DEPLOYMENT", "deployment"),
    ("VERSION", "version"),
    ("WORKER", "worker"),
    ("MESSAGE", "message"),
]


@click.command(short_help="Show deployments, targets, accelerators or events.")
@click.argument("what", type=click.Choice(["deployments", "targets", "accelerators", "events"]))
@click.argument("name", default="")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@click.option("--watch", is_flag=True, help="Show it again every second; events: follow them.")
@control_option
def get(what: str, name: str, form: str, watch: bool, gateway: Control) -> None:
    """Show what the gateway has: deployments and their versions, targets with their predictions, accelerators, events.

    NAME narrows it to one deployment, worker, or for events either.
    """
    look = _LOOKS[what]
    made = look.table if form == "table" and look.table else look.rows
    try:
        if watch and what == "events":
            _follow(gateway, name, form)
        while True:
            if watch and form == "table":
                click.clear()
            show(made(gateway.call(look.rpc, control.GetRequest(name=name))), form, look.columns, look.nothing)
            if not watch:
                return
            time.sleep(_WATCHED_EVERY)
    except KeyboardInterrupt:
        return


class Asked(Protocol):
    """Whoever reaches a control socket."""

    def call(self, rpc: str, request: Message) -> Any: ...


def rows(asked: Asked, what: str, name: str = "") -> list[Row]:
    """What ``edgeway get WHAT NAME -o json`` prints."""
    look = _LOOKS[what]
    return look.rows(asked.call(look.rpc, control.GetRequest(name=name)))


def _deployments(response: Any) -> list[Row]:
    return [
        {"name": deployment.name, "versions": [version_row(v) for v in deployment.versions]}
        for deployment in response.deployments
    ]


def _versions(response: Any) -> list[Row]:
    """The same for the table: a row for each version."""
    return [
        {
            "name": deployment.name,
            **version_row(version),
            "state": progress_text(version),
            "compared": ", ".join(f"{each.of} p={each.p_value:.2g}" for each in version.comparisons),
        }
        for deployment in response.deployments
        for version in deployment.versions
    ]


def version_row(version: Any) -> Row:
    """One version as ``get deployments -o json`` shows it."""
    latency = version.latency
    return {
        "version": version.version,
        "state": version.state,
        "reason": version.reason,
        "percent": version.percent,
        "current": version.current,
        "previous": version.previous,
        "checksum": version.checksum,
        "lastUpdate": stamp(version.last_update),
        "requests": version.requests,
        "errors": version.errors,
        "latency": {
            "p50Ms": round(latency.p50_ms, 3) if latency.count else None,
            "p95Ms": round(latency.p95_ms, 3) if latency.count else None,
            "p99Ms": round(latency.p99_ms, 3) if latency.count else None,
            "count": latency.count,
        },
        "shadow": version.shadow,
        **_figures(version),
    }


def _figures(version: Any) -> Row:
    """What is known of its answers: shares with their 95 % intervals."""
    row: Row = {
        "accuracy": version.accuracy if version.HasField("accuracy") else None,
        "drift": version.drift if version.HasField("drift") else None,
        "driftDetail": version.drift_detail,
        "agreement": version.agreement if version.HasField("agreement") else None,
        "progress": {"done": version.progress.done, "total": version.progress.total or None}
        if version.HasField("progress")
        else None,
        "shadow": version.shadow,
        "steps": list(version.steps),
        "comparisons": [
            {"of": each.of, "pValue": each.p_value, "here": each.here, "there": each.there}
            for each in version.comparisons
        ],
    }
    for name in ("accuracy", "agreement"):
        detail = getattr(version, f"{name}_detail") if version.HasField(f"{name}_detail") else None
        row[f"{name}Low"] = round(detail.low, 4) if detail else None
        row[f"{name}High"] = round(detail.high, 4) if detail else None
        row[f"{name}Count"] = detail.total if detail else 0
    return row


def _targets(response: Any) -> list[Row]:
    return [
        {
            "deployment": target.deployment,
            "version": target.version,
            "worker": target.worker,
            "kind": target.kind,
            "provenance": target.provenance,
            "artifact": target.artifact,
            "state": target.state,
            "reason": target.reason,
            "since": stamp(target.since),
            "waitP95Ms": round(target.wait_p95_ms, 3),
            "runP95Ms": round(target.run_p95_ms, 3),
            "share": round(target.share, 4),
        }
        for target in response.targets
    ]


def _accelerators(response: Any) -> list[Row]:
    return [
        {
            "worker": worker.worker,
            "backend": worker.backend,
            "kind": worker.kind,
            "pid": worker.pid or None,
            "state": worker.state,
            "reason": worker.reason,
            "code": worker.code,
            "remedy": worker.remedy,
            "since": stamp(worker.since),
            "band": worker.band,
            "temperatureC": round(worker.temperature_c, 1) if worker.HasField("temperature_c") else None,
            "sheds": worker.sheds,
            "forecast": worker.forecast,
            "distrusted": worker.distrusted,
            "throttled": worker.throttled,
            "restarts": worker.restarts,
            "inFlight": worker.in_flight,
            "queueDepth": worker.queue_depth,
            "device": worker.device,
            "runtime": worker.runtime,
        }
        for worker in response.accelerators
    ]


def _events(response: Any) -> list[Row]:
    return [_event_row(event) for event in response.events]


def _event_row(event: Any) -> Row:
    return {
        "time": stamp(event.time),
        "kind": event.kind,
        "deployment": event.deployment,
        "version": event.version,
        "worker": event.worker,
        "message": event.message,
    }


def _follow(gateway: Control, name: str, form: str) -> None:
    """Print each event as it comes, one line each (JSON: one object per line), until the gateway ends."""
    import json

    for event in gateway.events(0):
        if name in ("", event.deployment, event.worker):
            row = _event_row(event)
            click.echo(json.dumps(row) if form == "json" else "  ".join(str(value) for value in row.values() if value))
    fail("the gateway ended")


@dataclass(frozen=True, slots=True)
class _Look:
    """One thing that can be shown."""

    rpc: str
    rows: Callable[[Any], list[Row]]
    columns: Columns
    nothing: str
    table: Callable[[Any], list[Row]] | None = None
    """The rows of the table, where they are others."""


_LOOKS = {
    "deployments": _Look(
        "GetDeployments",
        _deployments,
        _DEPLOYMENT_COLUMNS,
        "no deployments; add one with `edgeway apply -f FILE`",
        _versions,
    ),
    "targets": _Look("GetTargets", _targets, _TARGET_COLUMNS, "no targets: no version is deployed"),
    "accelerators": _Look("GetAccelerators", _accelerators, _ACCELERATOR_COLUMNS, "no workers"),
    "events": _Look("GetEvents", _events, _EVENT_COLUMNS, "no events"),
}
