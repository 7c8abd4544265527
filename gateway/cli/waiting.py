"""Waiting for versions to serve, with a bar on a terminal and a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control
from gateway.cli.errors import fail
from gateway.cli.output import progress_text

Identity = tuple[str, str]
"""Deployment and version."""

_LOOK_EVERY = 0.1
_LINE_EVERY = 5.0
"""Seconds."""
_OVER = ("failed", "barred", "rolledBack", "unloaded")


class Display(Protocol):
    """Shows how far the versions are that are waited for."""

    def update(self, waiting: Mapping[Identity, Any], now: float) -> None:
        """``waiting``: the status of each; ``now``: seconds."""

    def close(self) -> None: ...


class Bars:
    """One bar for each version, on stderr. Bytes while it is fetched, its state after that."""

    def __init__(self) -> None:
        self._bars: dict[Identity, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()

    def update(self, waiting: Mapping[Identity, Any], now: float) -> None:
        for identity, status in waiting.items():
            if identity not in self._bars:
                self._bars[identity] = self._progress.add_task("", total=None)
            text = f"{' '.join(identity)}: {status.state}"
            if status.HasField("progress"):
                done, total = status.progress.done, status.progress.total or None
                self._progress.update(self._bars[identity], description=text, completed=done, total=total)
            else:
                self._progress.update(self._bars[identity], description=text)
        for identity in self._bars.keys() - waiting.keys():
            self._progress.remove_task(self._bars.pop(identity))

    def close(self) -> None:
        self._progress.stop()


class Lines:
    """One line for each version every five seconds, on stderr."""

    def __init__(self, now: float) -> None:
        self._next = now + _LINE_EVERY

    def update(self, waiting: Mapping[Identity, Any], now: float) -> None:
        if now >= self._next:
            self._next = now + _LINE_EVERY
            for identity, status in waiting.items():
                click.echo(f"{' '.join(identity)}: {progress_text(status)}", err=True)

    def close(self) -> None:
        pass


def wait(gateway: Control, wanted: Mapping[Identity, bool], timeout: float) -> None:
    """Return when all serve; end the command when one can't, or when the time is over.

    Args:
        gateway: to be asked.
        wanted: versions, and whether each may take no requests by itself: its manifest says so, or it changed nothing.
        timeout: seconds.
    """
    end = time.monotonic() + timeout
    display: Display = Bars() if Console(stderr=True).is_terminal else Lines(time.monotonic())
    waiting = dict(wanted)
    try:
        while True:
            found = _statuses(gateway, waiting)
            for identity, status in found.items():
                if serves(status, waiting[identity]):
                    click.echo(f"{' '.join(identity)}: ready")
                    del waiting[identity]
            if not waiting:
                return
            still = {identity: found[identity] for identity in waiting}
            now = time.monotonic()
            if now > end:
                states = "; ".join(f"{' '.join(identity)}: {explained(status)}" for identity, status in still.items())
                fail(f"not ready after {timeout:g} s: {states}")
            display.update(still, now)
            time.sleep(_LOOK_EVERY)
    finally:
        display.close()


def _statuses(gateway: Control, waiting: Mapping[Identity, bool]) -> dict[Identity, Any]:
    """Ends the command when a version is gone, or won't come by itself."""
    found: dict[Identity, Any] = {}
    for name in dict.fromkeys(name for name, _ in waiting):
        response = gateway.call("GetDeployments", control.GetRequest(name=name))
        versions = {v.version: v for d in response.deployments for v in d.versions}
        for identity in waiting:
            if identity[0] != name:
                continue
            status = versions.get(identity[1])
            if status is None:
                fail(f"{' '.join(identity)}: deleted while it was awaited")
            if status.state in _OVER:
                fail(f"{' '.join(identity)}: {explained(status)}")
            found[identity] = status
    return found


def serves(status: Any, may_idle: bool) -> bool:
    """Whether a version is ready and takes its share."""
    return status.state == "ready" and (may_idle or status.percent > 0 or status.current)


def explained(status: Any) -> str:
    """State and reason."""
    if status.state == "ready":
        return "ready, but it takes no requests yet" + (f": {status.reason}" if status.reason else "")
    return f"{progress_text(status)}: {status.reason}" if status.reason else progress_text(status)
