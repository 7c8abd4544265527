"""Builds, starts and drains the gateway: the only file that knows concrete classes of all stages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeway.upkeep import Upkeep
from gateway import systemd
from gateway.admission.slots import InFlight, class_limits
from gateway.admission.streams import Streams
from gateway.config import DeviceConfig, WorkerConfig
from gateway.device.heat import DeviceHeat, readers_by_worker
from gateway.device.memory import MemoryReader, MemoryWatch
from gateway.device.relief import MemoryRelief
from gateway.dispatch.launch import Launched, WorkerTerms
from gateway.dispatch.pacing import Pacing
from gateway.dispatch.quarantine import Quarantine
from gateway.dispatch.second import SecondTry
from gateway.dispatch.shadow import ShadowWorker
from gateway.dispatch.walk import Attempts
from gateway.dispatch.workers import Workers
from gateway.front.entrance import Entrance
from gateway.front.listeners import CantListen
from gateway.models.catalog import Catalog
from gateway.models.fetch import Fetcher
from gateway.models.folder import Follower
from gateway.models.guard import EVERY as GUARD_EVERY
from gateway.models.guard import Guard
from gateway.models.ledger import Ledger
from gateway.models.loading import Loader
from gateway.models.plans import RepositoryControl
from gateway.models.signing import Trust, TrustUnavailable
from gateway.models.state import State, StateUnusable
from gateway.models.steering import Steering
from gateway.models.store import Store
from gateway.models.sweeping import keep_swept
from gateway.observation.mirror import Mirror
from gateway.observation.observation import Observation
from gateway.observation.observer import Observer
from gateway.observation.references import References
from gateway.observation.sight import Handing, Sights
from gateway.operations import GatewayOperations
from gateway.pipeline import Pipeline
from gateway.record.events import Events
from gateway.record.journal import Journal
from gateway.record.metrics import MetricsServer, MetricsUnavailable
from gateway.record.recorder import Recorder
from gateway.record.tracing import build_trace
from gateway.regions.registry import Regions
from gateway.remote.endpoint import Endpoint
from gateway.request import Outcome
from gateway.routing.policy import PreferredInTime
from gateway.routing.table import Table
from gateway.settings import ServeSettings
from gateway.start import StartFailed

SETTLE_LIMIT = 120.0
"""Seconds that models known at start get to come up before the gateway says it is ready without them."""
_SETTLE = 0.01
"""Seconds after which outcomes are counted."""
_UPKEEP_SECONDS = 1.0
"""Between two looks at whether there is time for upkeep; after each answer there is one anyway, ``_SETTLE`` later."""
_MB = 1 << 20

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Life:
    """Where the gateway is in its life."""

    ready: bool = False
    draining: bool = False


def serve(
    settings: ServeSettings,
    workers: Sequence[WorkerConfig],
    terms: WorkerTerms,
    launched: dict[str, Launched],
    told: Sequence[tuple[str, str]],
) -> int:
    """Run until SIGTERM or SIGINT; the exit code.

    Args:
        settings: what the command was told.
        workers: of the device config, and always one for the CPU.
        terms: what they are told alike.
        launched: their processes that start up already; those that are taken over are taken out.
        told: events of the start so far: kind and message.
    """
    try:
        asyncio.run(_serve(settings, workers, terms, launched, told))
    except (StartFailed, CantListen, MetricsUnavailable) as failed:
        print(f"edgeway: {failed}", file=sys.stderr)
        return 1
    return 0


async def _serve(
    settings: ServeSettings,
    configs: Sequence[WorkerConfig],
    terms: WorkerTerms,
    launched: dict[str, Launched],
    told: Sequence[tuple[str, str]],
) -> None:
    life, stop = Life(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = settings.config
    max_bytes = config.limits.max_message_mb * _MB
    events, table = Events(), Table()
    for kind, message in told:
        events.emit(kind, message)
    trace = build_trace(config.telemetry.otlp, config.telemetry.sample_ratio)
    upkeep = Upkeep()
    try:
        trust = Trust(config.trust)
    except TrustUnavailable as missing:
        raise StartFailed(f"trust.keys: {missing}") from missing

    def tidy() -> None:
        upkeep.step(time.monotonic(), pipeline.in_flight.requests, recorder.taken)

    def after_answers(count: Callable[[], None]) -> None:
        count()
        tidy()

    def each(outcome: Outcome) -> None:
        guard.took(outcome)
        if trace:
            trace.record(outcome)

    recorder = Recorder(
        time.monotonic,
        each,
        lambda count: loop.call_later(_SETTLE, after_answers, count),
    )
    workers = Workers(configs, terms, launched, events.emit, lambda: catalog.changed(), max_bytes, Endpoint)
    memory = MemoryWatch(MemoryReader(), config.memory.pressure_percent, lambda state: relief.sampled(state))
    reserve = config.memory.reserve_mb * _MB
    catalog = Catalog(
        table,
        Loader(workers),
        events.emit,
        lambda plan, promised: memory.refuse(plan.min_memory, reserve, promised),
        moved=lambda name: steering.keep(name),
    )
    relief = MemoryRelief(catalog, events.emit)
    fetcher = Fetcher(config.fetch)
    store = Store(
        settings.state_dir, fetcher.fetch, config.store, kept=lambda: catalog.needed, wanted=lambda: catalog.wanted
    )
    ledger = Ledger(State(settings.state_dir), events)
    steering = Steering(catalog, ledger, store, events.emit, signatures_required=config.trust.required)
    observer = Observer(settings.state_dir, given=terms.inherited)
    guard = Guard(
        catalog,
        steering,
        workers.troubled,
        lambda name, label: observer.figures.get((name, label)),
        time.monotonic,
    )
    shadows = ShadowWorker(workers.own, events.emit, max_bytes, terms)
    observation = build_observation(observer, shadows, table, catalog, events.emit, settings.state_dir)
    observation.labelled = guard.labelled
    operations = GatewayOperations(
        catalog, workers, steering, guard, recorder, events, stop.set, lambda: memory.state, trust, observation
    )
    journal = open_journal(config)
    heat = DeviceHeat(
        readers_by_worker([worker.config for worker in workers], config.heat),
        config.heat,
        workers.service_ratio,
        workers.felt,
        told=journal.felt if journal else None,
    )
    workers.report_to(heat.post)
    quarantine = Quarantine()
    pipeline = build_pipeline(config, table, workers, quarantine, recorder, journal, guard.failed, events.emit)
    repository = RepositoryControl(settings.model_repository, catalog) if settings.model_repository else None
    entrance = Entrance(
        pipeline,
        recorder,
        catalog,
        life,
        repository,
        operations,
        Regions(config.shared_memory.max_mb * _MB),
        our_version(),
    )

    metrics: MetricsServer | None = None
    background: list[asyncio.Task[None]] = []
    try:
        entrance.bind(settings)
        if settings.metrics:
            metrics = MetricsServer(settings.metrics, recorder, operations.readings)
        try:
            for problem in store.prepare():
                events.emit("store-problem", problem)
        except OSError as failed:
            raise StartFailed(f"{failed.filename or settings.state_dir} can't be used: {failed.strerror}") from failed
        try:
            known, damaged = await ledger.open()
        except StateUnusable as failed:
            raise StartFailed(str(failed)) from failed
        if damaged:
            events.emit("state-damaged", damaged)
        memory.start(loop)
        background.append(asyncio.create_task(heat.run()))
        workers.start()
        observer.start()
        await workers.introduced()
        steering.restore(known)
        background.append(asyncio.create_task(ledger.keep_events()))
        await _follow(settings, operations, trust, events, repository, background)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(catalog.settled(), SETTLE_LIMIT)
        await entrance.publish()
        workers.start_spares()
        life.ready = True
        entrance.health.refresh()
        upkeep.settle()
        background.append(asyncio.create_task(_every(_UPKEEP_SECONDS, tidy)))
        background.append(asyncio.create_task(_every(GUARD_EVERY, guard.look)))
        whole = not damaged and not known.problems  # else the files may be all that is left of what was accepted
        background.append(asyncio.create_task(keep_swept(catalog, store, events.emit, whole)))
        _announce(entrance, metrics)
        background.append(asyncio.create_task(_watchdog()))
        await stop.wait()
        systemd.notify("STOPPING=1")
        life.draining = True
        await entrance.drain(config.limits.drain_seconds)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        memory.stop()
        fetcher.close()
        await catalog.close()
        await steering.settled()
        await ledger.close()
        await observation.close()
        await asyncio.gather(workers.stop(), shadows.stop(), observer.stop())
        await entrance.close()
        if metrics is not None:
            metrics.close()
        recorder.settle()
        if journal is not None:
            journal.close()
        if trace is not None:
            await asyncio.to_thread(trace.close)


def open_journal(config: DeviceConfig) -> Journal | None:
    """Raises StartFailed: its file can't be written."""
    path = config.telemetry.decisions
    if path is None:
        return None
    try:
        return Journal(Path(path), config.heat)
    except OSError as failed:
        raise StartFailed(f"telemetry.decisions: {path} can't be written: {failed.strerror}") from failed


def build_pipeline(
    config: DeviceConfig,
    table: Table,
    workers: Workers,
    quarantine: Quarantine,
    recorder: Recorder,
    journal: Journal | None,
    failed: Callable[[Outcome], None],
    emit: Callable[..., None],
) -> Pipeline:
    """The stages of a request, as the device config wants them."""
    margin, limits, failover = config.budget.margin_ms / 1e3, config.limits, config.failover
    classes = limits.class_percent
    return Pipeline(
        table,
        InFlight(
            limits.max_in_flight,
            limits.max_in_flight_mb * _MB,
            class_limits(limits.max_in_flight, classes.high, classes.normal, classes.low),
        ),
        Streams(),
        PreferredInTime(margin),
        Attempts(
            time.monotonic,
            Pacing(margin, failover.retry_percent / 100, failover.retry_floor, journal),
            SecondTry(workers.disposables, quarantine.add, emit, time.monotonic),
        ),
        quarantine,
        recorder.record,
        time.monotonic,
        config.budget.default_ms / 1e3,
        journal,
        failed,
        asyncio.get_running_loop(),
    )


def build_observation(
    observer: Observer,
    shadows: ShadowWorker,
    table: Table,
    catalog: Catalog,
    emit: Callable[..., None],
    state_dir: Path,
) -> Observation:
    """What looks at answers beside the way of requests."""
    loop = asyncio.get_running_loop()
    mirror, handing = Mirror(table, observer, shadows, emit, loop), Handing(observer, loop)
    references = References()
    sights = Sights(table, handing, mirror, shadows, references, state_dir / "samples")
    observation = Observation(observer, handing, mirror, sights, references, lambda: catalog.deployments)
    references.changed = observation.changed
    catalog.subscribe(observation.changed)
    return observation


async def _follow(
    settings: ServeSettings,
    operations: GatewayOperations,
    trust: Trust,
    events: Events,
    repository: RepositoryControl | None,
    background: list[asyncio.Task[None]],
) -> None:
    """Start following the repository and the manifest folder; returns after the first look at each."""
    if repository is not None and settings.model_control == "poll":
        looked = asyncio.Event()
        background.append(asyncio.create_task(repository.follow(looked.set)))
        await looked.wait()
    if settings.manifests is not None:
        first = asyncio.Event()
        follower = Follower(settings.manifests, trust, operations, events.emit)
        background.append(asyncio.create_task(follower.follow(first.set)))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(first.wait(), SETTLE_LIMIT)


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        work()


async def _watchdog() -> None:
    """Tell systemd that the loop turns."""
    interval = systemd.watchdog_interval()
    while interval is not None:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _announce(entrance: Entrance, metrics: MetricsServer | None) -> None:
    *data, control = entrance.addresses
    ready = {
        "ready": True,
        "listen": data,
        "control": control,
        "metrics": metrics.address if metrics else None,
        "pid": os.getpid(),
    }
    print(json.dumps(ready), flush=True)
    systemd.notify("READY=1")


def our_version() -> str:
    try:
        return version("edgeway")
    except PackageNotFoundError:
        return "unknown"
