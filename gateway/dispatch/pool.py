"""Worker: the gateway's view of one worker process, with the files it should have loaded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeway.datatypes import nbytes
from edgeway.v1 import worker_pb2
from gateway.config import WorkerConfig
from gateway.device.sensors import Reading, reported
from gateway.device.thermal import Heat
from gateway.dispatch.orders import load_message
from gateway.dispatch.pending import LOAD_LIMIT
from gateway.dispatch.ports import AnyLink
from gateway.errors import WorkerLost
from gateway.request import Quantisation, Signature, TensorSpec
from gateway.target import SHARED_LEARNS, Golden, LoadOrder, Target

HANG_SECONDS = {"cpu": 30.0}
"""By backend: least time without an answer that makes a run hung. Runs on the CPU can be ended, and may be long."""
ACCELERATOR_HANG_SECONDS = 2.0
WARMUP_RUNS = 3
LOAD_SECONDS = 1.0
"""Time constant with which the load of higher priorities is remembered."""
FADE_SECONDS = 0.02
"""Between two times that it is made to fade: it need not be exact to the millisecond."""
MOST_OVERTAKING = 0.9
RATIO_AGE = 2.0
"""Seconds after its last run at which a service-time ratio says nothing of now."""
_LONGEST_PROGRESS = 200
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
        self.load_limit = config.load_seconds or LOAD_LIMIT
        self.kind = "cpu" if config.backend == "cpu" else "unknown"
        self.remote = False
        self.instances = instances
        self.state = "unknown"
        self.reason = "starting"
        self.code = ""
        """Kind of the reason, where the backend can't work here: missing-library, missing-device, ..."""
        self.remedy = ""
        self.since = time.time()
        self.pid = 0
        self.restarts = 0
        self.device = ""
        self.runtime = ""
        self.formats: tuple[str, ...] = ()
        self.heat = Heat()
        """As the device's sensors and the service times say."""
        self.sheds = self.heat.sheds
        """The band that moves traffic: nominal, warm, hot or critical."""
        self.queued = 0
        self.resident_bytes = 0
        self.in_flight = 0
        self.link: AnyLink | None = None
        self._ahead = [0.0] * 10
        """By priority: sum of the run estimates of what is in flight."""
        self._pace = [0.0] * 10
        """By priority: seconds of runs that were sent per second, of late, as of ``_faded_at``."""
        self._faded_at = 0.0
        self._lost = ""
        self.posted: Callable[[str, Reading], None] = lambda name, reading: None
        """Takes what the process says of its device's heat: some chips tell only the process that holds them."""
        self._shared = 1.0
        """Requests that share one run, of late."""
        self._backlog = 0.0
        self._backlog_at = 0.0
        self._emit = emit
        self._changed = changed
        self._wanted: dict[int, _Wanted] = {}
        self._handles = 0
        self._loading: set[int] = set()
        self._agreed: set[tuple[str, Golden | None]] = set()
        """Artifacts that have agreed with their golden samples here: a restart need not ask them again."""
        self.introduced = asyncio.Event()
        """Set at the first Hello or the first failed start: what this worker can load is known."""
        self.answered = False
        """Whether this process has ended a run, were it of a warm-up."""

    def sent(self, priority: int, expected: float, now: float) -> None:
        """A run is in flight that should take so many seconds."""
        self.in_flight += 1
        self._ahead[priority] += expected
        if now - self._faded_at > FADE_SECONDS:
            self._fade(now)
        self._pace[priority] += expected / LOAD_SECONDS

    def _fade(self, now: float) -> None:
        kept = math.exp((self._faded_at - now) / LOAD_SECONDS)
        self._faded_at = now
        self._pace[:] = [load * kept for load in self._pace]

    def finished(self, priority: int, expected: float) -> None:
        """The worker has nothing more to do with it."""
        self.in_flight -= 1
        self._ahead[priority] = max(0.0, self._ahead[priority] - expected) if self.in_flight else 0.0

    def ran_with(self, requests: int) -> None:
        """A run has answered so many requests together; each says so."""
        self._shared += SHARED_LEARNS * (requests - self._shared)

    def expected_wait(self, priority: int, now: float) -> float:
        """Seconds until a run of this priority that came now would begin.

        Others' backlog, and ours: what is in flight of this priority or a higher one, a run of a lower one that has
        begun, less what the oldest run has had already. A run that is over its time is expected to go on for as long as
        it is over: nobody knows, and a hung one must not look free. Meanwhile higher priorities go on overtaking, as
        much as of late: the wait grows by 1 / (1 - their share of the worker's time).

        Source of the last: Cobham, Operations Research 2 (1954), on queues with priorities.
        """
        backlog = max(0.0, self._backlog - (now - self._backlog_at)) if self._backlog else 0.0
        if self.in_flight < self.instances or self.link is None:
            return backlog
        everything = sum(self._ahead)
        mean = everything / self.in_flight * self._shared  # what a run takes, of which each request counts its part
        # min() of rising terms, not a sum of differences: rounding must not let a higher priority wait longer.
        before = max(mean, min(everything, sum(self._ahead[: priority + 1]) + mean * self.instances))
        age = self.link.oldest_age(now)
        if age <= mean:
            wait = max(0.0, before / self.instances - age)
        else:
            wait = max(0.0, (before - mean) / self.instances) + (age - mean)
        overtaking = sum(self._pace[:priority]) * math.exp((self._faded_at - now) / LOAD_SECONDS) / self.instances
        return backlog + wait / (1.0 - min(overtaking, MOST_OVERTAKING))

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
        self._load(self._handles, wanted, background=True)
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

    def attach(self, link: AnyLink, hello: worker_pb2.Hello) -> None:
        """A process is up: load everything it should have."""
        self.link = link
        self.kind, self.device, self.runtime = hello.kind, hello.device, hello.runtime
        self.formats = tuple(hello.formats)
        self.load_limit = self.config.load_seconds or _sensible(hello.load_seconds) or LOAD_LIMIT
        link.load_limit = self.load_limit
        self.instances = max(1, hello.instances)
        self.in_flight, self._ahead, self._backlog = 0, [0.0] * 10, 0.0
        self._loading.clear()
        self._lost, self.code, self.remedy, self.answered = "", "", "", False
        self._assess()
        self.introduced.set()
        for handle, wanted in self._wanted.items():
            if not wanted.target.barred:
                self._load(handle, wanted, background=False)  # what it had is missing now

    def detach(self, reason: str, code: str = "", remedy: str = "") -> None:
        """The process is gone, or never came. ``code`` and ``remedy`` where its backend can't work here."""
        self.code, self.remedy = code, remedy
        self.link = None
        self.pid = 0
        for wanted in self._wanted.values():
            wanted.target.handle, wanted.target.warming, wanted.target.progress = 0, False, ""
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
        elif which == "loading":
            self._goes_on(message.loading)
        elif which == "warming":
            self._warms(message.warming)
        elif which == "report":
            self._report(message.report)

    def require_link(self) -> AnyLink:
        """Raises WorkerLost while no process is up."""
        if self.link is None:
            raise WorkerLost(self.reason or "the worker is starting", began=False)
        return self.link

    def tell(self, kind: str, message: str, order: LoadOrder | None) -> None:
        """Record an event about one of its targets."""
        about = {"deployment": order.name, "version": order.version} if order is not None else {}
        self._emit(kind, message, worker=self.name, **about)

    def felt(self, heat: Heat) -> None:
        """What sensors and service times say has changed."""
        if heat.sheds != self.sheds:
            self._emit("heat", f"{self.sheds} -> {heat.sheds}: {heat.reason or 'cooler'}", worker=self.name)
        if heat != self.heat:
            self.heat, self.sheds = heat, heat.sheds
            if self.link is not None:
                self._assess()

    def ratio(self, now: float) -> float | None:
        """Service time over the calibrated one: the largest of the loaded versions that ran of late; None: none did.

        Not of the CPU: there it only says that others have the cores, and there is nowhere to go.
        """
        if self.backend == "cpu":
            return None
        targets = [wanted.target for wanted in self._wanted.values()]
        ratios = (t.service.ratio() for t in targets if t.handle and now - t.measured_at < RATIO_AGE)
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    def _load(self, handle: int, wanted: _Wanted, background: bool) -> None:
        if self.link is not None:
            order = wanted.order
            load = load_message(handle, order, _artifact(order) not in self._agreed, background)
            load.warmup_runs = WARMUP_RUNS
            if order.batch_size > 1:
                load.batching.max_size, load.batching.max_delay_seconds = order.batch_size, order.batch_delay
            self._loading.add(handle)
            wanted.target.warming = False
            if self.link.loading_since is None:
                self.link.loading_since = time.monotonic()
            self.link.control(worker_pb2.ToWorker(load=load))

    def _load_ended(self, handle: int) -> None:
        self._loading.discard(handle)
        if self.link is not None:
            self.link.loading_since = time.monotonic() if self._loading else None

    def _goes_on(self, loading: worker_pb2.Loading) -> None:
        wanted = self._wanted.get(loading.model)
        if wanted is not None:
            wanted.target.progress = loading.text[:_LONGEST_PROGRESS]

    def _warms(self, warming: worker_pb2.Warming) -> None:
        wanted = self._wanted.get(warming.model)
        if wanted is not None and not wanted.target.warming:
            wanted.target.warming, wanted.target.progress = True, "warming up"
            self._changed()

    def _loaded(self, loaded: worker_pb2.Loaded) -> None:
        wanted = self._wanted.get(loaded.model)
        if wanted is None:
            return
        target = wanted.target
        target.handle, target.failure, target.provenance = loaded.model, "", loaded.provenance
        target.progress = ""
        target.kind = loaded.kind or self.kind
        if loaded.golden:
            self._agreed.add(_artifact(wanted.order))
            target.golden = loaded.golden
            self.tell("golden-agrees", loaded.golden, wanted.order)
        warmup = [seconds for seconds in loaded.warmup_seconds if math.isfinite(seconds) and seconds > 0]
        self.answered = self.answered or bool(warmup)
        signature = Signature(loaded.platform, tuple(map(_spec, loaded.inputs)), tuple(map(_spec, loaded.outputs)))
        target.calibrate(warmup_bytes(signature), warmup, time.monotonic())
        if not wanted.loaded.done():
            wanted.loaded.set_result(signature)
        self._changed()

    def _load_failed(self, failed: worker_pb2.LoadFailed) -> None:
        wanted = self._wanted.get(failed.model)
        if wanted is None:
            return
        reason = worker_pb2.LoadFailed.Reason.Name(failed.reason).lower()
        wanted.target.handle, wanted.target.progress = 0, ""
        wanted.target.barred = failed.reason == worker_pb2.LoadFailed.BARRED
        wanted.target.failure = f"barred: {failed.message}" if wanted.target.barred else failed.message or reason
        if wanted.target.barred:
            self.tell("artifact-barred", failed.message, wanted.order)
        if not wanted.loaded.done():
            wanted.loaded.set_exception(LoadRefused(f"{reason}: {failed.message}"))
        else:
            where = f"{wanted.order.name} {wanted.order.version}"
            self._emit("load-failed", f"{where}: {failed.message}", worker=self.name)
        self._changed()

    def _report(self, report: worker_pb2.Report) -> None:
        temperature = report.temperature_c if math.isfinite(report.temperature_c) else None
        if temperature is not None or report.throttled:  # without a temperature, False means that it does not know
            self.posted(self.name, reported(self.name, time.monotonic(), temperature, report.throttled))
        self.queued = report.queued
        self.resident_bytes = report.resident_bytes
        self._backlog, self._backlog_at = max(0.0, report.backlog_seconds), time.monotonic()
        self._lost = report.lost
        self._assess()

    def _assess(self) -> None:
        """State and reason, of all that is known."""
        heat = self.heat
        if self._lost or heat.lost:
            self._become("lost", self._lost or heat.lost)
        elif heat.sheds in ("hot", "critical"):
            self._become("hot", heat.reason)
        elif self._backlog > BUSY_BACKLOG:
            self._become("busy", "others' work is queued on the accelerator")
        else:
            self._become("ready", heat.reason or (f"not believed: {heat.distrusted}" if heat.distrusted else ""))

    def _become(self, state: str, reason: str) -> None:
        if state == self.state:
            self.reason = reason
            return
        before, self.state, self.reason, self.since = self.state, state, reason, time.time()
        self._emit(f"worker-{state}", f"{before} -> {state}" + (f": {reason}" if reason else ""), worker=self.name)
        self._changed()

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.backend} {self.state} pid {self.pid} {self.in_flight}/{self.instances} busy>"


def _sensible(seconds: float) -> float:
    """What a worker says, if it is a time; else 0."""
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _artifact(order: LoadOrder) -> tuple[str, Golden | None]:
    return order.sha256, order.golden


def warmup_bytes(signature: Signature) -> int:
    """Bytes of the inputs that a warm-up runs on: sizes that are open count as 1."""
    shapes = ((spec.datatype, tuple(1 if size < 0 else size for size in spec.shape)) for spec in signature.inputs)
    return sum(nbytes(datatype, shape) for datatype, shape in shapes)


def _spec(spec: worker_pb2.TensorSpec) -> TensorSpec:
    if not spec.HasField("quantization"):
        return TensorSpec(spec.name, spec.datatype, tuple(spec.shape))
    told = spec.quantization
    quantisation = Quantisation(tuple(told.scale), tuple(told.zero_point), told.axis)
    return TensorSpec(spec.name, spec.datatype, tuple(spec.shape), quantisation)
