"""Probes: what the backends say of this device, under each interpreter that a worker may have. Needs no gateway."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gateway.dispatch.launch import PROGRAM, environment_of
from gateway.dispatch.refusal import MISSING_INTERPRETER, no_interpreter, refused

Row = dict[str, Any]
BROKEN = "broken"
"""A probe that crashed, hung or gave no answer."""
_TOGETHER = 2 * (os.cpu_count() or 1)
"""Probes that run side by side: they mostly wait for files and drivers."""
_REAP_SECONDS = 1.0


@dataclass(frozen=True)
class Asked:
    """An interpreter with its variables, and the workers of the device config that run under it, by backend."""

    python: str
    env: Mapping[str, str] = field(default_factory=dict)
    workers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    everything: bool = True
    """All backends, not only those of the workers."""


class _NoAnswer(Exception):
    """Why there is none: code, reason, remedy."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.row: Row = {"available": False, "kind": "unknown", "reason": reason, "code": code, "remedy": remedy}


def probe_all(asked: Iterable[Asked], limit: float) -> list[Row]:
    """A row for each backend and interpreter. Each probe is a process of its own, which gets ``limit`` seconds: a
    vendor's library may crash, or wait for its device for ever. None of them can fail the others, nor us.
    """
    with ThreadPoolExecutor(_TOGETHER) as pool:
        listed = [(each, pool.submit(_backends, each, limit)) for each in asked]
        probes: list[tuple[Asked, str, Future[Row] | _NoAnswer]] = []
        for each, names in listed:
            found = names.result()
            if isinstance(found, _NoAnswer):
                probes += [(each, backend, found) for backend in each.workers or [""]]
            else:
                wanted = sorted({*(found if each.everything else ()), *each.workers})
                probes += [(each, backend, pool.submit(_probe, each, backend, limit)) for backend in wanted]
        return [
            _row(each, backend, done.row if isinstance(done, _NoAnswer) else done.result())
            for each, backend, done in probes
        ]


def _row(asked: Asked, backend: str, found: Row) -> Row:
    row = {"backend": backend, "available": False, "kind": "", "reason": "", "code": "", "remedy": ""}
    more: Row = {"devices": [], "runtime": "", "python": asked.python, "workers": list(asked.workers.get(backend, ()))}
    return {**row, **more, **found}


def _backends(asked: Asked, limit: float) -> list[str] | _NoAnswer:
    try:
        names = _ask(asked, ["--list"], limit)
    except _NoAnswer as why:
        return why
    return [str(name) for name in names]


def _probe(asked: Asked, backend: str, limit: float) -> Row:
    try:
        rows = _ask(asked, ["--probe", "--backend", backend], limit)
    except _NoAnswer as why:
        return why.row
    if not rows:
        remedy = "install a distribution that adds it, or name another"
        return _NoAnswer("unsupported", f"no backend is called {backend}", remedy).row
    row: Row = rows[0]
    return row


def _ask(asked: Asked, arguments: Sequence[str], limit: float) -> list[Any]:
    """The answer of the worker program. Raises _NoAnswer."""
    try:
        process = subprocess.Popen(
            [asked.python, *PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment_of(asked.env),
            start_new_session=True,
        )
    except OSError as failed:
        raise _NoAnswer(MISSING_INTERPRETER, *no_interpreter(asked.python, failed)) from failed
    try:
        out, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as late:
        raise _NoAnswer(
            BROKEN,
            f"its probe gave no answer within {limit:g} s",
            "look for a device or driver that hangs; --timeout gives it longer",
        ) from late
    finally:
        _end(process)
    return _answer(out, said.decode("utf-8", "replace"), process.returncode)


def _answer(out: bytes, said: str, returncode: int) -> list[Any]:
    """Raises _NoAnswer."""
    for line in reversed(said.splitlines()):
        if (refusal := refused(line)) is not None:
            raise _NoAnswer(refusal["code"], refusal["reason"], refusal["remedy"])
    with contextlib.suppress(ValueError):
        found = json.loads(out)
        if isinstance(found, list):
            return found
    last = (said.strip().splitlines() or ["no message"])[-1]
    how = f"exit code {returncode}"
    if returncode < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-returncode).name
    raise _NoAnswer(BROKEN, f"its probe ended with {how}: {last[:300]}", "reinstall what it is for")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of a probe stays: not a process that it started either, which would keep its pipes open."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_SECONDS)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
