"""Worker: the gateway's view of one worker process, with the files it should have loaded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeway.v1 import worker_pb2
from gateway.config import WorkerConfig
from gateway.dispatch.link import Link
from gateway.errors import WorkerLost
from gateway.request import Signature, TensorSpec
from gateway.target import LoadOrder, Target

_BANDS = ("unknown", "nominal", "warm", "hot", "critical")
HANG_SECONDS = {"cpu": 30.0}
"""By backend: least time without an answer that makes a run hung. Runs on the CPU can be ended, and may be long."""
ACCELERATOR_HANG_SECONDS = 2.0
BUSY_BACKLOG = 0.005
"""Seconds of other people's work before ours that make a target busy: the cheapest world of ours has 5 ms runs."""


class LoadRefused(Exception):
    """The worker can't load this file; the message says why."""


@dataclass(slots=True, eq=False)
class _Wanted:
    order: LoadOrder
    target: Target
    loaded: asyncio.Future[Signature]


class Worker:
    """One worker: who it is, how it is, what it has loaded. Its process comes and goes; this stays.

    ``state``: unknown (starting), ready, busy, hot or lost, with ``reason`` for people and ``since`` (wall clock).
    """

    def __init__(
        self,
        config: WorkerConfig,
        instances: int,
        emit: Callable[..., None],
        changed: Callable[[], None],
    ) -> None:
        """``emit(kind, message, worker=...)`` records an event; ``changed()`` is called after every change of state."""
        self.config = config
        self.name = config.name
        self.backend = config.backend
        self.hang_seconds = config.hang_seconds or HANG_SECONDS.get(config.backend, ACCELERATOR_HANG_SECONDS)
        self.kind = "cpu" if config.backend == "cpu" else "hardware"
        self.instances = instances
        self.state = "unknown"
        self.reason = "starting"
        self.since = time.time()
        self.pid = 0
        self.restarts = 0
        self.device = ""
        self.runtime = ""
        self.formats: tuple[str, ...] = ()
        self.band = "unknown"
        self.temperature_c: float | None = None
        self.queued = 0
        self.resident_bytes = 0
        self.in_flight = 0
        self.expected_seconds = 0.0
        """Sum of the run estimates of what is in flight."""
        self.link: Link | None = None
        self._backlog = 0.0
        self._backlog_at = 0.0
        self._emit = emit
        self._changed = changed
        self._wanted: dict[int, _Wanted] = {}
        self._handles = 0
        self._loading: set[int] = set()
        self.introduced = asyncio.Event()
        """Set at the first Hello or the first failed start: what this worker can load is known."""

    def expected_wait(self) -> float:
        """Seconds until a run that came now would begin: others' backlog, and ours beyond the free instances."""
        backlog = max(0.0, self._backlog - (time.monotonic() - self._backlog_at)) if self._backlog else 0.0
        if self.in_flight < self.instances:
            return backlog
        return backlog + self.expected_seconds / self.instances

    def loads(self, suffix: str) -> bool:
        """Whether it takes files of this suffix. One that never came up is believed to."""
        return not self.formats or suffix in self.formats

    def want(self, target: Target, order: LoadOrder) -> asyncio.Future[Signature]:
        """Load the file for this target now and after every restart.

        Returns:
            a future of the first outcome; it fails with LoadRefused.
        """
        self._handles += 1
        wanted = _Wanted(order, target, asyncio.get_running_loop().create_future())
        # Nobody may wait for the second load after a restart, nor for a version that was deleted meanwhile.
        wanted.loaded.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._wanted[self._handles] = wanted
        self._load(self._handles, wanted)
        return wanted.loaded

    def drop(self, target: Target) -> None:
        """Unload the target's file. No new run may be sent to it any more."""
        for handle, wanted in list(self._wanted.items()):
            if wanted.target is target:
                del self._wanted[handle]
                wanted.loaded.cancel()
                target.handle = 0
                if self.link is not None:
                    self.link.control(worker_pb2.ToWorker(unload=worker_pb2.Unload(model=handle)))

    def attach(self, link: Link, hello: worker_pb2.Hello) -> None:
        """A process is up: load everything it should have."""
        self.link = link
        self.kind, self.device, self.runtime = hello.kind, hello.device, hello.runtime
        self.formats = tuple(hello.formats)
        self.instances = max(1, hello.instances)
        self.in_flight, self.expected_seconds, self._backlog = 0, 0.0, 0.0
        self._loading.clear()
        self._become("ready", "")
        self.introduced.set()
        for handle, wanted in self._wanted.items():
            self._load(handle, wanted)

    def detach(self, reason: str) -> None:
        """The process is gone, or never came."""
        self.link = None
        self.pid = 0
        for wanted in self._wanted.values():
            wanted.target.handle = 0
        self._become("lost", reason)
        self.introduced.set()

    def received(self, message: worker_pb2.ToGateway) -> None:
        which = message.WhichOneof("message")
        if which == "loaded":
            self._load_ended(message.loaded.model)
            self._loaded(message.loaded)
        elif which == "load_failed":
            self._load_ended(message.load_failed.model)
            self._load_failed(message.load_failed)
        elif which == "report":
            self._reported(message.report)

    def require_link(self) -> Link:
        """Raises WorkerLost while no process is up."""
        if self.link is None:
            raise WorkerLost(self.reason or "the worker is starting")
        return self.link

    def _load(self, handle: int, wanted: _Wanted) -> None:
        if self.link is not None:
            order = wanted.order
            load = worker_pb2.Load(
                model=handle, name=order.name, version=order.version, path=order.path, sha256=order.sha256
            )
            load.warmup_runs = 3
            self._loading.add(handle)
            self.link.may_hang = False
            self.link.control(worker_pb2.ToWorker(load=load))

    def _load_ended(self, handle: int) -> None:
        self._loading.discard(handle)
        if self.link is not None:
            self.link.may_hang = not self._loading

    def _loaded(self, loaded: worker_pb2.Loaded) -> None:
        wanted = self._wanted.get(loaded.model)
        if wanted is None:
            return
        wanted.target.handle = loaded.model
        wanted.target.failure = ""
        if loaded.warmup_seconds:
            wanted.target.estimate.clear()  # of another process
        for seconds in loaded.warmup_seconds:
            if math.isfinite(seconds) and seconds > 0:
                wanted.target.estimate.add(seconds)
        if not wanted.loaded.done():
            wanted.loaded.set_result(
                Signature(loaded.platform, tuple(map(_spec, loaded.inputs)), tuple(map(_spec, loaded.outputs)))
            )
        self._changed()

    def _load_failed(self, failed: worker_pb2.LoadFailed) -> None:
        wanted = self._wanted.get(failed.model)
        if wanted is None:
            return
        reason = worker_pb2.LoadFailed.Reason.Name(failed.reason).lower()
        wanted.target.handle = 0
        wanted.target.failure = failed.message or reason
        if not wanted.loaded.done():
            wanted.loaded.set_exception(LoadRefused(f"{reason}: {failed.message}"))
        else:
            where = f"{wanted.order.name} {wanted.order.version}"
            self._emit("load-failed", f"{where}: {failed.message}", worker=self.name)
        self._changed()

    def _reported(self, report: worker_pb2.Report) -> None:
        self.band = _BANDS[report.band] if 0 <= report.band < len(_BANDS) else "unknown"
        self.temperature_c = report.temperature_c if math.isfinite(report.temperature_c) else None
        self.queued = report.queued
        self.resident_bytes = report.resident_bytes
        self._backlog, self._backlog_at = max(0.0, report.backlog_seconds), time.monotonic()
        if report.lost:
            self._become("lost", report.lost)
        elif self.band in ("hot", "critical"):
            degrees = "" if self.temperature_c is None else f" at {self.temperature_c:.0f} degrees C"
            self._become("hot", f"{self.band}{degrees}")
        elif self._backlog > BUSY_BACKLOG:
            self._become("busy", "others' work is queued on the accelerator")
        else:
            self._become("ready", "")

    def _become(self, state: str, reason: str) -> None:
        if state == self.state:
            self.reason = reason
            return
        before, self.state, self.reason, self.since = self.state, state, reason, time.time()
        self._emit(f"worker-{state}", f"{before} -> {state}" + (f": {reason}" if reason else ""), worker=self.name)
        self._changed()

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.backend} {self.state} pid {self.pid} {self.in_flight}/{self.instances} busy>"


def _spec(spec: worker_pb2.TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.datatype, tuple(spec.shape))
