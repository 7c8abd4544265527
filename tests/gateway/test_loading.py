"""Loading: which target takes which file, what one that does not come or does not agree costs the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import wait_for
from gateway.models import fetches
from gateway.models.artifact import Artifact, ArtifactRefused, LinkLost
from gateway.models.fetches import FetchEnded, retry_delay
from gateway.models.loading import Barred, Loader, NoTargetLoads
from gateway.models.manifest import Check, Tolerance
from gateway.models.revision import Plan, PlannedArtifact, Revision
from gateway.request import Signature, TensorSpec
from gateway.target import LoadOrder, Target

X = TensorSpec("x", "FP32", (1,))
SIGNATURE = Signature("onnx", (X,), (X,))
FORMATS = {"cpu": (".onnx",), "tpu": (".tflite",), "gpu": (".onnx", ".plan")}


@dataclass
class FakeWorker:
    name: str
    backend: str
    kind: str = "hardware"
    state: str = "ready"
    reason: str = ""
    since: float = 0.0
    sheds: str = "nominal"
    remote: bool = False
    load_limit: float = 300.0

    def expected_wait(self, priority: int, now: float) -> float:
        return 0.0


@dataclass
class FakeWorkers:
    """Loads what it is told, but for files of ``refuses``; of ``bars`` it says that they disagree."""

    names: tuple[str, ...] = ("tpu", "cpu")
    refuses: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()
    signatures: dict[str, Signature] = field(default_factory=dict)
    orders: dict[str, LoadOrder] = field(default_factory=dict)
    unloaded: list[str] = field(default_factory=list)

    def remote(self, entry):
        return entry == "far"

    def resolve(self, entry):
        return [entry] if entry in self.names else []

    def everyone(self):
        return self.names

    async def target(self, worker, preference, suffix):
        target = Target(worker, preference, FakeWorker(worker, worker, remote=worker == "far"))
        if worker != "far" and suffix(worker) not in FORMATS[worker]:
            target.failure = f"{worker} loads {FORMATS[worker]}, not {suffix(worker)}"
        return target

    def load(self, target, order):
        self.orders[target.name] = order
        loaded = asyncio.get_running_loop().create_future()
        if target.name in self.bars:
            target.barred, target.failure = True, "barred: sample 3"
            loaded.set_exception(RuntimeError("barred"))
        elif target.name in self.refuses:
            target.failure = "no memory"
            loaded.set_exception(RuntimeError("refused"))
        else:
            target.handle = 1
            loaded.set_result(self.signatures.get(target.name, SIGNATURE))
        loaded.exception()
        return loaded

    def unload(self, target):
        self.unloaded.append(target.name)


class File:
    """A file to be fetched: at once, when ``gate`` opens, or not at all; ``lost``: tries that the link does not do."""

    def __init__(self, name: str, gate: threading.Event | None = None, lost: int = 0, refused: str = "") -> None:
        suffix = Path(name).suffix
        self.artifact = Artifact(Path(f"/store/{name}"), name, suffix)
        self.begun, self.ended = threading.Event(), threading.Event()
        self.tries = 0
        self._gate, self._lost, self._refused = gate, lost, refused

    def fetch(self, told: Callable[[int, int], None]) -> Artifact:
        self.tries += 1
        self.begun.set()
        told(10, 100)
        try:
            while self._gate is not None and not self._gate.wait(0.01):
                told(10, 100)
        except FetchEnded:
            self.ended.set()
            raise
        if self.tries <= self._lost:
            raise LinkLost("cut off")
        if self._refused:
            raise ArtifactRefused(self._refused)
        return self.artifact

    def planned(self, accelerator: str = "", check: Check | None = None) -> PlannedArtifact:
        return PlannedArtifact(accelerator, self.artifact.suffix, self.fetch, False, check)


def revision(
    *files: PlannedArtifact, targets: tuple[str, ...] = ("tpu", "cpu"), golden: File | None = None
) -> Revision:
    return Revision(
        Plan("m", "1", (1, 1), "c", "f", files, golden=golden.fetch if golden else None, targets=targets), (1, 1)
    )


async def up(loader: Loader, offered: Revision, states: list[str] | None = None):
    def become(state: str, reason: str) -> None:
        if states is not None:
            states.append(f"{state} {reason}".strip())

    await loader.fetch(offered, become)
    return await loader.load(offered, lambda state, reason: None)


async def soon(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_for, condition, 5, "it")


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(fetches, "FIRST_DELAY", 0.001)


async def test_each_target_takes_the_file_of_its_accelerator_else_the_models_own():
    workers = FakeWorkers(("tpu", "gpu", "cpu"))
    model, tpu, gpu = File("model.onnx"), File("tpu.tflite"), File("gpu.plan")
    offered = revision(model.planned(), tpu.planned("tpu"), gpu.planned("gpu"), targets=("tpu", "gpu", "cpu"))
    version = await up(Loader(workers), offered)
    assert {name: order.sha256 for name, order in workers.orders.items()} == {
        "tpu": "tpu.tflite",
        "gpu": "gpu.plan",
        "cpu": "model.onnx",
    }
    assert [target.name for target in version.targets] == ["tpu", "gpu", "cpu"]
    assert offered.sha256 == "model.onnx"


async def test_a_file_that_no_worker_here_takes_is_not_fetched():
    model, plan, tflite = File("model.onnx"), File("gpu.plan"), File("tpu.tflite")
    offered = revision(model.planned(), plan.planned("gpu"), tflite.planned("cpu"), targets=("gpu", "cpu"))
    with pytest.raises(NoTargetLoads, match=r"gpu: no such worker here; cpu: cpu loads .*, not .tflite"):
        await up(Loader(FakeWorkers()), offered)
    assert (model.tries, plan.tries, tflite.tries) == (0, 0, 0)


async def test_the_first_file_that_is_here_is_loaded_while_others_still_come():
    gate = threading.Event()
    workers, tpu = FakeWorkers(), File("tpu.tflite", gate)
    offered = revision(File("model.onnx").planned(), tpu.planned("tpu"))
    version = await up(Loader(workers), offered)
    first, second = version.targets
    assert (first.name, first.accepts_work, second.accepts_work) == ("tpu", False, True)
    gate.set()
    await soon(lambda: first.accepts_work)
    assert offered.progress is None


async def test_progress_is_that_of_all_files():
    gate = threading.Event()
    files = [File("model.onnx", gate), File("tpu.tflite", gate)]
    offered, loader = revision(files[0].planned(), files[1].planned("tpu")), Loader(FakeWorkers())
    going = asyncio.create_task(up(loader, offered))
    await soon(lambda: offered.progress == (20, 200))
    gate.set()
    await going
    assert offered.progress is None


async def test_a_file_that_can_not_be_had_costs_its_own_targets_only():
    offered = revision(File("model.onnx").planned(), File("tpu.tflite", refused="checksum mismatch").planned("tpu"))
    tpu, cpu = (await up(Loader(FakeWorkers()), offered)).targets
    assert (tpu.failure, tpu.accepts_work, cpu.accepts_work) == ("checksum mismatch", False, True)
    offered = revision(File("model.onnx", refused="checksum mismatch").planned(), File("tpu.tflite").planned("tpu"))
    tpu, cpu = (await up(Loader(FakeWorkers()), offered)).targets
    assert (cpu.failure, tpu.accepts_work, cpu.accepts_work) == ("checksum mismatch", True, False)


async def test_a_version_of_which_no_file_can_be_had_is_refused_at_once():
    file = File("model.onnx", refused="checksum mismatch")
    with pytest.raises(ArtifactRefused, match="checksum mismatch"):
        await up(Loader(FakeWorkers()), revision(file.planned()))
    assert file.tries == 1


async def test_a_file_that_the_link_does_not_bring_is_tried_again_and_says_so(at_once):
    states: list[str] = []
    await up(Loader(FakeWorkers()), revision(File("model.onnx", lost=2).planned()), states)
    assert states == [
        "fetching",
        "fetching attempt 2 in 0 s: cut off",
        "fetching",
        "fetching attempt 3 in 0 s: cut off",
        "fetching",
    ]


async def test_a_second_file_that_the_link_does_not_bring_shows_at_its_target_and_joins_later(at_once):
    states: list[str] = []
    loader, offered = (
        Loader(FakeWorkers()),
        revision(File("model.onnx").planned(), File("t.tflite", lost=3).planned("tpu")),
    )
    tpu, _ = (await up(loader, offered, states)).targets
    await soon(lambda: tpu.accepts_work)
    assert tpu.failure == ""


@given(st.integers(2, 10_000))
def test_delays_grow_and_have_a_bound(attempt):
    assert retry_delay(attempt - 1) <= retry_delay(attempt) <= fetches.LONGEST_DELAY
    assert retry_delay(2) == fetches.FIRST_DELAY


@pytest.mark.parametrize("how", ["cancel", "unload", "close"])
async def test_a_fetch_that_nobody_wants_any_more_ends_its_thread(how):
    file, loader = File("model.onnx", threading.Event()), Loader(FakeWorkers())
    offered = revision(file.planned())
    going = asyncio.create_task(up(loader, offered))
    assert await asyncio.to_thread(file.begun.wait, 5)
    if how == "cancel":
        going.cancel()
    elif how == "unload":
        loader.unload(offered)
    else:
        loader.close()
    await asyncio.wait([going], timeout=5)
    assert going.done()
    assert await asyncio.to_thread(file.ended.wait, 5)
    assert offered.progress is None


async def test_files_that_come_later_end_with_their_version():
    late, workers = File("tpu.tflite", threading.Event()), FakeWorkers()
    loader, offered = Loader(workers), revision(File("model.onnx").planned(), late.planned("tpu"))
    await up(loader, offered)
    loader.unload(offered)
    assert await asyncio.to_thread(late.ended.wait, 5)
    assert workers.unloaded == ["tpu", "cpu"]


async def test_a_newer_revision_of_the_same_files_takes_over_those_that_still_come():
    gate = threading.Event()
    late, loader = File("tpu.tflite", gate), Loader(FakeWorkers())
    offered = revision(File("model.onnx").planned(), late.planned("tpu"))
    offered.version = await up(loader, offered)
    newer = revision(*offered.plan.artifacts)
    newer.adopt(offered)
    gate.set()
    await soon(lambda: newer.targets[0].accepts_work)
    loader.unload(newer)


async def test_an_artifact_that_disagrees_is_barred_there_and_the_others_serve():
    offered = revision(File("model.onnx").planned(), File("t.tflite").planned("tpu"))
    tpu, cpu = (await up(Loader(FakeWorkers(bars=("tpu",))), offered)).targets
    assert (tpu.barred, cpu.barred, cpu.accepts_work) == (True, False, True)
    assert tpu.candidate(4, 5, 0.0).shut == "barred"


async def test_a_version_that_no_target_takes_is_barred_if_one_target_disagreed():
    offered = revision(File("model.onnx").planned(), targets=("cpu",))
    with pytest.raises(Barred, match="cpu: barred: sample 3"):
        await up(Loader(FakeWorkers(bars=("cpu",))), offered)
    with pytest.raises(NoTargetLoads) as refused:
        await up(Loader(FakeWorkers(refuses=("cpu",))), revision(File("model.onnx").planned(), targets=("cpu",)))
    assert not isinstance(refused.value, Barred)


async def test_targets_of_all_files_agree_in_names_and_datatypes():
    other = Signature("tflite", (TensorSpec("x", "UINT8", (1,)),), (X,))
    offered = revision(File("model.onnx").planned(), File("t.tflite").planned("tpu"), targets=("cpu", "tpu"))
    await up(Loader(FakeWorkers(signatures={"tpu": other})), offered)
    await asyncio.sleep(0)
    assert sum("other tensors" in target.failure for target in offered.targets) == 1


async def test_each_file_is_held_to_the_golden_samples_by_its_own_rule():
    workers, samples = FakeWorkers(), File("golden.npz")
    tight = Check(tolerance=Tolerance(rtol=1e-3, atol=1e-5))
    offered = revision(
        File("model.onnx").planned(check=tight), File("t.tflite").planned("tpu", Check(top1=0.9)), golden=samples
    )
    await up(Loader(workers), offered)
    assert workers.orders["cpu"].golden.tolerance == (1e-3, 1e-5)
    assert workers.orders["tpu"].golden.top1 == 0.9
    assert {order.golden.path for order in workers.orders.values()} == {"/store/golden.npz"}


async def test_without_its_golden_samples_no_version_comes_up():
    offered = revision(File("model.onnx").planned(), golden=File("golden.npz", refused="no such file"))
    with pytest.raises(ArtifactRefused, match="golden samples: no such file"):
        await up(Loader(FakeWorkers()), offered)


REORDERED = Signature("other", (X,), (TensorSpec("more", "FP32", (-1,)), *SIGNATURE.outputs))


def abroad(*files: PlannedArtifact, targets: tuple[str, ...] = ("far", "cpu"), named: bool = True) -> Revision:
    """A revision with a remote target, which the manifest names in its targets or not."""
    made = revision(*files, targets=targets)
    made.plan = replace(made.plan, may_leave=named)
    return made


async def test_what_is_here_says_what_the_model_is_and_a_remote_one_has_to_fit():
    gate = threading.Event()
    workers = FakeWorkers(("far", "cpu"), signatures={"far": REORDERED})
    offered = abroad(File("model.onnx", gate).planned())
    loading = asyncio.create_task(up(Loader(workers), offered))
    await asyncio.sleep(0.05)
    gate.set()
    version = await loading
    await asyncio.sleep(0)
    assert version.signature == SIGNATURE
    assert [target.failure for target in offered.targets] == ["", ""]
    assert {target.signature for target in offered.targets} == {SIGNATURE}


async def test_a_remote_model_that_does_not_fit_is_kept_out_and_the_rest_serves():
    other = Signature("other", (TensorSpec(X.name, "INT64", X.shape),), SIGNATURE.outputs)
    offered = abroad(File("model.onnx").planned())
    await up(Loader(FakeWorkers(("far", "cpu"), signatures={"far": other})), offered)
    await asyncio.sleep(0)
    assert [bool(target.failure) for target in offered.targets] == [True, False]
    assert "is INT64" in offered.targets[0].failure


async def test_a_remote_target_alone_needs_no_file():
    workers, file = FakeWorkers(("far",)), File("model.onnx", refused="no such file")
    version = await up(Loader(workers), abroad(file.planned(), targets=("far",)))
    assert version.signature == SIGNATURE
    assert file.tries == 0
    assert workers.orders["far"].path == ""


async def test_where_no_file_can_be_had_the_remote_target_serves():
    offered = abroad(File("model.onnx", refused="no such file").planned())
    version = await up(Loader(FakeWorkers(("far", "cpu"))), offered)
    assert version.signature == SIGNATURE
    assert [target.accepts_work for target in offered.targets] == [True, False]


async def test_a_manifest_that_does_not_name_it_in_targets_never_gets_a_remote_one():
    workers = FakeWorkers(("far", "cpu"))
    offered = abroad(File("model.onnx").planned(), named=False)
    await up(Loader(workers), offered)
    assert set(workers.orders) == {"cpu"}
    assert "only a manifest that names it in targets" in offered.targets[0].failure


class LateWorkers(FakeWorkers):
    """Whose loads end when ``come`` or ``refuse`` says so."""

    def __init__(self, *names: str) -> None:
        super().__init__(names)
        self.targets: dict[str, Target] = {}
        self.outcomes: dict[str, asyncio.Future[Signature]] = {}

    async def target(self, worker, preference, suffix):
        target = self.targets[worker] = await super().target(worker, preference, suffix)
        target.worker.load_limit = 3600.0
        return target

    def load(self, target, order):
        target.order = order
        self.outcomes[target.name] = asyncio.get_running_loop().create_future()
        return self.outcomes[target.name]

    def come(self, name: str) -> None:
        self.targets[name].worker.state, self.targets[name].failure, self.targets[name].handle = "ready", "", 1
        self.outcomes[name].set_result(SIGNATURE)

    def refuse(self, name: str, barred: bool = False) -> None:
        self.targets[name].failure, self.targets[name].barred = "no memory", barred
        self.outcomes[name].set_exception(RuntimeError("refused"))


class Rising:
    """A version whose load is under way, and the states that it has told."""

    def __init__(self, *names: str) -> None:
        self.workers, self.told = LateWorkers(*names), ["loading"]
        self.offered = abroad(File("model.onnx").planned(), targets=names)
        self.loader = Loader(self.workers)
        self.task = asyncio.ensure_future(self._load())

    async def _load(self):
        await self.loader.fetch(self.offered, lambda state, reason: None)
        return await self.loader.load(self.offered, self._become)

    def _become(self, state: str, reason: str) -> None:
        if state != self.told[-1].partition(" ")[0]:
            self.told.append(f"{state} {reason}".strip())

    async def ordered(self) -> Rising:
        await soon(lambda: len(self.workers.outcomes) == len(self.workers.names))
        return self

    async def until(self, *told: str) -> None:
        """Targets have changed; what was told before and since."""
        self.offered.stirred.set()
        await soon(lambda: self.told == ["loading", *told])

    def time_is_over(self) -> None:
        """Loads have taken as long as they may."""
        for target in self.workers.targets.values():
            target.worker.load_limit = 0.0
        self.offered.stirred.set()

    async def unmoved(self) -> bool:
        """Whether nothing is told of a change that had its chance to be seen."""
        told = list(self.told)
        self.offered.stirred.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return told == self.told and not self.task.done()


async def test_a_version_is_warming_once_a_target_is_until_none_of_those_that_may_still_come_is():
    rising = await Rising("gpu", "cpu").ordered()
    gpu, cpu = (rising.workers.targets[name] for name in ("gpu", "cpu"))
    gpu.warming = True
    await rising.until("warming")
    rising.workers.refuse("gpu")
    await rising.until("warming", "loading gpu: no memory")
    cpu.warming = True
    await rising.until("warming", "loading gpu: no memory", "warming gpu: no memory")
    rising.workers.come("cpu")
    assert (await rising.task).targets == (gpu, cpu)
    assert len(rising.told) == 4


async def test_the_end_of_a_warm_up_is_no_step_back():
    rising = await Rising("cpu").ordered()
    rising.workers.targets["cpu"].warming = True
    await rising.until("warming")
    rising.workers.refuse("cpu", barred=True)
    with pytest.raises(Barred):
        await rising.task
    assert rising.told == ["loading", "warming"]


@pytest.mark.parametrize("name", ["cpu", "far"])
async def test_a_version_that_only_waits_for_what_is_out_of_reach_has_failed_after_the_time_of_a_load(name):
    rising = await Rising(name).ordered()
    worker = rising.workers.targets[name].worker
    worker.state, worker.reason = "lost", "nobody answers"
    assert await rising.unmoved()
    rising.time_is_over()
    await rising.until(f"failed {name}: nobody answers")
    worker.state = "ready"
    await rising.until(f"failed {name}: nobody answers", "loading")
    rising.workers.come(name)
    assert (await rising.task).signature == SIGNATURE


async def test_it_has_not_failed_while_some_worker_still_loads_it():
    rising = await Rising("gpu", "cpu").ordered()
    rising.workers.targets["gpu"].worker.state = "lost"
    rising.time_is_over()
    assert await rising.unmoved()
    rising.workers.targets["cpu"].worker.state = "lost"
    await rising.until("failed gpu: lost; cpu: lost")
    rising.workers.come("cpu")
    await rising.task
    assert rising.told[2:] == ["loading"]


async def test_a_remote_model_that_disagrees_bars_its_version_at_once_until_it_agrees():
    rising = await Rising("far").ordered()
    far = rising.workers.targets["far"]
    far.failure, far.barred = "barred: sample 3", True
    await rising.until("barred far: barred: sample 3")
    far.barred = False
    rising.workers.come("far")
    assert (await rising.task).signature == SIGNATURE
    assert rising.told[2:] == ["loading"]


async def test_a_remote_target_serves_where_the_one_here_has_been_lost_for_as_long_as_a_load_may_take():
    rising = await Rising("far", "cpu").ordered()
    rising.workers.come("far")
    assert await rising.unmoved()
    rising.workers.targets["cpu"].worker.state = "lost"
    assert await rising.unmoved()
    rising.time_is_over()
    version = await rising.task
    assert [target.accepts_work for target in version.targets] == [True, False]
    assert rising.offered.abroad
