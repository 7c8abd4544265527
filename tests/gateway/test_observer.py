"""The gateway's observer, with its real process: figures, labels, deaths, and a process that does not keep up."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import numpy as np
import pytest

from benchmarks.harness import alive
from gateway.errors import InvalidRequest, NotFound, Unavailable
from gateway.models.manifest import Check, Tolerance
from gateway.observation import observer as module
from gateway.observation.figures import Accuracy, Agreement, Labelled, SamplePolicy, Seen, Watched
from gateway.observation.observer import Observer

pytestmark = pytest.mark.system
LIMIT = 20.0


def seen(array, name="y", datatype="FP32"):
    array = np.asarray(array, np.float32)
    return Seen(name, datatype, array.shape, array.tobytes())


def scores(count, sharpness=4.0, seed=0):
    logits = np.random.default_rng(seed).normal(0, 1, (count, 6)) * sharpness
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


async def until(condition, what):
    """Bounded wait on what the process tells."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


@pytest.fixture
async def observer(tmp_path):
    observer = Observer(tmp_path)
    observer.start()
    yield observer
    await observer.stop()


@pytest.fixture
def reference(tmp_path):
    np.savez(tmp_path / "reference.npz", y=scores(500))
    return tmp_path / "reference.npz"


async def test_nothing_runs_until_something_is_to_be_looked_at(observer):
    observer.watch("m", "1", Watched())
    assert not observer.wants("m", "1", "")
    observer.answered("m", "1", "", [seen([1, 2])])
    await asyncio.sleep(0)
    assert observer.pid == 0
    assert observer.wants("m", "1", "a")
    observer.answered("m", "1", "a", [seen([1, 2])])
    await asyncio.sleep(0)
    assert observer.pid == 0  # nobody may ever send a label
    assert (await observer.label("m", "a", "1")).right
    assert observer.pid


async def test_the_first_label_finds_the_newest_answers(observer, monkeypatch):
    monkeypatch.setattr(module, "UNASKED", 10_000)
    observer.watch("m", "1", Watched())
    for number in range(100):
        observer.answered("m", "1", f"id{number}", [seen(np.zeros(100))])
    with pytest.raises(NotFound):
        await observer.label("m", "id0", "0")
    assert (await observer.label("m", "id99", "0")).right


async def test_the_process_is_an_ordinary_one_of_low_priority(observer):
    observer.watch("m", "1", Watched())
    observer.answered("m", "1", "a", [seen([1, 2])])
    await observer.label("m", "a", "1")
    assert os.getpriority(os.PRIO_PROCESS, observer.pid) == os.getpriority(os.PRIO_PROCESS, 0) + module.NICE


async def test_a_label_is_matched_and_accuracy_follows(observer):
    told = []
    observer.changed = lambda *news: told.append(news)
    observer.watch("m", "1", Watched())
    for number in range(20):
        observer.answered("m", "1", f"id{number}", [seen([0, 1, 0] if number < 15 else [1, 0, 0])])
    assert await observer.label("m", "id0", "1") == Labelled("1", "1", True)
    for number in range(1, 20):
        await observer.label("m", f"id{number}", "1")
    await until(lambda: observer.figures["m", "1"].accuracy == Accuracy(15, 20), "accuracy")
    assert told[-1] == ("m", "1", observer.figures["m", "1"])
    with pytest.raises(NotFound, match="no answer with the request id 'never' is remembered"):
        await observer.label("m", "never", "1")
    with pytest.raises(InvalidRequest, match="1 to 256 characters, got 300"):
        await observer.label("m", "id0", "x" * 300)


async def test_a_drift_is_an_alarm_with_what_moved(observer, reference):
    observer.watch("m", "1", Watched(reference=reference, drift_window=100, max_drift=0.2))
    assert observer.figures["m", "1"].drift.detail == "no drift score yet: it needs 100 answers"
    for row in scores(100, seed=1):
        observer.answered("m", "1", "", [seen(row)])
    await until(lambda: observer.figures["m", "1"].drift.score is not None, "a score")
    assert not observer.figures["m", "1"].drift.alarm
    for row in scores(100, sharpness=1.0, seed=2):
        observer.answered("m", "1", "", [seen(row)])
    await until(lambda: observer.figures["m", "1"].drift.alarm, "an alarm")
    assert observer.figures["m", "1"].drift.detail.startswith("margin of 100 answers against 500")


async def test_answers_that_are_compared_with_a_shadows_give_its_agreement(observer):
    observer.watch("m", "2", Watched(check=Check(tolerance=Tolerance(atol=0.5))))
    for number in range(10):
        observer.compared("m", "2", [seen([1, 2])], [seen([1, 2.4 if number < 7 else 3])])
    await until(lambda: observer.figures["m", "2"].agreement == Agreement(7, 10), "agreement")


async def test_a_killed_observer_is_replaced_and_the_figures_go_on(observer, reference):
    observer.watch("m", "1", Watched(reference=reference, drift_window=100, max_drift=0.2))
    for row in scores(100, seed=1):
        observer.answered("m", "1", "a", [seen(row)])
        observer.compared("m", "1", [seen([1, 2])], [seen([1, 2])])
    observer.answered("m", "1", "b", [seen([0, 1, 0])])
    await observer.label("m", "b", "1")
    figures = lambda: observer.figures["m", "1"]  # noqa: E731
    await until(lambda: figures().drift.score is not None and figures().agreement.total == 100, "figures")
    score, first = figures().drift.score, observer.pid
    os.kill(first, signal.SIGKILL)
    labelling = asyncio.create_task(observer.label("m", "b", "0"))
    assert (await labelling).right is False
    assert observer.pid not in (0, first)
    observer.compared("m", "1", [seen([1, 2])], [seen([2, 1])])
    await until(lambda: figures().agreement == Agreement(100, 101), "agreement")
    await until(lambda: figures().accuracy == Accuracy(0, 1), "accuracy")
    assert figures().drift.score == score


async def test_labels_outlive_the_gateway(tmp_path):
    for label, right in (("1", 1), ("0", 0)):
        observer = Observer(tmp_path)
        observer.watch("m", "1", Watched())
        observer.start()
        if right:
            observer.answered("m", "1", "a", [seen([0, 1])])
        else:
            await until(lambda o=observer: o.figures["m", "1"].accuracy == Accuracy(1, 1), "accuracy")
        await observer.label("m", "a", label)
        pid = observer.pid
        await observer.stop()
        assert not alive(pid)


async def test_the_labels_of_a_deleted_version_go_with_it(observer):
    observer.watch("m", "1", Watched())
    observer.answered("m", "1", "a", [seen([0, 1])])
    await observer.label("m", "a", "1")
    observer.forget("m", "1")
    assert ("m", "1") not in observer.figures
    with pytest.raises(NotFound):
        await observer.label("m", "a", "1")


async def test_what_a_process_that_hangs_has_no_room_for_is_dropped_and_counted(tmp_path):
    observer = Observer(tmp_path, backlog=1024 * 1024)
    observer.start()
    observer.watch("m", "1", Watched())
    observer.answered("m", "1", "a", [seen([0, 1])])
    await observer.label("m", "a", "1")
    os.kill(observer.pid, signal.SIGSTOP)
    try:
        large = seen(np.zeros(25_000))
        for _ in range(50):
            observer.answered("m", "1", "b", [large])
        assert 20 <= observer.dropped <= 40
    finally:
        os.kill(observer.pid, signal.SIGCONT)
    observer.answered("m", "1", "c", [seen(np.zeros(3_000_000))])
    assert (await observer.label("m", "a", "0")).right is False
    await observer.stop()


async def test_a_process_that_hangs_with_a_label_is_replaced_and_the_caller_told(observer, monkeypatch):
    observer.watch("m", "1", Watched())
    observer.answered("m", "1", "a", [seen([0, 1])])
    await observer.label("m", "a", "1")
    first = observer.pid
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr(module, "LABEL_LIMIT", 0.2)
    with pytest.raises(Unavailable, match=r"did not take the label within 0\.2 s; send it again"):
        await observer.label("m", "a", "0")
    monkeypatch.undo()
    assert (await observer.label("m", "a", "0")).right is False
    assert observer.pid != first


ODD = [
    seen([float("nan")] * 6),
    seen([float("inf"), float("-inf")] * 3),
    seen(np.zeros((0, 6))),
    Seen("y", "FP32", (1 << 40, 1 << 40), b"1234"),
    Seen("y", "FP32", (-1, 6), b"1234"),
    Seen("y", "WORD", (1,), b"1234"),
    Seen("y", "BYTES", (1,), b"\xff\xff\xff\x7fx"),
    Seen("y", "BYTES", (1,), b"\x01\x00\x00\x00\xff"),
    Seen("y", "BF16", (2,), b"\x80\x7f\x80\x7f"),
    Seen("y", "BOOL", (0,), b""),
]


async def test_no_answer_ends_the_process(observer, reference):
    observer.watch("m", "1", Watched(reference=reference, drift_window=50, max_drift=0.2))
    observer.answered("m", "1", "first", [seen([0, 1, 0, 0, 0, 0])])
    await observer.label("m", "first", "1")
    pid = observer.pid
    for number in range(60):
        for odd in ODD:
            observer.answered("m", "1", f"odd{number}", [odd])
            observer.compared("m", "1", [odd], [ODD[number % len(ODD)]])
    assert (await observer.label("m", "first", "1")).right
    await until(lambda: observer.figures["m", "1"].drift.alarm, "an alarm")
    assert observer.pid == pid


@pytest.mark.parametrize(
    ("arrays", "output", "why"),
    [
        ({"y": np.zeros((10, 3))}, None, "no drift score: y: at least 200 samples are needed, there are 10"),
        ({"z": np.zeros((300, 3))}, "y", "no drift score: the reference has z, the answers y"),
        ({"z": np.zeros((300, 3))}, None, "no drift score: the reference has z, the answers y"),
        (None, None, "no drift score: reference.npz is no .npz file of numbers"),
    ],
)
async def test_why_there_is_no_score_is_said(observer, tmp_path, arrays, output, why):
    path = tmp_path / "reference.npz"
    path.write_bytes(b"nothing") if arrays is None else np.savez(path, **arrays)
    observer.watch("m", "1", Watched(reference=path, drift_output=output))
    observer.answered("m", "1", "", [seen([1, 2, 3])])
    await until(lambda: observer.figures["m", "1"].drift.detail.startswith(why), "the reason")


async def test_inputs_are_kept_of_every_so_many_requests(observer, tmp_path):
    folder = tmp_path / "samples" / "m" / "1"
    observer.watch("m", "1", Watched(samples=SamplePolicy(3, 100_000, folder)))
    for number in range(7):
        if observer.sample_due("m", "1"):
            observer.inputs("m", "1", f"id{number}", [seen([number], "x")])
    await until(lambda: len(list(folder.glob("*.npz"))) == 3, "samples")
    found = [np.load(path) for path in sorted(folder.glob("*.npz"))]
    assert [(str(one["edgeway_request_id"]), one["x"].tolist()) for one in found] == [
        ("id0", [0.0]),
        ("id3", [3.0]),
        ("id6", [6.0]),
    ]
    observer.forget("m", "1")
    await until(lambda: not folder.exists(), "the samples' end")
