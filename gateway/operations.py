"""What operators may do: the control service's verbs over catalog, workers and recorder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from pathlib import PurePath

from edgeway.v1 import control_pb2 as control
from gateway.device.memory import MemoryState
from gateway.dispatch.workers import Workers
from gateway.errors import InvalidRequest, NotFound, Refused
from gateway.event import Event
from gateway.models.catalog import Catalog
from gateway.models.guard import Guard
from gateway.models.judge import Trial
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import check_unique, from_json
from gateway.models.revision import Deployment, Revision
from gateway.models.rollout import Standing
from gateway.models.signing import Trust, Untrusted, read_signed
from gateway.models.steering import Steering
from gateway.observation.observation import Observation
from gateway.record.events import Events
from gateway.record.metrics import Reading
from gateway.record.recorder import Recorder
from gateway.strict_yaml import ConfigError
from gateway.target import Target

DEFAULT_PRIORITY = 5


class GatewayOperations:
    """Implements the control service; all methods belong to the loop."""

    def __init__(
        self,
        catalog: Catalog,
        workers: Workers,
        steering: Steering,
        guard: Guard,
        recorder: Recorder,
        events: Events,
        drain: Callable[[], None],
        memory: Callable[[], MemoryState],
        trust: Trust,
        observation: Observation,
    ) -> None:
        self._trust = trust
        self._memory = memory
        self._observation = observation
        self._catalog = catalog
        self._workers = workers
        self._steering = steering
        self._guard = guard
        self._recorder = recorder
        self._events = events
        self._drain = drain

    async def apply(
        self, manifests: Sequence[str], signed: Sequence[control.SignedManifests] = ()
    ) -> control.ApplyResponse:
        """Accept, store, and start to bring up. Raises InvalidRequest, Refused."""
        try:
            parsed, by_key = await self._read(manifests, signed)
            return await self.accept(parsed, "", by_key)
        except ConfigError as refused:
            raise InvalidRequest(str(refused)) from refused
        except (Untrusted, Refused) as refused:
            self._events.emit("manifest-refused", str(refused))
            raise Refused(str(refused)) from refused

    async def _read(
        self, manifests: Sequence[str], signed: Sequence[control.SignedManifests]
    ) -> tuple[list[ModelDeployment], set[tuple[str, str]]]:
        """The manifests, and which of them a trusted key has signed. Raises ConfigError, Untrusted."""
        if manifests and self._trust.required:
            self._trust.check(b"", b"")
        parsed = [from_json(text, f"manifest {index + 1}") for index, text in enumerate(manifests)]
        by_key: set[tuple[str, str]] = set()
        for file in signed:
            signer, found = await asyncio.to_thread(read_signed, file, self._trust)
            parsed += found
            by_key.update((manifest.name, manifest.version) for manifest in found if signer)
        check_unique(parsed, "the request")
        return parsed, by_key

    async def accept(
        self, manifests: Sequence[ModelDeployment], origin: str, signed: Container[tuple[str, str]]
    ) -> control.ApplyResponse:
        """Like ``apply``, of manifests that were read already. ``signed``: those that a trusted key has signed."""
        warnings = [warning for manifest in manifests for warning in self._warnings(manifest)]
        response = control.ApplyResponse(warnings=warnings)
        for each in await self._steering.accept(manifests, origin, signed):
            response.applied.add(name=each.name, version=each.version, changed=each.changed)
        return response

    def origins(self) -> Mapping[tuple[str, str], str]:
        """Where each accepted version came from; empty: an operator."""
        return self._steering.origins

    def state(self, name: str, version: str) -> str:
        """``ready`` if the version is in service, else what became of it; empty: it is not known."""
        deployment = self._catalog.deployments.get(name)
        newest = deployment.newest(version) if deployment else None
        if deployment is None or newest is None:
            return ""
        return "ready" if deployment.serving(version) else newest.state

    async def delete(self, name: str, version: str, origin: str | None = None) -> control.DeleteResponse:
        """``origin``: only if the version still came from there."""
        gone = await self._steering.delete(name, version, origin)
        for label in gone:
            self._recorder.forget(name, label)
            self._observation.forget(name, label)
        return control.DeleteResponse(versions=gone)

    async def promote(self, name: str, version: str) -> control.ChangeResponse:
        return control.ChangeResponse(message=await self._steering.promote(name, version))

    async def roll_back(self, name: str, to: str) -> control.ChangeResponse:
        return control.ChangeResponse(message=await self._steering.roll_back(name, to))

    async def set_traffic(self, name: str, percents: Mapping[str, int]) -> control.ChangeResponse:
        return control.ChangeResponse(message=await self._steering.set_traffic(name, percents))

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
                serving, standing = deployment.serving(label), deployment.rollout.find(label)
                version = status.versions.add(
                    version=label,
                    state=revision.state,
                    reason=revision.reason or self._remarks(revision, standing),
                    percent=shares.get(label, 0),
                    shadow=standing.shadow if standing else False,
                    steps=standing.steps if standing else (),
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
                )
                version.comparisons.extend(_comparisons(self._guard.trial(deployment.name, label)))
                if revision.progress is not None:
                    version.progress.done, version.progress.total = revision.progress
                self._observation.fill(version, deployment.name)
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
                        kind=target.kind or (target.worker.kind if target.worker else ""),
                        provenance=target.provenance,
                        artifact=PurePath(target.order.path).name if target.order else "",
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
                    code=worker.code,
                    remedy=worker.remedy,
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
        if not name:
            raise InvalidRequest("name: expected a deployment, got none")
        self._named(name)
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
                yield from _target_infos(version, list(revision.targets))
        yield from self._observation.readings()

    def _named(self, name: str) -> list[Deployment]:
        deployments = self._catalog.deployments
        if not name:
            return [deployments[key] for key in sorted(deployments)]
        if name not in deployments:
            raise NotFound(f"no deployment is called {name!r}")
        return [deployments[name]]

    def _remarks(self, revision: Revision, standing: Standing | None) -> str:
        """What operators should know of a version in service: targets that are out, and why its next step waits."""
        if not revision.ready:
            return ""
        remarks = [_missing(revision)]
        if standing is not None and standing.steps:
            why = self._guard.holds_back(revision.plan.name, revision.label)
            remarks.append(f"{standing.steps[0]} % waits: {why}" if why else "")
        return "; ".join(remark for remark in remarks if remark)

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


def _comparisons(trial: Trial | None) -> Iterable[control.Comparison]:
    """With the other version that serves, where both were asked."""
    for of, streams in (("errors", trial.errors), ("accuracy", trial.wrong)) if trial is not None else ():
        here, there = streams.rate, streams.other_rate
        if here is not None and there is not None:
            if of == "accuracy":
                here, there = 1 - here, 1 - there
            yield control.Comparison(of=of, p_value=streams.p, here=here, there=there)


def _target_infos(version: tuple[tuple[str, str], ...], targets: Iterable[Target]) -> Iterable[Reading]:
    for target in targets:
        if target.worker is not None and target.handle:
            kind = target.kind or target.worker.kind
            labels = (*version, ("worker", target.name), ("accelerator", target.worker.backend), ("kind", kind))
            about = (*labels, ("provenance", target.provenance))
            yield Reading(
                "edgeway_target_info", "1 for every target that is loaded: where it was proved to run", about, 1
            )


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
