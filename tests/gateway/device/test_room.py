"""The catalog when memory is short: what it refuses, unloads, and brings back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.models.artifact import Artifact
from gateway.models.catalog import RETURN_AFTER, UNUSED_AFTER, Catalog
from gateway.models.loading import Loader
from gateway.models.manifest_files import from_json
from gateway.models.plans import plan_of
from gateway.models.revision import Plan, PlannedArtifact
from gateway.request import Signature
from gateway.routing.table import Table
from gateway.target import Target

GB = 1 << 30


@dataclass
class FakeWorker:
    name: str = "cpu"
    backend: str = "cpu"
    kind: str = "cpu"
    state: str = "ready"
    remote: bool = False
    reason: str = ""
    since: float = 0.0
    load_limit: float = 300.0

    def expected_wait(self) -> float:
        return 0.0


@dataclass
class FakeWorkers:
    """A pool that loads what it is told, at once or when ``gate`` opens."""

    loaded: list[str] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    def resolve(self, entry):
        return ["cpu"]

    def remote(self, entry):
        return False

    def everyone(self):
        return ["cpu"]

    async def target(self, worker, preference, suffix):
        return Target(worker, preference, FakeWorker(), handle=1)

    def load(self, target, order):
        self.loaded.append(f"{order.name} {order.version}")

        async def outcome():
            if self.gate is not None:
                await self.gate.wait()
            return Signature("onnx", (), ())

        return asyncio.ensure_future(outcome())

    def unload(self, target):
        self.unloaded.append(target.name)


class Device:
    """A catalog with so much memory, on a scripted clock."""

    def __init__(self, free: int = 100 * GB) -> None:
        self.free = free
        self.pressed = False
        self.now = 1000.0
        self.events: list[str] = []
        self.changed = asyncio.Event()
        self.workers = FakeWorkers()
        self.catalog = Catalog(Table(), Loader(self.workers), self._emit, self._refusal, lambda: self.now)

    def _emit(self, kind, message, **about):
        self.events.append(f"{kind} {about['deployment']} {about['version']}")
        self.changed.set()

    async def until(self, event: str) -> None:
        while event not in self.events:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)

    def _refusal(self, plan: Plan, promised: int) -> str:
        if self.pressed:
            return "tasks wait for it"
        return "" if plan.min_memory + promised <= self.free else f"needs {plan.min_memory // GB} GB"

    async def offer(self, *plans: Plan) -> None:
        for plan in plans:
            self.catalog.offer(plan)
        await self.catalog.settled()

    def states(self, name: str = "m") -> dict[str, str]:
        return {revision.label: revision.state for revision in self.catalog.deployments[name].revisions}

    def revision(self, label: str, name: str = "m"):
        return self.catalog.deployments[name].newest(label)


def plan(version: str = "1", order: int = 1, **fields) -> Plan:
    """A plan whose file is that of its version, unless told otherwise."""
    artifact = Artifact(Path("/m.onnx"), "0" * 64, ".onnx")
    files = (PlannedArtifact("", ".onnx", lambda told: artifact),)
    made = Plan("m", version, (1, order), f"{version} {fields}", version, files, targets=("cpu",))
    return replace(made, **fields)


async def test_a_version_that_needs_more_than_there_is_fails_with_the_reason_and_is_not_loaded():
    device = Device(free=GB)
    await device.offer(plan(min_memory=2 * GB))
    assert device.states() == {"1": "failed"}
    assert device.revision("1").reason == "memory: needs 2 GB"
    assert device.workers.loaded == []


async def test_it_is_brought_up_once_there_is_enough():
    device = Device(free=GB)
    await device.offer(plan(min_memory=2 * GB))
    assert device.catalog.retry() == []
    device.free = 3 * GB
    assert device.catalog.retry() == ["m 1"]
    await device.catalog.settled()
    assert device.states() == {"1": "ready"}
    assert device.catalog.retry() == []


async def test_the_old_version_serves_on_when_there_is_no_room_for_the_new_one():
    device = Device(free=2 * GB)
    await device.offer(plan("1"), plan("2", 2, min_memory=4 * GB))
    assert device.states() == {"1": "ready", "2": "failed"}
    assert device.catalog.is_ready("m", "")


async def test_two_loads_at_a_time_are_not_promised_the_same_memory():
    device = Device(free=3 * GB)
    device.workers.gate = asyncio.Event()
    device.catalog.offer(plan(min_memory=2 * GB))
    await device.until("version-loading m 1")
    device.catalog.offer(replace(plan(min_memory=2 * GB), name="other"))
    await device.until("version-failed other 1")
    assert device.workers.loaded == ["m 1"]
    device.workers.gate.set()
    await device.catalog.settled()
    assert (device.states("m")["1"], device.states("other")["1"]) == ("ready", "failed")
    assert device.catalog.retry() == ["other 1"]


async def test_under_pressure_no_version_is_loaded_whatever_it_needs():
    device = Device()
    device.pressed = True
    await device.offer(plan())
    assert device.revision("1").reason == "memory: tasks wait for it"
    device.pressed = False
    assert device.catalog.retry() == ["m 1"]


async def test_a_file_that_is_loaded_already_needs_no_more_memory():
    device = Device()
    await device.offer(plan())
    device.pressed = True
    await device.offer(plan(content="other settings", budget=0.1, order=2))
    assert device.states() == {"1": "ready"}


async def test_pressure_unloads_what_only_pins_reach_and_keeps_what_has_a_share():
    device = Device()
    await device.offer(plan("1"), plan("2", 2), plan("3", 3, percent=0), plan("4", 4, percent=10))
    assert device.catalog.relieve() == ["m 3"]
    assert device.states() == {"1": "ready", "2": "ready", "3": "unloaded", "4": "ready"}
    assert device.workers.unloaded == ["cpu"]
    assert "version-unloaded m 3" in device.events
    assert device.catalog.relieve() == []


async def test_a_version_that_was_pinned_of_late_is_kept():
    device = Device()
    await device.offer(plan("1"), plan("2", 2, percent=0))
    device.revision("2").targets[0].tried = device.now - UNUSED_AFTER + 1
    assert device.catalog.relieve() == []
    device.now += 2
    assert device.catalog.relieve() == ["m 2"]


async def test_a_version_with_a_request_in_it_is_kept():
    device = Device()
    await device.offer(plan("1"), plan("2", 2, percent=0))
    device.revision("2").version.enter()
    assert device.catalog.relieve() == []


async def test_a_sole_version_is_kept_though_it_has_no_share():
    device = Device()
    await device.offer(plan("1", percent=0))
    assert device.catalog.relieve() == []


async def test_what_made_room_comes_back_but_not_at_once():
    device = Device()
    await device.offer(plan("1"), plan("2", 2, percent=0))
    device.catalog.relieve()
    assert device.catalog.retry() == []
    device.now += RETURN_AFTER
    assert device.catalog.retry() == ["m 2"]
    await device.catalog.settled()
    assert device.states() == {"1": "ready", "2": "ready"}


async def test_a_version_that_was_replaced_meanwhile_is_not_brought_back():
    device = Device(free=GB)
    await device.offer(plan(min_memory=2 * GB))
    await device.offer(plan(content="smaller", file="smaller", order=2))
    device.free = 3 * GB
    assert device.catalog.retry() == []
    assert device.states() == {"1": "ready"}


@pytest.mark.parametrize(("megabytes", "expected"), [(None, 0), (2048, 2 * GB)])
def test_what_a_manifest_says_it_needs_is_in_its_plan_in_bytes(megabytes, expected):
    hardware = {} if megabytes is None else {"minMemoryMB": megabytes}
    text = json.dumps(
        {
            "apiVersion": "edge.ai/v1",
            "kind": "ModelDeployment",
            "metadata": {"name": "m"},
            "spec": {
                "model": {"uri": "file:///m.onnx", "version": "1", "checksum": f"sha256:{'0' * 64}"},
                "hardware": hardware,
            },
        }
    )
    assert plan_of(from_json(text, "here"), 1, None).min_memory == expected
