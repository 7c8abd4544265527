"""Which answers are looked at, and what becomes of the copies that shadow versions get."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness import alive, poisonable, scaled, slow_for
from gateway.config import WorkerConfig
from gateway.dispatch.launch import WorkerTerms, inherited
from gateway.dispatch.pool import Worker
from gateway.dispatch.shadow import ShadowWorker
from gateway.models.manifest import Check, Feedback, Rollback, Samples, Traffic
from gateway.models.revision import Deployment, Plan, PlannedArtifact, Revision
from gateway.models.rollout import Rollout
from gateway.observation import mirror as mirror_of
from gateway.observation.figures import SamplePolicy, Seen, Watched
from gateway.observation.mirror import Mirror, Tally
from gateway.observation.references import References
from gateway.observation.sight import AT_ONCE, SMALL, Handing, Sight, Sights
from gateway.regions.region import RegionSpan
from gateway.request import Answer, InputTensor, Outcome, OutputTensor, Request, Signature, TensorSpec
from gateway.routing.split import Split
from gateway.routing.table import Route, Table
from gateway.target import LoadOrder, Target, Version

CPU = msgspec.convert({"name": "cpu", "backend": "cpu", "threads": 1}, WorkerConfig)

SIMULATED = msgspec.convert({"name": "sim", "backend": "simulated", "options": {"serviceMs": 20}}, WorkerConfig)


@dataclass
class Observer:
    """Remembers what it was handed."""

    answers: list[tuple[str, str, tuple[Seen, ...]]] = field(default_factory=list)
    pairs: list[tuple[str, tuple[Seen, ...], tuple[Seen, ...]]] = field(default_factory=list)
    samples: list[tuple[str, list[Seen]]] = field(default_factory=list)
    asked: int = 0
    watched: dict[tuple[str, str], Watched] = field(default_factory=dict)
    forgotten: list[tuple[str, str]] = field(default_factory=list)

    def answered(self, model, version, request_id, outputs):
        self.answers.append((version, request_id, outputs))

    def compared(self, model, version, real, shadow):
        self.pairs.append((version, real, shadow))

    def inputs(self, model, version, request_id, inputs):
        self.samples.append((request_id, inputs))

    def watch(self, model, version, watched):
        self.watched[model, version] = watched

    def forget(self, model, version):
        self.forgotten.append((model, version))

    def sample_due(self, model, version):
        self.asked += 1
        return self.asked % 3 == 0


def tensor(values: np.ndarray, name: str = "x", kind: str = "FP32") -> InputTensor:
    return InputTensor(name, kind, values.shape, memoryview(values.tobytes()))


def request(values=(1.0, 2.0), kind: str = "FP32", dtype=np.float32, **more) -> Request:
    array = np.array(values, dtype)
    fields = {"version": "", "id": "", **more}
    return Request(
        "m", fields.pop("version"), fields.pop("id"), [tensor(array, "x", kind)], (), 0.0, array.nbytes, **fields
    )


def answer(values=(2.0, 4.0), kind: str = "FP32", dtype=np.float32) -> Answer:
    array = np.array(values, dtype)
    return Answer(
        [OutputTensor("y", kind, array.shape, memoryview(bytearray(array.tobytes())))], Outcome("m", 0.0), lambda: None
    )


def version(label: str, kind: str = "FP32", targets=()) -> Version:
    return Version(
        label, Signature("onnx", (TensorSpec("x", kind, (-1,)),), (TensorSpec("y", kind, (-1,)),)), tuple(targets)
    )


class Scene:
    """A deployment with version 1 in traffic and version 2 in its shadow, which has a worker process."""

    def __init__(self, order: LoadOrder, kind: str, accelerator: Worker | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.observer, self.events = Observer(), []
        self.place = ShadowWorker(CPU, self.emit, 1 << 24, WorkerTerms(2.0, inherited(), Path("/nowhere")))
        self.cpu = Worker(CPU, 2, self.emit, lambda: None)
        self.real = version("1", kind)
        self.shadow = version("2", kind, [Target("cpu", 0, self.cpu, handle=1, order=order)])
        route = Route("m", {"1": self.real, "2": self.shadow}, frozenset("12"), Split([("1", 100)]), "1", None)
        self.table = Table({"m": replace(route, shadow=(self.shadow,))})
        self.mirror = Mirror(self.table, self.observer, self.place, self.emit, self.loop)
        self.handing = Handing(self.observer, self.loop)
        self.sight = Sight("m", self.real, self.handing, self.mirror, Watched(), mirrored=True)
        self.order = order

    def emit(self, kind: str, message: str, **about: str) -> None:
        self.events.append(kind)

    async def up(self) -> None:
        self.place.keep({self.order})
        await self.until(lambda: self.place.target(self.order) is not None)

    async def until(self, condition, limit: float = 10.0) -> None:
        async def look() -> None:
            while not condition():  # noqa: ASYNC110 - some of it happens in another process
                await asyncio.sleep(0.005)

        await asyncio.wait_for(look(), limit)

    @property
    def tally(self) -> Tally:
        return next((tally for _, _, tally in self.mirror.tallies()), Tally())

    @property
    def over(self) -> int:
        return self.tally.compared + self.tally.failed + self.tally.skipped


@asynccontextmanager
async def scene(folder: Path, model, kind: str = "FP32"):
    path = folder / "shadow.onnx"
    path.write_bytes(model.SerializeToString())
    made = Scene(LoadOrder("m", "2", str(path), ""), kind)
    try:
        await made.up()
        yield made
    finally:
        await made.mirror.close()
        await made.place.stop()


async def test_a_shadow_answers_the_same_request_and_both_answers_are_compared(folder):
    async with scene(folder, scaled(3.0)) as s:
        s.sight.answered(request((1.0, 2.0)), answer((2.0, 4.0)))
        await s.until(lambda: s.observer.pairs)
        ((label, real, shadow),) = s.observer.pairs
        assert label == "2"
        assert np.frombuffer(real[0].data, np.float32).tolist() == [2.0, 4.0]
        assert np.frombuffer(shadow[0].data, np.float32).tolist() == [3.0, 6.0]
        assert (s.tally.compared, s.tally.failed, s.tally.skipped) == (1, 0, 0)
        assert s.shadow.users == 0


async def test_one_copy_at_a_time_and_the_others_are_counted_as_skipped(folder):
    async with scene(folder, scaled(3.0)) as s:
        for _ in range(5):
            s.sight.answered(request(), answer())
        await s.until(lambda: s.over == 5)
        assert (s.tally.compared, s.tally.skipped) == (1, 4)
        s.sight.answered(request(), answer())
        await s.until(lambda: s.tally.compared == 2)


async def test_pinned_requests_and_those_in_regions_or_beyond_the_limits_get_no_copy(folder, monkeypatch):
    monkeypatch.setattr(mirror_of, "LARGEST_INPUTS", 64)
    async with scene(folder, scaled(3.0)) as s:
        s.sight.answered(request(version="1"), answer())
        assert s.over == 0
        s.sight.answered(request(regions=("a region",)), answer())
        s.sight.answered(request([1.0] * 20), answer())
        assert s.tally.skipped == 2
        in_region = answer()
        in_region.outputs = [OutputTensor("y", "FP32", (2,), RegionSpan(None, 0, 8))]
        s.sight.answered(request(id="a"), in_region)
        s.handing.hand_on()
        assert not s.observer.answers
        assert not s.observer.pairs


async def test_a_shadow_that_takes_other_tensors_fails_each_time_and_that_is_a_disagreement(folder):
    async with scene(folder, scaled(3.0)) as s:
        s.sight.answered(request((1, 2), "INT32", np.int32), answer())
        await s.until(lambda: s.over == 1)
        assert s.tally.failed == 1
        ((_, real, shadow),) = s.observer.pairs
        assert real
        assert shadow == ()


async def test_a_shadow_that_kills_its_worker_gets_no_more_copies_for_a_while(folder):
    async with scene(folder, poisonable(), "INT32") as s:
        pid = s.place.target(s.order).worker.pid
        s.sight.answered(request((-1,), "INT32", np.int32), answer((1,), "INT32", np.int32))
        await s.until(lambda: s.over == 1)
        assert s.tally.failed == 1
        assert "shadow-paused" in s.events
        await s.until(lambda: s.place.target(s.order) is not None and s.place.target(s.order).worker.pid != pid)
        s.sight.answered(request((3,), "INT32", np.int32), answer((1,), "INT32", np.int32))
        assert (s.tally.failed, s.tally.skipped) == (1, 1)


async def test_a_shadow_that_takes_too_long_is_ended_and_paused(folder, monkeypatch):
    monkeypatch.setattr(mirror_of, "LONGEST", 0.2)
    async with scene(folder, slow_for(1.0)) as s:
        await s.until(lambda: s.sight.answered(request((1.0,)), answer((1.0,))) or s.tally.failed)
        assert s.tally.failed == 1
        assert not s.observer.pairs  # late is not wrong
        assert s.tally.resume_at > s.loop.time()
        worker = s.place.target(s.order).worker
        await s.until(lambda: worker.in_flight == 0, 5)


async def test_nothing_is_copied_while_the_cpu_is_hot_or_full(folder):
    async with scene(folder, scaled(3.0)) as s:
        s.cpu.sheds = "warm"
        s.sight.answered(request(), answer())
        s.cpu.sheds, s.cpu.in_flight = "nominal", 2
        s.sight.answered(request(), answer())
        assert s.tally.skipped == 2


async def test_an_accelerator_gets_a_copy_only_now_and_then_and_the_cpu_the_others(folder):
    async with scene(folder, scaled(3.0)) as s:
        chip = ShadowWorker(SIMULATED, s.emit, 1 << 24, WorkerTerms(2.0, inherited(), Path("/nowhere")))
        try:
            chip.keep({s.order})
            await s.until(lambda: chip.target(s.order) is not None)
            on_chip, on_cpu = chip.target(s.order), s.place.target(s.order)
            s.shadow.targets = (on_chip, *s.shadow.targets)
            went, began = [], s.loop.time()
            for target in (on_chip, on_cpu):
                target.worker.sent = partial(noted, went, target.worker)
            await s.until(lambda: s.sight.answered(request(), answer()) or s.tally.compared >= 3)
            assert (went[0], set(went[1:])) == ("simulated", {"cpu"})
            ((_, until),) = s.mirror._rests.items()
            assert until > began + 2.0  # a hundred times the 20 ms that it ran
            s.mirror._rests.clear()
            on_chip.worker.in_flight = 1
            assert s.mirror._place(s.shadow, s.loop.time()) is on_cpu
            on_chip.worker.in_flight = 0
            assert s.mirror._place(s.shadow, s.loop.time()) is on_chip
            on_chip.worker.sheds = "warm"
            assert s.mirror._place(s.shadow, s.loop.time()) is on_cpu
        finally:
            await s.mirror.close()
            await chip.stop()


def noted(went: list[str], worker: Worker, priority: int, expected: float, now: float) -> None:
    went.append(worker.backend)
    assert priority == 9
    Worker.sent(worker, priority, expected, now)


async def test_the_process_of_shadows_ends_with_the_last_of_them(folder):
    async with scene(folder, scaled(3.0)) as s:
        pid = s.place.target(s.order).worker.pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        s.place.keep(set())
        assert s.place.target(s.order) is None
        await s.until(lambda: not alive(pid))
        await s.up()


def handed(s: Scene) -> list[tuple[str, str]]:
    s.handing.hand_on()
    return [(label, request_id) for label, request_id, _ in s.observer.answers]


def unmirrored(**watched) -> Scene:
    s = Scene(LoadOrder("m", "2", "none", ""), "FP32")
    s.sight.mirrored, s.sight.watched = False, Watched(**watched)
    return s


async def test_only_small_answers_with_an_id_are_looked_at_unless_drift_asks_for_all():
    s = unmirrored()
    s.sight.answered(request(), answer())
    s.sight.answered(request(id="a"), answer())
    s.sight.answered(request(id="b"), answer(np.zeros(SMALL // 4 + 1)))
    assert handed(s) == [("1", "a")]
    s.sight.watched = Watched(Path("reference.npz"))
    s.sight.answered(request(), answer())
    assert handed(s) == [("1", "a"), ("1", "")]


async def test_only_the_outputs_that_drift_and_labels_are_taken_of_are_copied():
    s, given = unmirrored(reference=Path("reference.npz"), drift_output="z", feedback_output="y"), answer()
    given.outputs = [*given.outputs, OutputTensor("mask", "UINT8", (SMALL,), memoryview(bytes(SMALL)))]
    s.sight.answered(request(id="a"), given)
    s.sight.answered(request(), given)
    assert handed(s) == [("1", "a")]
    assert [seen.name for seen in s.observer.answers[0][2]] == ["y"]


async def test_the_copy_of_an_answer_outlives_its_slot():
    s, given = unmirrored(), answer((2.0, 4.0))
    s.sight.answered(request(id="a"), given)
    given.outputs[0].data[:] = bytes(8)
    handed(s)
    assert np.frombuffer(s.observer.answers[0][2][0].data, np.float32).tolist() == [2.0, 4.0]


async def test_answers_without_an_id_are_looked_at_no_more_often_than_the_rate_allows():
    s = unmirrored(reference=Path("reference.npz"))
    for _ in range(int(AT_ONCE) + 500):
        s.sight.answered(request(), answer())
    looked_at = len(handed(s))
    assert AT_ONCE <= looked_at <= AT_ONCE + 400  # some more are allowed while the loop goes on


async def test_every_so_many_th_input_is_handed_on_as_a_sample():
    s = unmirrored(samples=SamplePolicy(3, 1, Path("samples")))
    for number in range(7):
        s.sight.answered(request((float(number), 0.0)), answer())
    s.handing.hand_on()
    firsts = [np.frombuffer(seen[0].data, np.float32)[0] for _, seen in s.observer.samples]
    assert firsts == [2.0, 5.0]


async def test_copies_that_wait_are_bounded_and_what_is_dropped_is_counted(monkeypatch):
    monkeypatch.setattr("gateway.observation.sight.WAITING_BYTES", 16)
    s = unmirrored()
    for name in ("a", "b", "c", "d"):
        s.sight.answered(request(id=name), answer())
    assert handed(s) == [("1", "a"), ("1", "b")]
    assert s.handing.dropped == 2
    s.sight.answered(request(id="e"), answer())
    assert len(handed(s)) == 3


@dataclass
class Kept:
    """A place for shadows that remembers what it is to have."""

    orders: set[LoadOrder] = field(default_factory=set)

    def keep(self, orders):
        self.orders = set(orders)


def revision(label: str, file: str = "a", **plan) -> Revision:
    artifacts = (PlannedArtifact("", ".onnx", lambda told: None, check=Check(top1=0.9)),)
    made = Plan("m", label, (1, int(label)), file, file, artifacts, **plan)
    worker = Worker(CPU, 2, lambda *_, **__: None, lambda: None)
    order = LoadOrder("m", label, file, "")
    return Revision(made, "ready", version=version(label, targets=[Target("cpu", 0, worker, handle=1, order=order)]))


async def refreshed(s: Scene, sights: Sights, *revisions: Revision) -> Deployment:
    standings = tuple(each.plan.standing() for each in revisions)
    deployment = Deployment("m", Rollout(standings), list(revisions))
    s.table.routes["m"] = deployment.route()
    sights.refresh([deployment])
    return deployment


def sights_of(s: Scene) -> tuple[Sights, Kept]:
    place = Kept()
    return Sights(s.table, s.handing, s.mirror, place, References(), Path("samples")), place


async def test_a_version_is_looked_at_by_its_settings_and_has_shadows_where_its_deployment_does():
    s = unmirrored()
    sights, place = sights_of(s)
    first = revision("1", feedback=Feedback(window=50), samples=Samples(every=7))
    await refreshed(s, sights, first)
    seen = first.version.seen
    assert (seen.watched.feedback_window, seen.watched.check, seen.mirrored) == (50, Check(top1=0.9), False)
    assert seen.watched.samples == SamplePolicy(7, 100 << 20, Path("samples/m/1"))
    assert place.orders == set()
    shadow = revision("2", traffic=Traffic(percent=0, shadow=True), percent=0)
    await refreshed(s, sights, first, shadow)
    assert first.version.seen is seen
    assert (seen.mirrored, shadow.version.seen.mirrored) == (True, False)
    assert {order.version for order in place.orders} == {"2"}
    await refreshed(s, sights, first)
    assert not seen.mirrored
    assert place.orders == set()


async def test_a_rule_on_agreement_asks_for_copies_too():
    s = unmirrored()
    sights, place = sights_of(s)
    canary = revision("2", percent=10, rollback=Rollback(min_agreement=0.9))
    await refreshed(s, sights, revision("1"), canary)
    assert {order.version for order in place.orders} == {"2"}


async def test_what_is_known_of_other_files_with_the_same_label_is_forgotten():
    s = unmirrored()
    sights, _ = sights_of(s)
    await refreshed(s, sights, revision("1", "a"))
    await refreshed(s, sights)
    await refreshed(s, sights, revision("1", "a"))
    assert s.observer.forgotten == []
    again = revision("1", "b")
    await refreshed(s, sights, again)
    assert s.observer.forgotten == [("m", "1")]
    assert s.observer.watched["m", "1"] == again.version.seen.watched
