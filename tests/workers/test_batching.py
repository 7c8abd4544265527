"""Which runs go together and for how long they wait: properties of the decision, and its effect in a real worker."""

from __future__ import annotations

import math
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import model_of, scaled, value
from edgeway import frames
from edgeway.frames import Infer, TensorPlace
from edgeway.tensors import BY_NAME, encode_bytes
from edgeway.v1 import worker_pb2
from tests.workers.test_service import FAR, MODEL, Worker, wait_begun, worker  # noqa: F401
from workers.backend import Tensor
from workers.batching import NOBODY, Gathering, Limits, Member, ripe_at, seconds_for, together
from workers.joining import Shared, join, split
from workers.schedule import Company, Run, Schedule

times = st.floats(0, 100)
limits = st.builds(Limits, st.integers(1, 16), st.floats(0, 1))
members = st.lists(
    st.tuples(st.integers(1, 9), times, st.integers(1, 5), st.integers(1, 1000), st.one_of(times, st.just(math.inf))),
    min_size=1,
    max_size=20,
).map(
    lambda rows: [
        Member(number, (priority, end), count, nbytes, received, received + end)
        for number, (priority, received, count, nbytes, end) in enumerate(rows)
    ]
)


def linear(per_byte: float, any_run: float):
    return lambda nbytes: any_run + per_byte * nbytes


estimates = st.builds(linear, st.floats(0, 0.01), st.floats(0, 1))


@given(members, times, limits, estimates)
def test_a_batch_is_never_larger_than_allowed_and_has_the_first_in_order(waiting, now, allowed, estimate):
    taken = together(waiting, now, allowed, estimate)
    assert taken[0] == min(waiting, key=lambda member: (member.order, member.number))
    assert len(taken) == 1 or sum(member.rows for member in taken) <= allowed.size
    assert len({member.number for member in taken}) == len(taken)
    assert set(taken) <= set(waiting)
    assert taken == sorted(taken, key=lambda member: (member.order, member.number))


@given(members, times, limits, estimates)
def test_whoever_comes_later_in_order_costs_nobody_the_budget(waiting, now, allowed, estimate):
    """Each member that is in time together with those before it stays so with those behind it."""
    taken = together(waiting, now, allowed, estimate)
    finish = now + seconds_for(sum(member.input_bytes for member in taken), estimate)
    for position, member in enumerate(taken):
        without = now + seconds_for(sum(each.input_bytes for each in taken[: position + 1]), estimate)
        if without <= member.end:
            assert finish <= member.end


@given(members, times, limits, estimates)
def test_who_is_left_behind_has_no_room_or_would_cost_a_budget(waiting, now, allowed, estimate):
    taken = together(waiting, now, allowed, estimate)
    rows, size = sum(m.rows for m in taken), sum(m.input_bytes for m in taken)
    for left in set(waiting) - set(taken):
        longer = now + seconds_for(size + left.input_bytes, estimate)
        assert rows + left.rows > allowed.size or any(longer > member.end for member in taken)


@given(members, limits, estimates)
def test_nobody_waits_longer_than_the_delay_or_than_the_tightest_budget_affords(waiting, allowed, estimate):
    gathered = NOBODY
    for member in waiting:
        gathered = gathered.joined_by(member)
    at = ripe_at(gathered, allowed, estimate)
    run = seconds_for(sum(member.input_bytes for member in waiting), estimate)
    for member in waiting:
        assert at <= member.received + allowed.delay
        assert at <= max(member.end - run, member.received) + 1e-9  # no time to lose: it goes at once
    if sum(member.rows for member in waiting) >= allowed.size:
        assert at == -math.inf


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.floats(0, 0.5)),
    ),
    max_size=60,
)


@given(steps, limits, estimates)
def test_what_gathers_comes_out_once_and_no_later_than_it_is_due(given_steps, allowed, estimate):
    gathering, now, number, inside, out = Gathering(), 0.0, 0, {}, set()
    for kind, *what in given_steps:
        if kind == "add":
            group, rows = what
            gathering.add(group, Member(number, (5, now), rows, 8 * rows, now, now + 1.0), allowed, estimate)
            inside[number] = now
            number += 1
        elif kind == "remove":
            assert gathering.remove(what[0]) == (what[0] in inside)
            inside.pop(what[0], None)
        else:
            now = max(now, min(now + what[0], gathering.next_at()))  # a taker wakes when it is told to
        for due in gathering.due(now):
            assert now <= inside.pop(due) + allowed.delay + 1e-9
            assert due not in out
            out.add(due)
        assert len(gathering) == len(inside)
        assert gathering.next_at() > now
    gathering.due(math.inf)
    assert gathering.next_at() == math.inf


def company(number: int, group: str = "g", rows: int = 1, size: int = 4, delay: float = 0.0, received: float = 0.0):
    member = Member(number, (5, 0.0), rows, 8, received, math.inf)
    return Company(group, member, Limits(size, delay), lambda nbytes: 0.0)


def batched(number: int, **given: object) -> Run:
    run = Run(number, 5, 0.0, 0.0)
    run.company = company(number, **given)
    return run


def test_the_queue_hands_out_batches_of_one_group_and_single_runs_between():
    schedule = Schedule(2.0, lambda: 1.0)
    for number in range(6):
        schedule.put(batched(number, group="ab"[number % 2], size=2), short=True)
    schedule.put(Run(9, 1, 0.0, 0.0), short=True)
    taken = [[run.number for run in schedule.take(False)] for _ in range(5)]
    assert taken == [[9], [0, 2], [1, 3], [4], [5]]
    assert len(schedule) == 0


schedule_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ab-"), st.integers(1, 3), st.integers(1, 9)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.floats(0, 0.5)),
        st.tuples(st.just("take")),
    ),
    max_size=60,
)


@given(schedule_steps, limits)
def test_every_run_is_handed_out_once_with_its_like_and_the_best_goes_first(given_steps, allowed):
    """Of an instance that is always free when time passes."""
    now = [0.0]
    schedule = Schedule(1e9, lambda: now[0])
    inside: dict[int, Run] = {}
    number = 0

    def take() -> None:
        due = [r for r in inside.values() if r.company is None]
        if not due and schedule._gathering.next_at() > now[0] and not len(schedule._waiting):
            return
        runs = schedule.take(False)
        groups = {run.company.group if run.company else None for run in runs}
        assert len(groups) == 1
        assert len(runs) == 1 or sum(run.company.member.rows for run in runs) <= allowed.size
        alone = [run for run in due if run.key < runs[0].key]
        assert not alone  # nobody who waits for no company is passed over
        for run in runs:
            assert inside.pop(run.number) is run

    for kind, *what in given_steps:
        if kind == "put":
            group, rows, priority = what
            run = Run(number, priority, 0.0, now[0])
            if group != "-":
                member = Member(number, (priority, 0.0), rows, 8, now[0], math.inf)
                run.company = Company(group, member, allowed, lambda nbytes: 0.0)
            schedule.put(run, short=True)
            inside[number] = run
            number += 1
        elif kind == "remove":
            assert schedule.remove(what[0]) is inside.pop(what[0], None)
        elif kind == "pass":
            now[0] += what[0]
        else:
            take()
        assert len(schedule) == len(inside)
    now[0] = 1e6
    while inside:
        take()
    assert not len(schedule)
    assert not schedule._groups


def test_a_run_that_waits_for_others_can_be_taken_out_and_leaves_nothing_behind():
    schedule = Schedule(2.0, lambda: 0.0)
    for number in range(3):
        schedule.put(batched(number, delay=9.0), short=True)
    assert schedule.remove(1).number == 1
    assert schedule.remove(1) is None
    schedule.put(batched(3, delay=9.0), short=True)
    schedule.put(batched(4, delay=9.0), short=True)  # four: they go
    assert [run.number for run in schedule.take(False)] == [0, 2, 3, 4]
    assert not schedule._groups
    assert not schedule._gathered


def test_whoever_waits_for_others_is_not_forgotten_when_the_instance_that_kept_the_time_gets_other_work():
    schedule = Schedule(2.0)
    got: list[list[int]] = []
    busy = threading.Event()

    def instance() -> None:
        while True:
            runs = [run.number for run in schedule.take(False)]
            got.append(runs)
            if runs == [1]:
                busy.wait(10)
                return
            if runs == [0]:
                return

    threads = [threading.Thread(target=instance, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    now = time.monotonic()
    schedule.put(batched(0, delay=0.2, received=now), short=True)
    schedule.put(Run(1, 5, 0.0, now), short=True)
    deadline = time.monotonic() + 10
    while [0] not in got:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    busy.set()
    assert [1] in got


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.sampled_from(["FP32", "INT64", "BOOL", "BYTES"]))
def test_what_is_joined_and_split_again_is_what_it_was(rows, datatype):
    parts = []
    for number, count in enumerate(rows):
        if datatype == "BYTES":
            data = encode_bytes([f"{number}.{i}" * i for i in range(2 * count)])
        else:
            data = (np.arange(2 * count) + number).astype(BY_NAME[datatype].numpy).tobytes()
        parts.append({"x": Tensor(datatype, (count, 2), memoryview(data))})
    joined = join(parts)["x"]
    assert joined.shape == (sum(rows), 2)
    assert bytes(joined.data) == b"".join(bytes(part["x"].data) for part in parts)
    if datatype != "BYTES" and sum(rows):
        shares = split([joined], rows)
        assert [[bytes(t.data) for t in share] for share in shares] == [[bytes(p["x"].data)] for p in parts]
        assert [share[0].shape for share in shares] == [(count, 2) for count in rows]
        assert split([Tensor(datatype, (sum(rows) + 1, 2), joined.data)], rows) is None


def test_a_batch_is_ended_when_nobody_waits_for_any_of_it():
    ended: list[bool] = []
    runs = [Run(number, 5, 0.0, 0.0) for number in range(3)]
    Shared(runs).on_cancel(lambda: ended.append(True))
    for run in runs[:2]:
        run.cancel()
    assert not ended
    runs[2].cancel()
    assert ended


# -- a real worker ---------------------------------------------------------------------------------------------------


def dense() -> object:
    """y = x W, tanh of it, and z = index of the row's table: rows of 16, and an index that may be out of bounds."""
    generator = np.random.default_rng(7)
    weight = numpy_helper.from_array(generator.standard_normal((16, 8)).astype(np.float32), "w")
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32), "table")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
        helper.make_node("Gather", ["table", "i"], ["z"]),
    ]
    inputs = [value("x", TensorProto.FLOAT, ["batch", 16]), value("i", TensorProto.INT64, ["batch"])]
    outputs = [value("y", TensorProto.FLOAT, ["batch", 8]), value("z", TensorProto.FLOAT, ["batch"])]
    return model_of(nodes, inputs, outputs, [weight, table])


class Batching:
    """A worker with the model ``dense`` and our side of its batches."""

    def __init__(self, made: Worker) -> None:
        self.made = made

    def infer(self, number: int, x: np.ndarray, index: list[int], budget: float = FAR):
        data, indices = x.astype(np.float32).tobytes(), np.array(index, np.int64).tobytes()
        second = frames.aligned(len(data))
        offset = second + frames.aligned(len(indices))
        slot = self.made.pool.take(offset + 4096)
        slot.clear_mark()
        slot.view[: len(data)] = data
        slot.view[second : second + len(indices)] = indices
        places = [
            TensorPlace(0, BY_NAME["FP32"].code, x.shape, 0, len(data)),
            TensorPlace(1, BY_NAME["INT64"].code, (len(index),), second, len(indices)),
        ]
        now = time.monotonic()
        infer = Infer(number, MODEL, slot.number, offset, now + FAR, 5, places, [], now + budget)
        self.made.socket.send(frames.pack_infer(infer))
        return slot

    def replies(self, count: int):
        found = [self.made.reply() for _ in range(count)]
        return {reply.request_id: reply for reply in found}


def values(slot, reply) -> tuple[np.ndarray, list[float]]:
    y, z = (
        np.frombuffer(slot.view[p.offset : p.offset + p.nbytes], np.float32).reshape(p.shape) for p in reply.outputs
    )
    return y, z.tolist()


def expected(x: np.ndarray) -> np.ndarray:
    weight = np.random.default_rng(7).standard_normal((16, 8)).astype(np.float32)
    return np.tanh(x.astype(np.float32) @ weight)


@pytest.fixture
def batching(worker):  # noqa: F811
    def start(size: int, delay: float, backend: str = "cpu", **options: object) -> Batching:
        return Batching(worker(options, backend=backend, model=dense(), batching=(size, delay)))

    return start


@pytest.mark.system
def test_requests_together_get_what_each_would_get_alone(batching):
    made = batching(8, 5.0)
    given_rows = [1, 2, 1, 3, 1]  # eight
    inputs = [np.random.default_rng(number).standard_normal((rows, 16)) for number, rows in enumerate(given_rows)]
    slots = [made.infer(number, x, [number] * len(x)) for number, x in enumerate(inputs)]
    replies = made.replies(5)
    for number, (x, slot) in enumerate(zip(inputs, slots, strict=True)):
        reply = replies[number]
        assert (reply.status, reply.shared) == (frames.OK, 5), reply.message
        y, z = values(slot, reply)
        np.testing.assert_allclose(y, expected(x), rtol=1e-4, atol=1e-5)
        assert z == [float(number)] * len(x)
    assert len({(reply.started, reply.finished) for reply in replies.values()}) <= 5
    assert len({reply.finished for reply in replies.values()}) == 1


@pytest.mark.system
def test_one_bad_request_fails_alone(batching):
    made = batching(4, 5.0)
    inputs = [np.full((1, 16), number / 10) for number in range(4)]
    slots = [made.infer(number, x, [99 if number == 2 else number]) for number, x in enumerate(inputs)]
    replies = made.replies(4)
    assert {number: reply.status == frames.OK for number, reply in replies.items()} == {0: 1, 1: 1, 2: 0, 3: 1}
    assert replies[2].status == frames.RUNTIME_ERROR
    assert "bounds" in replies[2].message
    for number in (0, 1, 3):
        np.testing.assert_allclose(values(slots[number], replies[number])[0], expected(inputs[number]), rtol=1e-4)
        assert replies[number].shared == 1


@pytest.mark.system
def test_one_that_is_cancelled_drops_out_and_the_others_are_answered(batching):
    made = batching(3, 5.0, backend="simulated", serviceMs=300)
    slots = [made.infer(number, np.ones((1, 16)), [1]) for number in range(3)]
    for slot in slots:
        wait_begun(slot)
    made.made.socket.send(frames.pack_cancel(1))
    replies = made.replies(3)
    assert [replies[number].status for number in range(3)] == [frames.OK, frames.CANCELLED, frames.OK]
    for number in range(3, 6):
        made.infer(number, np.ones((1, 16)), [1])
    wait_begun(slots[0])
    for number in range(3, 6):
        made.made.socket.send(frames.pack_cancel(number))
    began = time.monotonic()
    assert {reply.status for reply in made.replies(3).values()} == {frames.CANCELLED}
    assert time.monotonic() - began < 5


@pytest.mark.system
def test_one_that_waits_for_others_can_be_cancelled_and_expired(batching):
    made = batching(8, FAR)
    for number in range(3):
        made.infer(number, np.ones((1, 16)), [1])
    made.made.socket.send(frames.pack_cancel(0))
    made.made.socket.send(frames.pack_expire(2))
    replies = made.replies(2)
    assert (replies[0].status, replies[2].status) == (frames.CANCELLED, frames.EXPIRED)
    assert replies[0].started == replies[2].started == 0.0


@pytest.mark.system
def test_the_tightest_budget_ends_the_waiting_for_all(batching):
    made = batching(8, FAR)
    made.infer(0, np.ones((1, 16)), [1])
    made.infer(1, np.ones((1, 16)), [1], budget=0.6)
    replies = made.replies(2)
    assert [replies[number].shared for number in range(2)] == [2, 2]
    waited = replies[0].started - replies[0].received
    assert 0.05 < waited < 5.0


@pytest.mark.system
def test_other_models_shapes_do_not_go_together_and_nobody_waits_for_a_full_batch_longer_than_allowed(batching):
    made = batching(8, 0.05)
    made.infer(0, np.ones((1, 16)), [1])
    made.infer(1, np.ones((9, 16)), [1] * 9)  # larger than a batch
    replies = made.replies(2)
    assert [replies[number].status for number in range(2)] == [frames.OK, frames.OK]
    assert replies[0].shared == replies[1].shared == 1


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            model_of(
                [helper.make_node("Identity", ["x"], ["y"])],
                [value("x", TensorProto.FLOAT, [1, 4])],
                [value("y", TensorProto.FLOAT, [1, 4])],
            ),
            "input x has the fixed size 1",
        ),
        (
            model_of(
                [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
                [value("x", TensorProto.FLOAT, ["n", 4])],
                [value("y", TensorProto.FLOAT, [])],
            ),
            "output y has no axis",
        ),
        (
            model_of(
                [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
                [value("x", TensorProto.FLOAT, ["n", 4])],
                [value("y", TensorProto.FLOAT, ["n", 4])],
            ),
            "depends on the other rows",
        ),
        (
            model_of(
                [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])],
                [value("x", TensorProto.FLOAT, ["n", "m"])],
                [value("y", TensorProto.FLOAT, ["m", "n"])],
            ),
            "no row for each row",
        ),
    ],
)
@pytest.mark.system
def test_a_model_whose_requests_can_not_go_together_is_refused_with_the_reason(folder, model, told):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Worker.start(ours, theirs, {}, "cpu")
    try:
        Worker.load(folder, ours, model, batching=(8, 0.0))
        while True:
            message = worker_pb2.ToGateway.FromString(frames.unpack_control(ours.recv(frames.MAX_FRAME)))
            if message.WhichOneof("message") == "load_failed":
                break
            assert message.WhichOneof("message") != "loaded"
        assert message.load_failed.reason == worker_pb2.LoadFailed.REJECTED
        assert message.load_failed.message.startswith("batching: ")
        assert told in message.load_failed.message
    finally:
        made.kill()
        made.wait()
        ours.close()


def test_scaling_is_a_model_that_can(folder: Path):
    del folder
    from workers.backend import Settings
    from workers.joining import obstacle
    from workers.registry import find

    assert obstacle(find("cpu")(Settings()).load(scaled(2.0).SerializeToString(), "m")) == ""
