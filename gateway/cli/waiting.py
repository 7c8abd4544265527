"""Waiting for versions to serve, with a bar on a terminal and a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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


class NotServing(Exception):
    """A version won't come by itself, or not in time. The message says which, its state and the reason."""


class Display(Protocol):
    """Shows how far the versions are that are waited for."""

    def update(self, waiting: Mapping[Identity, Any], now: float) -> None:
        """``waiting``: the status of each; ``now``: seconds."""

    def done(self, text: str) -> None:
        """Say on stdout that one is ready."""

    def close(self) -> None: ...


class Bars:
    """One bar for each version, on stderr."""

    def __init__(self) -> None:
        self._bars: dict[Identity, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def update(self, waiting: Mapping[Identity, Any], now: float) -> None:
        for identity in self._bars.keys() - waiting.keys():
            self._progress.remove_task(self._bars.pop(identity))
        for identity, status in waiting.items():
            text = f"{' '.join(identity)}: {progress_text(status)}"
            if identity not in self._bars:
                self._bars[identity] = self._progress.add_task(text, total=None)
            if status.HasField("progress"):
                done, total = status.progress.done, status.progress.total or None
                self._progress.update(self._bars[identity], description=text, completed=done, total=total)
            else:
                self._progress.update(self._bars[identity], description=text)
        self._progress.start()

    def done(self, text: str) -> None:
        self._progress.stop()  # which takes the bars away: they may be on the same terminal
        click.echo(text)

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

    def done(self, text: str) -> None:
        click.echo(text)

    def close(self) -> None:
        pass


def wait(gateway: Control, wanted: Mapping[Identity, bool], timeout: float) -> None:
    """Return when all serve; end the command when one can't, or when the time is over.

    Args:
        gateway: to be asked.
        wanted: versions, and whether each may take no requests by itself: its manifest says so, or it changed nothing.
        timeout: seconds.
    """
    display: Display = Bars() if Console(stderr=True).is_terminal else Lines(time.monotonic())
    try:
        _watch(gateway, dict(wanted), timeout, display)
    except NotServing as failed:
        problem = str(failed)
    else:
        return
    finally:
        display.close()
    fail(problem)


def _watch(gateway: Control, waiting: dict[Identity, bool], timeout: float, display: Display) -> None:
    """Raises NotServing."""
    end = time.monotonic() + timeout
    while True:
        found = _statuses(gateway, waiting)
        for identity, status in found.items():
            if serves(status, waiting[identity]):
                display.done(f"{' '.join(identity)}: ready")
                del waiting[identity]
        if not waiting:
            return
        still, now = {identity: found[identity] for identity in waiting}, time.monotonic()
        if now > end:
            states = "; ".join(f"{' '.join(identity)}: {explained(status)}" for identity, status in still.items())
            raise NotServing(f"not ready after {timeout:g} s: {states}")
        display.update(still, now)
        time.sleep(_LOOK_EVERY)


def _statuses(gateway: Control, waiting: Mapping[Identity, bool]) -> dict[Identity, Any]:
    """The status of each version. Raises NotServing: one is gone, or won't come by itself."""
    found: dict[Identity, Any] = {}
    for name in dict.fromkeys(name for name, _ in waiting):
        response = gateway.call("GetDeployments", control.GetRequest(name=name))
        versions = {v.version: v for d in response.deployments for v in d.versions}
        for identity in (each for each in waiting if each[0] == name):
            status = versions.get(identity[1])
            if status is None:
                raise NotServing(f"{' '.join(identity)}: deleted while it was awaited")
            if status.state in _OVER:
                raise NotServing(f"{' '.join(identity)}: {explained(status)}")
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
