"""What the worker tells of itself and its device, unasked."""

from __future__ import annotations

import math
import os
import time
from typing import Any, Optional

from edgeway.v1 import worker_pb2
from workers.backend import Backend, LoadsForLong, Settings
from workers.process import resident_bytes
from workers.schedule import Schedule
from workers.sender import Sender

LOADING_SECONDS = 1.0
"""Between two words about a load that goes on, and before the first."""


class Reports:
    """Sent when something changed, and once a second."""

    def __init__(self, backend: Backend, settings: Settings, schedule: Schedule, sender: Sender) -> None:
        self._backend = backend
        self._settings = settings
        self._schedule = schedule
        self._sender = sender
        self._last: Optional[Any] = None
        self._sent = self._told = 0.0

    def hello(self) -> None:
        backend = self._backend
        hello = worker_pb2.Hello(
            backend=backend.name,
            kind=backend.kind,
            pid=os.getpid(),
            instances=self._settings.instances,
            runtime=backend.runtime,
            device=backend.device,
            formats=list(backend.formats),
            can_cancel=backend.can_cancel,
            load_seconds=backend.load_seconds if isinstance(backend, LoadsForLong) else 0.0,
        )
        self._sender.control(hello=hello)

    def look(self) -> None:
        """Look at the device and the queue, and tell what there is to tell."""
        heat = self._backend.heat()
        report = worker_pb2.Report(
            temperature_c=math.nan if heat.temperature_c is None else heat.temperature_c,
            queued=len(self._schedule),
            running=self._schedule.taken,
            backlog_seconds=heat.backlog_seconds,
            lost=heat.lost,
            throttled=heat.throttled,
        )
        now = time.monotonic()
        # A backlog melts away in the gateway's eyes, so one that stays is said again.
        if report != self._last or heat.backlog_seconds or now - self._sent >= 1.0:
            self._last, self._sent = worker_pb2.Report.FromString(report.SerializeToString()), now
            report.resident_bytes = resident_bytes()
            self._sender.control(report=report)
        if now - self._told >= LOADING_SECONDS:
            self._told = now
            for model, text in self._settings.progress.told(LOADING_SECONDS):
                self._sender.control(loading=worker_pb2.Loading(model=model, text=text))
