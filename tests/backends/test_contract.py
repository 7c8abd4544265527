"""What every backend does, each in a worker process of its own, under the interpreter that has its runtime.

The backends are those that this checkout knows and those that are installed, or the one that ``benchmarks.contract``
chooses. What a backend can't do, it declares as data, and the test is skipped with the reason.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from benchmarks import contract, runtimes
from benchmarks.contract import FormatModels, NotPossible
from benchmarks.harness import wait_for
from benchmarks.worker import Failed, Gone, NotStarted, Refused, Worker
from edgeway import frames
from edgeway.tensors import BY_NAME, datatype_of
from gateway.dispatch.launch import source_roots
from workers.backend import CODES, BackendUnavailable
from workers.registry import find, names

pytestmark = pytest.mark.system

CHOSEN: dict[str, Any] = json.loads(os.environ.get(contract.CHOSEN, "{}"))
DATATYPES = sorted(BY_NAME)
KINDS = ("hardware", "emulator", "cpu", "simulated")
SHAPES = ((), (0,), (3,), (2, 3))
INSTANCES = 2
BIG = 48
"""Megabytes of weights whose going must show."""
SLOW = 1.5
ENDED_WITHIN = 0.5
"""Share of its time after which a run that nobody waits for has ended."""
DECLARED = """
import json, sys
from dataclasses import asdict
from workers.backend import Settings
from workers.registry import find, probe_all
name, options = sys.argv[1], json.loads(sys.argv[2])
kind, probe = probe_all(name)[name]
declared = {}
if probe.available:
    backend = find(name)(Settings(name, options=options))
    kind = backend.kind
    declared = {
        "formats": list(backend.formats),
        "datatypes": list(getattr(backend, "datatypes", ["FP32"])),
        "open_sizes": getattr(backend, "open_sizes", False),
        "empty_tensors": getattr(backend, "empty_tensors", False),
        "can_cancel": backend.can_cancel,
    }
print(json.dumps({"kind": kind, "probe": asdict(probe), "declared": declared}))
"""


def _names() -> list[str]:
    return [CHOSEN["backend"]] if CHOSEN else sorted(names())


def _kind(name: str) -> str:
    try:
        return str(find(name).kind)
    except BackendUnavailable:  # it is in another environment
        return ""


def pytest_generate_tests(metafunc):
    if "place" in metafunc.fixturenames:
        marked = {name: [pytest.mark.hardware] if _kind(name) == "hardware" else [] for name in _names()}
        places = [pytest.param(name, marks=marks, id=name) for name, marks in marked.items()]
        metafunc.parametrize("place", places, indirect=True, scope="session")


@dataclass
class Place:
    """A backend where it is present: the interpreter that can drive it, what it declares, models in its format."""

    name: str
    kind: str
    python: str
    models: FormatModels
    suffix: str
    datatypes: list[str]
    open_sizes: bool
    empty_tensors: bool
    can_cancel: bool
    formats: list[str]
    _running: list[Worker] = field(default_factory=list)

    def start(self, **settings: Any) -> Worker:
        return Worker(self.name, self.python, **{"options": CHOSEN.get("options"), "instances": INSTANCES, **settings})

    @property
    def worker(self) -> Worker:
        """One for all tests that leave it as they found it."""
        if not self._running:
            self._running.append(self.start())
        return self._running[0]

    def scaled(self, factor: float) -> bytes:
        """The file of a model that is y = factor * x."""
        return self.models.scaled(factor, self.open_sizes)

    def sizes(self, *shape: int) -> list[int]:
        """The same, but for the first one where the backend takes open sizes."""
        return [-1, *shape[1:]] if self.open_sizes and shape else list(shape)

    def held(self, worker: Worker) -> int:
        """Bytes of memory that the worker holds, those of its NVIDIA GPU among them: nobody else is on it."""
        return worker.resident + (_of_the_gpu() if self.kind == "hardware" else 0)

    def end(self) -> None:
        for worker in self._running:
            worker.end()


def _of_the_gpu() -> int:
    """0: there is none that tells, as on a Jetson, whose GPU has no memory of its own."""
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)
    except pynvml.NVMLError:
        return 0


@functools.cache
def _look(name: str, python: str) -> dict[str, Any]:
    """What the backend declares and says of this device under that interpreter."""
    done = subprocess.run(
        [python, "-c", DECLARED, name, json.dumps(CHOSEN.get("options", {}))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(source_roots())},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _interpreters(name: str) -> Iterator[str]:
    if CHOSEN:
        yield CHOSEN["python"]
        return
    yield sys.executable
    try:
        if name in runtimes.RUNTIMES:
            yield str(runtimes.interpreter(name))
    except runtimes.Missing:
        return  # what the tests' own interpreter lacks is the reason that is told


@pytest.fixture(scope="session")
def place(request) -> Iterator[Place]:
    name = request.param
    seen: dict[str, Any] = {}
    for python in _interpreters(name):
        seen = _look(name, python)
        if seen["probe"]["available"]:
            break
    else:
        pytest.skip(f"{name}: {seen['probe']['reason']}")
    declared = seen["declared"]
    if not declared["formats"]:
        pytest.skip(f"{name} loads no files")
    try:
        models = contract.models_for(declared["formats"], CHOSEN.get("models", ""))
    except NotPossible as why:
        pytest.skip(f"{name}: {why}")
    made = Place(name, seen["kind"], python, models, models.suffix, **declared)
    yield made
    made.end()


def possible(ask: Callable[[], Any]) -> Any:
    """What a factory makes; skips where its format can't say that."""
    try:
        return ask()
    except NotPossible as why:
        pytest.skip(str(why))


def full(model: Any, number: float, rows: int = 3) -> np.ndarray:
    """An input of the model, or an output of the same form, with the same number everywhere."""
    return np.full([rows if size < 0 else size for size in model.inputs[0].shape], number, np.float32)


def filled(datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    if datatype == "BYTES":
        elements = np.empty(count, object)
        elements[:] = [f"wörd {number}".encode() for number in range(count)]
        return elements.reshape(shape)
    return (np.arange(count) % 2).reshape(shape).astype(BY_NAME[datatype].numpy)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_that_is_declared_comes_back_as_it_went_in(place, datatype):
    worker, refusals = place.worker, []
    for shape in SHAPES:
        must = datatype in place.datatypes and (place.empty_tensors or 0 not in shape)
        try:
            model = worker.load(place.models.identity(datatype, place.sizes(*shape)), place.suffix)
        except NotPossible as why:
            refusals.append(str(why))
            continue
        except Refused as refused:
            assert refused.reason == "REJECTED"
            assert not must, f"declared, and yet refused: {shape}: {refused}"
            refusals.append(f"not declared, and refused: {refused}")
            continue
        assert model.inputs[0].datatype == model.outputs[0].datatype == datatype
        assert tuple(model.inputs[0].shape) == tuple(place.sizes(*shape))
        given = filled(datatype, shape)
        try:
            (got,) = worker.run(model, given)
        except Failed as failed:
            assert not must, f"declared, and yet it fails: {shape}: {failed}"
            refusals.append(f"not declared, and fails: {failed}")
        else:
            assert got.shape == given.shape
            assert got.tolist() == given.tolist()
        worker.unload(model)
    if len(refusals) == len(SHAPES):
        pytest.skip(f"{place.name}, {datatype}: {refusals[-1]}")


def test_the_sizes_that_a_model_leaves_open_may_differ_from_run_to_run(place):
    if not place.open_sizes:
        pytest.skip(f"{place.name} declares that sizes must be fixed")
    tried = 0
    for sizes in ([-1, 2], [-1, -1], [2, -1, 3]):
        try:
            model = place.worker.load(place.models.identity("FP32", sizes), place.suffix)
        except NotPossible:
            continue
        tried += 1
        for size in (1, 7, 2, *[0] * place.empty_tensors, 300):
            shape = [size if each < 0 else each for each in sizes]
            given = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            (got,) = place.worker.run(model, given)
            np.testing.assert_array_equal(got, given)
        place.worker.unload(model)
    assert tried


def test_it_computes_what_the_model_says(place):
    model = place.worker.load(place.scaled(2.5), place.suffix)
    (got,) = place.worker.run(model, full(model, -2.0))
    np.testing.assert_allclose(got, full(model, -5.0), rtol=2e-3)
    place.worker.unload(model)


@pytest.mark.parametrize("damage", ["empty", "no model", "cut short"])
def test_a_file_that_is_no_model_is_rejected_with_a_reason_and_the_worker_goes_on(place, damage):
    whole = place.scaled(2.0)
    content = {"empty": b"", "no model": b"#!/bin/sh\necho hello\n" * 20, "cut short": whole[: len(whole) // 2]}[damage]
    with pytest.raises(Refused) as refused:
        place.worker.load(content, place.suffix)
    assert refused.value.reason == "REJECTED"
    assert str(refused.value)
    assert "Traceback" not in str(refused.value)
    model = place.worker.load(whole, place.suffix)
    np.testing.assert_allclose(place.worker.run(model, full(model, 1))[0], full(model, 2.0), rtol=2e-3)
    place.worker.unload(model)


def test_an_error_of_the_runtime_costs_one_run(place):
    content, inputs = possible(place.models.raising)
    try:
        model = place.worker.load(content, place.suffix)
    except Refused as refused:
        pytest.skip(f"this backend refuses the model: {refused}")
    for _ in range(2):
        try:
            outputs = place.worker.run(model, *inputs)
        except Failed as failed:
            assert failed.status in (frames.RUNTIME_ERROR, frames.DEVICE_FAULT)
            assert str(failed)
            assert "Traceback" not in str(failed)
        else:
            pytest.skip(f"this runtime does not look at indices: {[each.tolist() for each in outputs]}")
    place.worker.unload(model)
    assert place.worker.process.poll() is None


def test_text_that_is_none_is_an_invalid_input(place):
    if "BYTES" not in place.datatypes:
        pytest.skip(f"{place.name} declares no BYTES")
    model = place.worker.load(possible(lambda: place.models.identity("BYTES", [-1])), place.suffix)
    with pytest.raises(Failed) as failed:
        place.worker.answer(place.worker.begin_raw(model, ((1,), b"\x05\x00\x00\x00ab")))
    assert failed.value.status == frames.INVALID_INPUT
    place.worker.unload(model)


def test_a_model_that_is_unloaded_gives_its_memory_back(place):
    content = possible(lambda: place.models.large(BIG))
    worker = place.start(instances=1)
    try:
        worker.unload(worker.load(content, place.suffix))  # the first one also pays for what the runtime keeps
        before = place.held(worker)
        model = worker.load(content, place.suffix)
        held = place.held(worker) - before
        worker.unload(model)
        assert held > 0.9 * BIG * 1e6  # or there is nothing to give back
        # What the allocator keeps for the next model goes back to the system when there is nothing to do.
        wait_for(lambda: place.held(worker) - before < held / 4, 10, "the memory's return")
        inputs = [np.zeros([max(1, size) for size in s.shape], BY_NAME[s.datatype].numpy) for s in model.inputs]
        with pytest.raises(Failed) as failed:
            worker.run(model, *inputs)
        assert failed.value.status == frames.UNKNOWN_MODEL
    finally:
        worker.end()


def test_models_beside_each_other_do_not_mix(place):
    factors = [1.0, 2.0, 3.0]
    loaded = [place.worker.load(place.scaled(f), place.suffix) for f in factors]
    under_way = [
        (place.worker.begin(model, full(model, number)), full(model, factor * number))
        for number in range(1, 21)
        for model, factor in zip(loaded, factors, strict=True)
    ]
    for number, expected in under_way:
        np.testing.assert_allclose(place.worker.answer(number)[0], expected, rtol=2e-3)
    place.worker.unload(loaded[0])
    last = loaded[2]
    np.testing.assert_allclose(place.worker.run(last, full(last, 1))[0], full(last, 3.0), rtol=2e-3)
    for model in loaded[1:]:
        place.worker.unload(model)


def test_two_threads_may_run_one_model(place):
    model = place.worker.load(place.scaled(2.0), place.suffix, warmup=3)
    assert place.worker.hello.instances == INSTANCES
    given = [full(model, number, rows=16384) for number in range(1, 17)]
    for number, array in [(place.worker.begin(model, array), array) for array in given]:
        np.testing.assert_allclose(place.worker.answer(number)[0], array * 2, rtol=2e-3)
    place.worker.unload(model)


def test_a_worker_that_was_killed_can_be_replaced(place):
    content = place.scaled(2.0)
    answers = []
    for _ in range(2):
        with place.start(instances=1) as worker:
            model = worker.load(content, place.suffix)
            answers.append(worker.run(model, full(model, 1))[0].tolist())
            worker.process.send_signal(signal.SIGKILL)
            with pytest.raises(Gone):
                worker.run(model, full(model, 1))
            assert worker.process.wait(10) == -signal.SIGKILL
    assert answers[0] == answers[1]


def test_a_run_that_nobody_waits_for_is_ended(place):
    if not place.can_cancel:
        pytest.skip(f"{place.name} declares that it can't end a run")
    content = possible(lambda: place.models.slow(SLOW))
    try:
        model = place.worker.load(content, place.suffix, warmup=0)
    except Refused as refused:
        pytest.skip(f"this backend refuses the model: {refused}")
    number = place.worker.begin(model, np.ones(1, np.float32))
    until = time.monotonic() + 10
    while not place.worker.begun(number):
        assert time.monotonic() < until
        time.sleep(0.005)
    began = time.monotonic()
    place.worker.cancel(number)
    with pytest.raises(Failed) as failed:
        place.worker.answer(number)
    assert failed.value.status == frames.CANCELLED
    assert time.monotonic() - began < ENDED_WITHIN * model.warmup_seconds[0]
    place.worker.unload(model)


def test_it_says_what_it_is_and_where_the_graph_was_proved_to_run(place):
    hello = place.worker.hello
    assert (hello.backend, hello.kind) == (place.name, place.kind)
    assert hello.kind in KINDS
    assert hello.runtime
    assert hello.device
    assert list(hello.formats) == place.formats
    assert hello.can_cancel is place.can_cancel
    assert set(place.datatypes) <= set(DATATYPES)
    model = place.worker.load(place.scaled(2.0), place.suffix)
    assert model.platform
    assert model.provenance
    label = f"{hello.runtime} {hello.device} {model.provenance}".lower()
    if hello.kind in ("simulated", "emulator"):
        assert hello.kind[:6] in label
    else:
        assert "simulat" not in label
        assert "emulat" not in label
    place.worker.unload(model)


def test_an_unknown_option_is_refused_by_name(place):
    options = {**CHOSEN.get("options", {}), "sped": 9}
    with pytest.raises(NotStarted, match="sped") as refused:
        Worker(place.name, place.python, options=options)
    assert "Traceback" not in str(refused.value)


@pytest.mark.skipif(bool(CHOSEN), reason="only where no backend is chosen")
@pytest.mark.parametrize("name", sorted(names()))
def test_a_backend_that_is_not_present_says_why_and_what_to_do(name):
    seen = _look(name, sys.executable)
    probe = seen["probe"]
    assert probe["reason"]
    if probe["available"]:
        assert probe["runtime"]
    else:
        assert probe["remedy"]
        assert probe["code"] in (*CODES, "")


def test_the_suite_fills_every_datatype_with_values_of_it():
    for datatype in DATATYPES:
        expected = {"BF16": "UINT16"}.get(datatype, datatype)
        assert datatype_of(filled(datatype, (2, 3))) == expected
