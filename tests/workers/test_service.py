"""A worker process, spoken to in frames: what it answers, in which order, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import model_of, scaled, slow_for, value
from edgeway import frames
from edgeway.frames import Infer, Reply, TensorPlace
from edgeway.tensors import BY_NAME
from edgeway.v1 import worker_pb2
from gateway.dispatch.memory import Slot, SlotPool

pytestmark = pytest.mark.system
MODEL = 3
FAR = 60.0


class Worker:
    """The gateway's end, without a loop."""

    def __init__(
        self,
        folder: Path,
        options: dict,
        backend: str = "simulated",
        model: onnx.ModelProto | None = None,
        datatype: str = "FP32",
        batching: tuple[int, float] | None = None,
        **settings: object,
    ) -> None:
        """``datatype``: of the input."""
        self.datatype = BY_NAME[datatype].code
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self.process = self.start(ours, theirs, options, backend, **settings)
        self.pool = SlotPool(
            lambda slot, fd: socket.send_fds(ours, [frames.pack_slot(slot.number, slot.size)], [fd]), lambda slot: None
        )
        self.load(folder, ours, model or scaled(2.0), batching)
        while self._control().WhichOneof("message") != "loaded":
            pass

    @staticmethod
    def start(
        ours: socket.socket, theirs: socket.socket, options: dict, backend: str, **settings: object
    ) -> subprocess.Popen[bytes]:
        ours.settimeout(10)
        raw = {"instances": 1, "options": options, "parentPid": os.getpid(), **settings}
        settings_flag = f"--settings={json.dumps(raw)}"
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", f"--backend={backend}", f"--link-fd={theirs.fileno()}", settings_flag],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        return process

    @staticmethod
    def load(
        folder: Path, ours: socket.socket, model: onnx.ModelProto, batching: tuple[int, float] | None = None
    ) -> None:
        """``batching``: rows and seconds."""
        content = model.SerializeToString()
        (folder / "model.onnx").write_bytes(content)
        load = worker_pb2.Load(
            model=MODEL,
            name="m",
            path=str(folder / "model.onnx"),
            sha256=hashlib.sha256(content).hexdigest(),
            warmup_runs=1,
        )
        if batching is not None:
            load.batching.max_size, load.batching.max_delay_seconds = batching
        ours.send(frames.pack_control(worker_pb2.ToWorker(load=load).SerializeToString()))

    def _control(self) -> worker_pb2.ToGateway:
        frame = self.socket.recv(frames.MAX_FRAME)
        assert frames.kind(frame) == frames.CONTROL
        return worker_pb2.ToGateway.FromString(frames.unpack_control(frame))

    def infer(
        self,
        number: int,
        priority: int = 5,
        values: int = 1,
        room: int = 64,
        gap: int = 0,
        rank: int = 1,
        data: bytes | None = None,
    ) -> Slot:
        """``gap``: bytes between the input and the room for the output; ``rank``: of the cube that the values make."""
        shape = (round(values ** (1 / rank)),) * rank
        data = data or np.ones(shape, np.float32).tobytes()
        offset = frames.aligned(len(data)) + gap
        slot = self.pool.take(offset + room)
        slot.clear_mark()
        slot.view[: len(data)] = data
        place = TensorPlace(0, self.datatype, shape, 0, len(data))
        infer = Infer(number, MODEL, slot.number, offset, time.monotonic() + FAR, priority, [place], [])
        self.socket.send(frames.pack_infer(infer))
        return slot

    def reply(self) -> Reply:
        """The next one."""
        while True:
            frame = self.socket.recv(frames.MAX_FRAME)
            if frames.kind(frame) == frames.REPLY:
                return frames.unpack_reply(frame)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


@pytest.fixture
def worker(folder) -> Iterator:
    started: list[Worker] = []

    def start(options: dict, **settings: Any) -> Worker:
        started.append(Worker(folder, options, **settings))
        return started[-1]

    yield start
    for each in started:
        each.end()


def wait_begun(slot: Slot) -> None:
    until = time.monotonic() + 10
    while not slot.begun:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("instances", [1, 2])
def test_the_link_is_read_while_the_thread_that_read_a_frame_runs_it(worker, instances):
    """30 ms: too long for the reader to be away, short enough for it to run; each time the other of the two readers."""
    made = worker({"serviceMs": 30}, instances=instances)
    for number in range(10, 60, 10):
        running = [made.infer(number + each) for each in range(instances)]
        for slot in running:
            wait_begun(slot)
        made.infer(number + 5)
        made.socket.send(frames.pack_expire(number + 5))
        replies = [made.reply() for _ in range(instances + 1)]
        assert (replies[0].request_id, replies[0].status) == (number + 5, frames.EXPIRED)
        assert {reply.request_id for reply in replies[1:]} == {number + each for each in range(instances)}
        assert {reply.status for reply in replies[1:]} == {frames.OK}


@pytest.mark.parametrize("instances", [1, 2])
def test_there_are_never_more_runs_than_instances_whoever_takes_them(worker, instances):
    made = worker({"serviceMs": 10}, instances=instances)
    for number in range(1, 13):
        made.infer(number)
    replies = [made.reply() for _ in range(12)]
    assert sorted(reply.request_id for reply in replies) == list(range(1, 13))
    at_once = [sum(other.started <= each.started < other.finished for other in replies) for each in replies]
    assert max(at_once) == instances


def test_a_waiting_run_expires_while_another_runs_and_that_one_goes_on(worker):
    made = worker({"serviceMs": 400})
    wait_begun(made.infer(1))
    waiting = made.infer(2)
    for number in (1, 2, 99):  # nobody knows the last one: it was answered
        made.socket.send(frames.pack_expire(number))
    expired = made.reply()
    at = time.monotonic()
    assert (expired.request_id, expired.status, expired.started) == (2, frames.EXPIRED, 0.0)
    ran = made.reply()
    assert (ran.request_id, ran.status) == (1, frames.OK)
    assert at < ran.finished
    assert not waiting.begun


def test_a_cancelled_run_says_how_long_it_ran_and_one_that_waited_that_it_never_began(worker):
    made = worker({"serviceMs": 800})
    wait_begun(made.infer(1))
    made.infer(2)
    made.socket.send(frames.pack_cancel(2))
    made.socket.send(frames.pack_cancel(1))
    waited, ran = made.reply(), made.reply()
    assert (waited.request_id, waited.status, waited.started) == (2, frames.CANCELLED, 0.0)
    assert (ran.request_id, ran.status) == (1, frames.CANCELLED)
    assert 0 < ran.finished - ran.started < 0.8


def test_outputs_that_were_kept_are_dropped_by_a_cancellation_that_says_how_long_the_run_was(worker):
    made = worker({"serviceMs": 20})
    made.infer(1, values=65536, room=0)
    needs = made.reply()
    assert (needs.status, needs.needed) == (frames.NEEDS_SLOT, 4 * 65536)
    made.socket.send(frames.pack_cancel(1))
    dropped = made.reply()
    assert (dropped.status, dropped.started, dropped.finished) == (frames.CANCELLED, needs.started, needs.finished)


@pytest.mark.parametrize(("starvation", "order"), [(FAR, [1, 2, 3, 6, 9]), (0.05, [9, 3, 6, 1, 2])])
def test_the_queue_goes_by_priority_until_runs_starve(worker, starvation, order):
    made = worker({"serviceMs": 150}, starvationSeconds=starvation)
    wait_begun(made.infer(1000))
    for priority in (9, 3, 6, 1, 2):
        made.infer(priority, priority)
    assert [made.reply().request_id for _ in range(6)] == [1000, *order]


def test_a_dead_workers_slots_tell_the_run_that_had_begun_from_those_that_waited(worker):
    made = worker({"serviceMs": 800})
    begun, waiting = made.infer(1), made.infer(2)
    wait_begun(begun)
    made.process.kill()
    made.process.wait()
    assert (begun.begun, waiting.begun) == (True, False)


def test_outputs_fill_a_slot_up_to_the_mark_and_not_beyond(worker):
    made = worker({})
    values = 128 * 1024 // 4
    full = made.infer(1, values=values, room=128 * 1024)
    assert full.usable == 256 * 1024
    reply = made.reply()
    assert reply.status == frames.OK
    assert reply.outputs[0].offset + reply.outputs[0].nbytes == full.usable
    assert full.begun
    made.infer(2, values=values, room=128 * 1024 - frames.MARK_BYTES, gap=frames.MARK_BYTES)
    assert made.reply().status == frames.NEEDS_SLOT


def test_run_after_run_that_cannot_be_stopped_holds_up_nobody(worker):
    """More of them in turn than there may be stand-ins at a time: each leaves when its run is over.

    The product of two large matrices is one kernel, which onnxruntime can't end; that of single values takes no time.
    """
    square = ["n", "n"]
    model = model_of(
        [helper.make_node("MatMul", ["x", "x"], ["y"])],
        [value("x", TensorProto.FLOAT, square)],
        [value("y", TensorProto.FLOAT, square)],
    )
    made = worker({}, backend="cpu", model=model)
    large = 2500 * 2500
    for number in range(1, 12, 2):
        wait_begun(made.infer(number, values=large, room=4 * large, rank=2))
        made.socket.send(frames.pack_cancel(number))
        made.infer(number + 1, rank=2)
        other, stopped = made.reply(), made.reply()
        assert (other.request_id, other.status) == (number + 1, frames.OK)
        assert (stopped.request_id, stopped.status) == (number, frames.CANCELLED)


def outputs(made: Worker, slot: Slot, dtype: type = np.float32) -> list[float]:
    """Values of the one output of the next reply; the slot is free then."""
    reply = made.reply()
    assert reply.status == frames.OK, reply.message
    (place,) = reply.outputs
    values = np.frombuffer(slot.view[place.offset : place.offset + place.nbytes], dtype).tolist()
    made.pool.give(slot, 0.0)
    return values


def test_run_after_run_in_one_slot_answers_for_what_lies_there_now(worker):
    made = worker({}, backend="cpu")
    for number in range(1, 9):
        slot = made.infer(number, values=2, data=np.array([number, -number], np.float32).tobytes())
        assert outputs(made, slot) == [2.0 * number, -2.0 * number]
    for number in range(10, 18):  # another shape in the same slot, in turn
        values = 1 + number % 3
        slot = made.infer(number, values=values, data=np.full(values, number, np.float32).tobytes())
        assert outputs(made, slot) == [2.0 * number] * values


def test_answers_of_another_size_than_the_ones_before_come_whole(worker):
    """How many there are is decided by the values: nothing of the runs before may be relied upon."""
    found = model_of(
        [helper.make_node("NonZero", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.INT64, [1, "n"])],  # the model says that it were always as many as there are inputs
    )
    made = worker({}, backend="cpu", model=found)
    for number in range(1, 6):
        slot = made.infer(number, values=4, data=np.ones(4, np.float32).tobytes())
        assert outputs(made, slot, np.int64) == [0, 1, 2, 3]
    slot = made.infer(7, values=4, data=np.array([0, 1, 0, 1], np.float32).tobytes())
    assert outputs(made, slot, np.int64) == [1, 3]


def test_a_tensor_that_its_shape_contradicts_costs_one_run_and_not_the_worker(worker):
    made = worker({}, backend="cpu")
    made.infer(1, values=3, data=b"1234")
    wrong = made.reply()
    assert (wrong.request_id, wrong.status) == (1, frames.RUNTIME_ERROR)
    assert "shape" in wrong.message
    assert outputs(made, made.infer(2)) == [2.0]


def test_an_error_of_the_runtime_comes_as_often_as_it_happens_and_ends_with_it(worker):
    picked = model_of(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [value("x", TensorProto.INT32, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("table", TensorProto.FLOAT, [2], [5.0, 6.0])],
    )
    made = worker({}, backend="cpu", model=picked, datatype="INT32")
    for number, index in enumerate((1, 0, 1, 9, 9, 1, 0, 9, 1), start=1):
        slot = made.infer(number, data=np.array([index], np.int32).tobytes())
        if index == 9:
            failed = made.reply()
            assert (failed.status, "bounds" in failed.message) == (frames.RUNTIME_ERROR, True), failed.message
            made.pool.give(slot, 0.0)
        else:
            assert outputs(made, slot) == [5.0 + index]


def test_a_model_that_is_unloaded_is_unknown_and_its_memory_is_given_back(worker):
    weight = np.ones(64 << 20, np.float32)
    large = model_of(
        [helper.make_node("Gather", ["table", "i"], ["one"]), helper.make_node("Mul", ["x", "one"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(weight, "table"), helper.make_tensor("i", TensorProto.INT64, [], [1])],
    )
    made = worker({}, backend="cpu", model=large)
    for number in range(1, 5):
        assert outputs(made, made.infer(number)) == [1.0]
    before = resident_mb(made.process.pid)
    made.socket.send(
        frames.pack_control(worker_pb2.ToWorker(unload=worker_pb2.Unload(model=MODEL)).SerializeToString())
    )
    while made._control().WhichOneof("message") != "unloaded":
        pass
    assert before - resident_mb(made.process.pid) > 200
    made.infer(9)
    assert made.reply().status == frames.UNKNOWN_MODEL


def test_a_slot_that_is_dropped_is_unmapped_however_often_it_was_used(worker):
    made = worker({}, backend="cpu")
    for number in range(1, 6):
        slot = made.infer(number)
        assert outputs(made, slot) == [2.0]
    assert "memfd" in Path(f"/proc/{made.process.pid}/maps").read_text()
    made.socket.send(frames.pack_drop_slot(slot.number))
    beat = worker_pb2.ToWorker(heartbeat=worker_pb2.Heartbeat(sequence=1))
    made.socket.send(frames.pack_control(beat.SerializeToString()))
    while made._control().WhichOneof("message") != "heartbeat":
        pass
    assert "memfd" not in Path(f"/proc/{made.process.pid}/maps").read_text()


def test_a_run_that_was_ended_spoils_none_that_comes_into_its_slot_after_it(worker):
    made = worker({}, backend="cpu", model=slow_for(0.25))
    for number in range(1, 4):
        assert outputs(made, made.infer(number)) == [1.0]
    slot = made.infer(4)
    wait_begun(slot)
    made.socket.send(frames.pack_cancel(4))
    ended = made.reply()
    assert (ended.request_id, ended.status) == (4, frames.CANCELLED)
    made.pool.give(slot, 0.0)
    for number in range(5, 8):
        assert outputs(made, made.infer(number)) == [1.0]


def resident_mb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
