"""What operators may do: the control service's verbs over catalog, workers and recorder."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from edgeway.v1 import control_pb2 as control
from gateway.device.memory import MemoryState
from gateway.dispatch.workers import Workers
from gateway.errors import InvalidRequest, NotFound
from gateway.models.catalog import Catalog
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import content_hash, from_json, to_plain
from gateway.models.plans import plan_of
from gateway.models.revision import Deployment, Revision
from gateway.models.store import Store, Stored
from gateway.observation.observation import Observation
from gateway.record.events import Event, Events
from gateway.record.metrics import Reading
from gateway.record.recorder import Recorder
from gateway.strict_yaml import ConfigError

DEFAULT_PRIORITY = 5


class GatewayOperations:
    """Implements the control service; all methods belong to the loop."""

    def __init__(
        self,
        catalog: Catalog,
        workers: Workers,
        store: Store,
        recorder: Recorder,
        events: Events,
        drain: Callable[[], None],
        memory: Callable[[], MemoryState],
        observation: Observation,
    ) -> None:
        self._memory = memory
        self._observation = observation
        self._catalog = catalog
        self._workers = workers
        self._store = store
        self._recorder = recorder
        self._events = events
        self._drain = drain
        self._sequence = 0
        self._applying = asyncio.Lock()

    async def restore(self) -> None:
        """Bring up what was accepted before the process started."""
        stored, problems = await asyncio.to_thread(self._store.manifests)
        for problem in problems:
            self._events.emit("state-damaged", problem)
        for each in stored:
            try:
                manifest = from_json(json.dumps(each.manifest), "stored manifest")
            except ConfigError as refused:
                self._events.emit("state-damaged", str(refused))
                continue
            self._sequence = max(self._sequence, each.sequence)
            self._catalog.offer(plan_of(manifest, each.sequence, self._store))

    async def apply(self, manifests: Sequence[str]) -> control.ApplyResponse:
        """Accept, store, and start to bring up. Raises InvalidRequest."""
        try:
            parsed = [from_json(text, f"manifest {index + 1}") for index, text in enumerate(manifests)]
        except ConfigError as refused:
            raise InvalidRequest(str(refused)) from refused
        return await self.accept(parsed)

    async def accept(self, manifests: Sequence[ModelDeployment]) -> control.ApplyResponse:
        """Like ``apply``, of manifests that were read already."""
        response = control.ApplyResponse()
        async with self._applying:
            self._check_percents(manifests)
            for manifest in manifests:
                changed = self._changes(manifest)
                response.applied.add(name=manifest.name, version=manifest.version, changed=changed)
                response.warnings.extend(self._warnings(manifest))
                if changed:
                    self._sequence += 1
                    stored = Stored(self._sequence, time.time(), to_plain(manifest))
                    await asyncio.to_thread(self._store.keep, manifest.name, manifest.version, stored)
                    self._catalog.offer(plan_of(manifest, self._sequence, self._store))
        return response

    async def delete(self, name: str, version: str) -> control.DeleteResponse:
        async with self._applying:
            gone = self._catalog.withdraw(name, version)
            for label in gone:
                await asyncio.to_thread(self._store.forget, name, label)
                self._recorder.forget(name, label)
                self._observation.forget(name, label)
        return control.DeleteResponse(versions=gone)

    def get_deployments(self, name: str) -> control.GetDeploymentsResponse:
        response = control.GetDeploymentsResponse()
        for deployment in self._named(name):
            status = response.deployments.add(name=deployment.name)
            shares = dict(deployment.shares())
            current, previous = deployment.current, deployment.previous
            for label in dict.fromkeys(revision.label for revision in deployment.revisions):
                revision = deployment.newest(label)
                assert revision is not None
                requests, errors = self._recorder.requests(deployment.name, label)
                latency = self._recorder.latency(deployment.name, label)
                serving = deployment.serving(label)
                row = status.versions.add(
                    version=label,
                    state=revision.state,
                    reason=revision.reason or (_missing(revision) if revision.ready else ""),
                    percent=shares.get(label, 0),
                    current=serving is not None and serving is current,
                    previous=serving is not None and serving is previous,
                    checksum=f"sha256:{revision.sha256}" if revision.sha256 else revision.plan.checksum,
                    last_update=revision.last_update,
                    requests=requests,
                    errors=errors,
                    latency=control.Latency(
                        p50_ms=latency.p50 * 1e3,
                        p95_ms=latency.p95 * 1e3,
                        p99_ms=latency.p99 * 1e3,
                        count=latency.count,
                    ),
                    shadow=revision.plan.traffic.shadow,
                )
                self._observation.fill(row, deployment.name)
        return response

    def get_targets(self, name: str) -> control.GetTargetsResponse:
        response = control.GetTargetsResponse()
        now = time.monotonic()
        for deployment in self._named(name):
            for revision in deployment.revisions:
                for target in revision.targets:
                    state, reason, since = target.health(now)
                    run = target.estimates.typical(0.95)
                    waits = target.waits.quantile(0.95) or 0.0
                    response.targets.add(
                        deployment=deployment.name,
                        version=revision.label,
                        worker=target.name,
                        state=state,
                        reason=reason,
                        since=since or revision.last_update,
                        wait_p95_ms=max(waits, target.wait(DEFAULT_PRIORITY, now)) * 1e3,
                        run_p95_ms=(run or 0.0) * 1e3,
                        share=self._recorder.share(deployment.name, revision.label, target.name),
                        kind=target.worker.kind if target.worker else "",
                    )
        return response

    def get_accelerators(self, name: str) -> control.GetAcceleratorsResponse:
        response = control.GetAcceleratorsResponse()
        for worker in self._workers:
            if name in ("", worker.name):
                status = response.accelerators.add(
                    worker=worker.name,
                    backend=worker.backend,
                    kind=worker.kind,
                    pid=worker.pid,
                    state=worker.state,
                    reason=worker.reason,
                    since=worker.since,
                    band=worker.heat.band,
                    restarts=worker.restarts,
                    in_flight=worker.in_flight,
                    queue_depth=worker.queued,
                    device=worker.device,
                    runtime=worker.runtime,
                    sheds=worker.sheds,
                    forecast=worker.heat.forecast,
                    distrusted=worker.heat.distrusted,
                    throttled=bool(worker.heat.throttled),
                )
                if worker.heat.temperature_c is not None:
                    status.temperature_c = worker.heat.temperature_c
        if name and not response.accelerators:
            raise NotFound(f"no worker is called {name!r}")
        return response

    def get_events(self, name: str) -> control.GetEventsResponse:
        events = [_event(e) for e in self._events.since(0) if name in ("", e.deployment, e.worker)]
        return control.GetEventsResponse(events=events)

    async def watch_events(self, after: int) -> AsyncIterator[control.Event]:
        async for event in self._events.watch(after):
            yield _event(event)

    def drain(self) -> None:
        self._drain()

    async def feedback(self, name: str, request_id: str, label: str) -> control.FeedbackResponse:
        """Take the truth about an answer given before. Raises NotFound, Conflict, InvalidRequest."""
        self._named(name or "(none)")
        return await self._observation.feedback(name, request_id, label)

    def readings(self) -> Iterable[Reading]:
        """What the metrics endpoint shows beside the recorder's counters."""
        pressure = self._memory().pressure_percent
        if pressure is not None:
            yield Reading(
                "edgeway_memory_pressure", "Percent of time in which some task waited for memory", (), pressure
            )
        for worker in list(self._workers):
            labels = (("worker", worker.name), ("accelerator", worker.backend), ("kind", worker.kind))
            depth = worker.queued
            yield Reading("edgeway_queue_depth", "Runs waiting in the worker", labels, depth)
            restarts = worker.restarts
            yield Reading("edgeway_worker_restarts", "Starts after the first", labels, restarts, counter=True)
            if worker.heat.temperature_c is not None:
                yield Reading(
                    "edgeway_accelerator_temperature_celsius",
                    "As its sensor says, filtered; absent while it is not trusted",
                    labels,
                    worker.heat.temperature_c,
                )
            heat = worker.heat
            if heat.load is not None:
                yield Reading("edgeway_accelerator_utilization", "As the device says, 0 to 1", labels, heat.load)
            yield Reading(
                "edgeway_accelerator_throttle_events",
                "Times that the device began to throttle",
                labels,
                heat.throttle_events,
                counter=True,
            )
        for deployment in list(self._catalog.deployments.values()):
            for revision in list(deployment.revisions):
                version = (("model", deployment.name), ("version", revision.label))
                info = (*version, ("checksum", revision.sha256), ("state", revision.state))
                yield Reading("edgeway_model_info", "1 for every version that is known", info, 1)
                updated = revision.last_update
                yield Reading("edgeway_model_last_update_timestamp_seconds", "Last change of state", version, updated)
        yield from self._observation.readings()

    def _named(self, name: str) -> list[Deployment]:
        deployments = self._catalog.deployments
        if not name:
            return [deployments[key] for key in sorted(deployments)]
        if name not in deployments:
            raise NotFound(f"no deployment is called {name!r}")
        return [deployments[name]]

    def _changes(self, manifest: ModelDeployment) -> bool:
        """Whether this content is new, or its version failed and shall be tried again."""
        deployment = self._catalog.deployments.get(manifest.name)
        newest = deployment.newest(manifest.version) if deployment else None
        return newest is None or newest.state == "failed" or newest.plan.content != content_hash(manifest)

    def _check_percents(self, manifests: Sequence[ModelDeployment]) -> None:
        """Raises InvalidRequest: the percents of one deployment would pass 100."""
        for name in {manifest.name for manifest in manifests}:
            percents: dict[str, int] = {}
            deployment = self._catalog.deployments.get(name)
            for revision in deployment.revisions if deployment else ():
                percents[revision.label] = revision.plan.percent or 0
            percents |= {m.version: m.spec.traffic.percent or 0 for m in manifests if m.name == name}
            if sum(percents.values()) > 100:
                shares = ", ".join(f"{label} {percent} %" for label, percent in percents.items())
                got = f"{sum(percents.values())}: {shares}"
                raise InvalidRequest(f"spec.traffic.percent: expected at most 100 for all of {name}, got {got}")

    def _warnings(self, manifest: ModelDeployment) -> Iterable[str]:
        previous = manifest.spec.rollback.previous_version
        deployment = self._catalog.deployments.get(manifest.name)
        if previous and (deployment is None or deployment.newest(previous) is None):
            yield f"{manifest.name} {manifest.version}: previousVersion {previous} is not known here"
        for entry in manifest.target_order():
            if not self._workers.resolve(entry):
                yield f"{manifest.name} {manifest.version}: this device has no worker {entry}"


def _missing(revision: Revision) -> str:
    """Why some targets of a version in service are out, for the operator."""
    out = [f"{target.name}: {target.failure}" for target in revision.targets if target.failure]
    return "; ".join(out)


def _event(event: Event) -> control.Event:
    return control.Event(
        time=event.time,
        kind=event.kind,
        deployment=event.deployment,
        version=event.version,
        worker=event.worker,
        message=event.message,
        sequence=event.sequence,
    )
