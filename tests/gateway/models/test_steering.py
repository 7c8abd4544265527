"""Steering: commands are kept before they are in force, verdicts act at once, and neither undoes the other."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from benchmarks.harness import wait_for
from gateway.errors import Conflict, NotFound
from gateway.models.artifact import Artifact
from gateway.models.catalog import Catalog
from gateway.models.ledger import Ledger, NotKept
from gateway.models.loading import Loader
from gateway.models.manifest_files import from_json
from gateway.models.state import Change, State, StateUnusable
from gateway.models.steering import Steering
from gateway.record.events import Events
from gateway.request import Signature
from gateway.routing.table import Table
from gateway.target import Target


class FakeWorkers:
    """One worker that loads all but what is named in ``broken``; nothing while it is ``lost``."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.loaded: list[str] = []
        self.lost, self.load_limit = False, 300.0
        self.coming: dict[str, asyncio.Future[Signature]] = {}

    def resolve(self, entry):
        return ["cpu"]

    def remote(self, entry):
        return False

    def everyone(self):
        return ["cpu"]

    async def target(self, worker, preference, suffix):
        worker = SimpleNamespace(remote=False, state="ready", load_limit=self.load_limit)
        return Target("cpu", preference, worker)

    def load(self, target, order):
        if self.lost:
            target.order, target.worker.state, target.worker.reason = order, "lost", "unplugged"
            return self.coming.setdefault(order.version, asyncio.get_running_loop().create_future())
        future = asyncio.get_running_loop().create_future()
        if order.version in self.broken:
            target.failure = "broken"
            future.set_exception(RuntimeError("broken"))
        else:
            self.loaded.append(order.version)
            target.handle = 1
            future.set_result(Signature("onnx", (), ()))
        return future

    def unload(self, target):
        target.handle = 0


class FakeStore:
    """Has every file."""

    def fetch(self, wanted, external, told):
        return Artifact(None, wanted.sha256, ".onnx")


class FailingState(State):
    """A database whose disk can be full, or slow."""

    full = False

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def commit(self, change: Change) -> None:
        self.begun.set()
        assert self.gate.wait(10)
        if self.full:
            raise StateUnusable("state.db: database or disk is full")
        super().commit(change)


class Device:
    """Catalog and steering over a real database, with workers that do as they are told."""

    def __init__(self, folder) -> None:
        self.workers, self.table, self.events = FakeWorkers(), Table(), Events()
        self.now, self.stopped = 1000.0, False
        self.catalog = Catalog(
            self.table, Loader(self.workers), self.events.emit, moved=lambda name: self.steering.keep(name)
        )
        self.state = FailingState(folder)
        self.ledger = Ledger(self.state, self.events)
        self.steering = Steering(self.catalog, self.ledger, FakeStore(), self.events.emit, lambda: self.now)

    async def start(self) -> Device:
        known, _ = await self.ledger.open()
        self.steering.restore(known)
        await self.catalog.settled()
        return self

    async def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        await self.catalog.close()
        await self.steering.settled()
        await self.ledger.close()

    async def apply(self, *versions: tuple[str, dict], name: str = "m", origin: str = "") -> list[bool]:
        manifests = [manifest(name, label, spec) for label, spec in versions]
        accepted = await self.steering.accept(manifests, origin)
        await self.catalog.settled()
        return [each.changed for each in accepted]

    def states(self) -> dict[str, str]:
        return {
            label: self.catalog.deployment("m").newest(label).state for label in self.catalog.deployment("m").labels()
        }

    def shares(self) -> dict[str, int]:
        return dict(self.catalog.deployment("m").shares())

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.since(0)]


def manifest(name: str, label: str, spec: dict):
    model = {"uri": f"file:///{label}.onnx", "version": label, "checksum": f"sha256:{label * 64}"}
    body = {"apiVersion": "edge.ai/v1", "kind": "ModelDeployment", "metadata": {"name": name}}
    return from_json(json.dumps({**body, "spec": {"model": model, **spec}}), "here")


@pytest.fixture
async def device(tmp_path):
    made = await Device(tmp_path).start()
    await made.apply(("1", {}), ("2", {}))
    yield made
    await made.stop()


async def restarted(device: Device, folder) -> Device:
    await device.stop()
    return await Device(folder).start()


async def test_commands_survive_a_restart_and_the_same_manifest_applied_again(device, tmp_path):
    await device.steering.roll_back("m", "")
    assert (device.shares(), device.states()) == ({"1": 100}, {"1": "ready", "2": "rolledBack"})
    again = await restarted(device, tmp_path)
    assert (again.shares(), again.states()) == ({"1": 100}, {"1": "ready", "2": "rolledBack"})
    assert await again.apply(("2", {})) == [False]
    assert again.shares() == {"1": 100}
    assert await again.apply(("2", {"latency": {"budgetMs": 20}})) == [True]
    assert again.shares() == {"2": 100}
    await again.stop()


async def test_events_survive_a_restart_and_go_on_counting(device, tmp_path):
    await device.steering.roll_back("m", "")
    before = [(e.sequence, e.kind) for e in device.events.since(0)]
    again = await restarted(device, tmp_path)
    after = [(e.sequence, e.kind) for e in again.events.since(0)]
    assert after[: len(before)] == before
    assert (2 + before.index(next(e for e in before if e[1] == "rolled-back"))) <= len(after)
    assert [sequence for sequence, _ in after] == list(range(1, len(after) + 1))
    await again.stop()


async def test_a_command_that_cannot_be_kept_changes_nothing_and_names_the_cause(device):
    device.state.full = True
    with pytest.raises(NotKept, match="disk is full"):
        await device.steering.promote("m", "1")
    assert device.shares() == {"2": 100}
    with pytest.raises(NotKept, match="disk is full"):
        await device.apply(("3", {}))
    assert set(device.states()) == {"1", "2"}
    device.state.full = False
    await device.steering.promote("m", "1")
    assert device.shares() == {"1": 100}


async def test_a_verdict_acts_at_once_though_the_disk_is_full_and_is_kept_later(device, tmp_path):
    device.state.full = True
    assert device.steering.condemn("m", "2", "5 failures")
    assert device.shares() == {"1": 100}
    await device.steering.settled()
    assert "state-not-kept" in device.kinds()
    device.state.full = False
    await device.steering.set_traffic("m", {"1": 100})
    again = await restarted(device, tmp_path)
    assert again.states()["2"] == "rolledBack"
    await again.stop()


async def test_a_verdict_that_comes_while_a_command_is_being_kept_is_not_lost(device):
    await device.apply(("3", {"traffic": {"percent": 10}}))
    device.state.begun.clear()
    device.state.gate.clear()
    command = asyncio.ensure_future(device.steering.set_traffic("m", {"1": 0}))
    assert await asyncio.to_thread(device.state.begun.wait, 10)
    device.steering.condemn("m", "3", "5 failures")
    device.state.gate.set()
    await command
    assert device.states()["3"] == "rolledBack"
    assert device.shares() == {"2": 100}


async def test_a_verdict_on_the_only_version_leaves_it_and_says_so(device):
    await device.steering.delete("m", "1")
    assert not device.steering.condemn("m", "2", "5 failures")
    assert (device.shares(), "roll-back-impossible" in device.kinds()) == ({"2": 100}, True)


async def test_a_version_that_is_not_loaded_is_loaded_before_it_is_gone_back_to(device):
    await device.apply(("3", {}))
    assert device.states()["1"] == "unloaded"
    await device.steering.roll_back("m", "1")
    assert (device.shares(), device.states()["3"]) == ({"1": 100}, "rolledBack")


async def test_a_version_that_cannot_be_loaded_is_not_gone_back_to(device):
    device.workers.broken = {"3"}
    await device.apply(("3", {}))
    with pytest.raises(Conflict, match="3 of m is failed: cpu: broken"):
        await device.steering.roll_back("m", "3")
    assert device.shares() == {"2": 100}


async def test_a_promoted_version_that_fails_to_load_takes_nothing_over(device, tmp_path):
    await device.apply(("3", {}))
    device.workers.broken = {"1"}
    said = await device.steering.promote("m", "1")
    assert "once it is ready" in said
    await device.catalog.settled()
    assert (device.shares(), device.states()["1"]) == ({"3": 100}, "failed")


def refuse(device: Device, label: str, failure: str = "checksum mismatch") -> None:
    """The worker has started again and can't load what it had; without a failure it can."""
    target = device.catalog.deployment("m").newest(label).targets[0]
    target.handle, target.failure = 0 if failure else 1, failure
    device.catalog.changed()


async def test_a_version_that_every_target_refuses_by_now_is_not_ready_and_the_one_before_serves(device):
    refuse(device, "2")
    assert (device.states(), device.shares()) == ({"1": "ready", "2": "failed"}, {"1": 100})
    assert device.catalog.deployment("m").newest("2").reason == "cpu: checksum mismatch"
    refuse(device, "1")
    assert not device.catalog.serving()["m"]
    assert device.shares() == {}


async def test_it_is_ready_again_when_a_target_loads_it_again(device):
    refuse(device, "2")
    assert set(device.catalog.needed.values()) == {"m 1", "m 2"}
    refuse(device, "2", "")
    assert (device.states(), device.shares()) == ({"1": "ready", "2": "ready"}, {"2": 100})
    assert device.kinds()[-2:] == ["version-failed", "version-ready"]


async def test_a_version_whose_worker_is_only_lost_stays_ready(device):
    target = device.catalog.deployment("m").newest("2").targets[0]
    target.handle, target.worker.state = 0, "lost"
    device.catalog.changed()
    assert device.states()["2"] == "ready"


@pytest.mark.parametrize("renewed", [{}, {"latency": {"budgetMs": 7}}])
async def test_a_version_that_is_refused_is_fetched_anew_when_it_is_applied_again(device, renewed):
    refuse(device, "2")
    assert await device.apply(("2", renewed)) == [True]
    assert (device.states()["2"], device.workers.loaded.count("2")) == ("ready", 2)
    assert len(device.catalog.deployment("m").revisions) == 2


async def test_newer_content_takes_the_place_of_what_was_refused_meanwhile(device):
    device.workers.lost = True
    applying = asyncio.create_task(device.apply(("2", {"targets": ["cpu"]})))
    await asyncio.to_thread(wait_for, lambda: "2" in device.workers.coming, 5, "the order to load it")
    older = device.catalog.deployment("m").serving("2").targets[0]
    older.handle, older.failure = 0, "checksum mismatch"
    device.catalog.changed()
    device.workers.coming["2"].set_result(Signature("onnx", (), ()))
    await applying
    assert [r.state for r in device.catalog.deployment("m").revisions] == ["ready", "ready"]


async def test_a_version_out_of_reach_fails_in_time_and_nobody_waits_for_it_and_it_comes_by_itself(device):
    device.workers.lost, device.workers.load_limit = True, 0.0
    assert await device.apply(("3", {})) == [True]
    assert (device.states()["3"], device.shares()) == ("failed", {"2": 100})
    with pytest.raises(Conflict, match="3 of m is failed: cpu: unplugged"):
        await device.steering.roll_back("m", "3")
    revision = device.catalog.deployment("m").newest("3")
    assert "m 3" in device.catalog.needed.values()
    revision.targets[0].worker.state, revision.targets[0].handle = "ready", 1
    device.workers.coming["3"].set_result(Signature("onnx", (), ()))
    await asyncio.wait_for(revision.task, 5)
    assert (device.states()["3"], device.shares()) == ("ready", {"3": 100})


async def test_who_waits_for_a_version_is_told_when_it_turns_out_to_be_out_of_reach(device):
    await device.apply(("3", {}))
    assert device.states()["1"] == "unloaded"
    device.workers.lost, device.workers.load_limit = True, 0.0
    with pytest.raises(Conflict, match="1 of m is failed: cpu: unplugged"):
        await asyncio.wait_for(device.steering.roll_back("m", "1"), 5)
    assert device.shares() == {"3": 100}


async def test_after_a_restart_only_what_is_needed_is_loaded(device, tmp_path):
    await device.apply(("3", {}), ("4", {"traffic": {"percent": 0}}), ("5", {}))
    again = await restarted(device, tmp_path)
    assert again.states() == {"1": "unloaded", "2": "unloaded", "3": "ready", "4": "ready", "5": "ready"}
    await again.stop()


async def test_when_the_newest_cannot_be_loaded_after_a_restart_the_ones_before_it_are(device, tmp_path):
    await device.apply(("3", {}))
    await device.stop()
    again = Device(tmp_path)
    again.workers.broken = {"3"}
    await again.start()
    await again.catalog.settled()
    assert again.states() == {"1": "ready", "2": "ready", "3": "failed"}
    assert again.shares() == {"2": 100}
    await again.stop()


async def test_steps_go_on_where_they_were_after_a_restart(device, tmp_path):
    await device.apply(("3", {"traffic": {"steps": [10, 50, 100], "stepSeconds": 60}}))
    device.steering.step(lambda name, label: True)
    device.now += 60
    device.steering.step(lambda name, label: False)
    assert device.shares() == {"2": 90, "3": 10}
    device.steering.step(lambda name, label: True)
    assert device.shares() == {"2": 50, "3": 50}
    again = await restarted(device, tmp_path)
    again.now = device.now + 59
    again.steering.step(lambda name, label: True)
    assert again.shares() == {"2": 50, "3": 50}
    again.now += 1
    again.steering.step(lambda name, label: True)
    assert (again.shares(), again.kinds().count("promoted")) == ({"3": 100}, 1)
    await again.stop()


async def test_keys_find_their_version_again_after_a_restart(device, tmp_path):
    await device.apply(("3", {"traffic": {"percent": 30}}))
    keys = [f"robot-{number}" for number in range(300)]

    def arms(of: Device) -> list[str]:
        return [of.table.find("m").split.choose(key) for key in keys]

    before = arms(device)
    again = await restarted(device, tmp_path)
    assert arms(again) == before
    await again.stop()


async def test_an_unchanged_deployment_goes_on_counting_its_split(device):
    await device.apply(("3", {"traffic": {"percent": 50}}))
    split = device.table.find("m").split
    first = [split.choose() for _ in range(31)]
    device.catalog.adopt("m", device.catalog.deployment("m").rollout)
    rest = [device.table.find("m").split.choose() for _ in range(69)]
    assert (first + rest).count("3") == 50


async def test_what_an_operator_applies_too_belongs_to_the_folder_no_more(device):
    await device.apply(("7", {}), origin="folder:a.yaml")
    assert device.steering.origins["m", "7"] == "folder:a.yaml"
    assert await device.apply(("7", {})) == [False]
    assert device.steering.origins["m", "7"] == ""


async def test_deleting_names_what_is_missing(device):
    with pytest.raises(NotFound, match="no version 9"):
        await device.steering.delete("m", "9")
    assert await device.steering.delete("m", "") == ["1", "2"]
    with pytest.raises(NotFound, match="no deployment is called 'm'"):
        await device.steering.delete("m", "")
