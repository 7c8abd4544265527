"""The contract: stubs are fresh, live beside others, and frames and tensors keep what they carry."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeway import frames
from edgeway.frames import FrameError, Infer, Reply, TensorPlace
from edgeway.tensors import BY_NAME, DATATYPES, datatype_of, decode_bytes, encode_bytes, to_array, to_bytes


def test_the_stubs_are_fresh():
    done = subprocess.run([sys.executable, "protos/generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "order",
    [
        "edgeway.client, tritonclient.grpc",
        "tritonclient.grpc, edgeway.client",
        "edgeway.client, kserve",
        "kserve, edgeway.client",
        "gateway.front.inference, tritonclient.grpc, edgeway.client",
    ],
)
def test_our_messages_live_beside_those_of_other_clients_in_either_order(order):
    done = subprocess.run([sys.executable, "-c", f"import {order}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_client_needs_no_part_of_the_gateway():
    code = (
        "import sys, edgeway.client; "
        "print([m for m in sys.modules if m.split('.')[0] in ('gateway', 'workers', 'onnxruntime', 'opentelemetry', 'click')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


u16, u32, u64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
times = st.floats(0, 1e12)
places = st.lists(
    st.builds(TensorPlace, u16, st.integers(0, 255), st.lists(u64, max_size=4).map(tuple), u64, u64), max_size=4
)


@given(st.builds(Infer, u64, u32, u32, u64, times, st.integers(0, 9), places, st.lists(u16, max_size=4)))
def test_a_run_comes_out_of_its_frame_as_it_went_in(infer):
    read = frames.unpack_infer(frames.pack_infer(infer))
    assert (read.request_id, read.model, read.slot, read.out_offset) == (
        infer.request_id,
        infer.model,
        infer.slot,
        infer.out_offset,
    )
    assert (read.deadline, read.priority) == (infer.deadline, infer.priority)
    assert (list(read.inputs), list(read.outputs)) == (list(infer.inputs), list(infer.outputs))


@given(st.builds(Reply, u64, st.integers(0, 8), times, times, times, u64, places, st.text(max_size=50)))
def test_a_reply_comes_out_of_its_frame_as_it_went_in(reply):
    read = frames.unpack_reply(frames.pack_reply(reply))
    assert (read.request_id, read.status, read.needed) == (reply.request_id, reply.status, reply.needed)
    assert (list(read.outputs), read.message) == (list(reply.outputs), reply.message)


infers = st.builds(Infer, u64, u32, u32, u64, times, st.integers(0, 9), places, st.lists(u16, max_size=4), times)


@given(infers, infers)
def test_runs_have_one_form_when_they_differ_in_number_priority_and_time_alone(one, other):
    head = frames.unpack_run(frames.pack_infer(one))
    assert head[:3] == (one.request_id, one.priority, one.deadline)
    assert head.budget_end == one.budget_end
    like = other._replace(model=one.model, slot=one.slot, out_offset=one.out_offset, inputs=one.inputs)
    like = like._replace(outputs=one.outputs)
    assert frames.unpack_run(frames.pack_infer(like)).form == head.form
    own = {"request_id": 0, "priority": 0, "deadline": 0.0, "budget_end": 0.0}
    same = one._replace(**own) == other._replace(**own)
    assert (frames.unpack_run(frames.pack_infer(other)).form == head.form) == same


@given(u64, times, times, times, places)
def test_the_quick_reply_is_the_reply(number, received, started, finished, where):
    quick = frames.pack_done(number, received, started, finished, 0, len(where), frames.pack_places(where))
    assert quick == frames.pack_reply(Reply(number, frames.OK, received, started, finished, 0, where, ""))


@given(st.lists(st.builds(Reply, u64, st.integers(0, 8), times, times, times, u64, places, st.text(max_size=50))))
def test_a_reader_that_remembers_reads_replies_as_one_that_does_not(replies):
    reader = frames.Replies()
    for reply in [*replies, *replies]:
        frame = frames.pack_reply(reply)
        assert repr(reader.read(frame)) == repr(frames.unpack_reply(frame))


def test_outputs_in_the_same_places_are_the_same_object_when_a_run_ended_well():
    place = TensorPlace(0, 11, (4,), 0, 16)
    reader = frames.Replies()
    first, second, failed = (
        reader.read(frames.pack_reply(Reply(number, status, 1.0, 2.0, 3.0, 0, (place,), "")))
        for number, status in ((1, frames.OK), (2, frames.OK), (3, frames.RUNTIME_ERROR))
    )
    assert first.outputs is second.outputs
    assert first.outputs == failed.outputs == (place,)


@given(st.binary(max_size=200))
def test_noise_is_no_reply(noise):
    with contextlib.suppress(FrameError):
        frames.Replies().read(bytes((frames.REPLY,)) + noise)


@given(st.binary(max_size=200))
def test_noise_is_no_frame_and_never_crashes(noise):
    for unpack in (
        frames.unpack_infer,
        frames.unpack_run,
        frames.unpack_slot,
        frames.unpack_cancel,
        frames.unpack_fetch,
        frames.unpack_drop_slot,
    ):
        try:
            unpack(noise)
        except FrameError as refused:
            assert str(refused)


def test_every_datatype_of_the_protocol_is_in_the_table_once():
    assert len({datatype.code for datatype in DATATYPES}) == len(BY_NAME) == len(DATATYPES) == 14


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"BYTES", "BF16"}))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_an_array_survives_its_bytes(name, shape):
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(BY_NAME[name].numpy)
    assert datatype_of(array) == name
    back = to_array(name, shape, memoryview(bytes(to_bytes(array))))
    np.testing.assert_array_equal(back, array)


def test_a_big_endian_or_strided_array_is_sent_little_endian_and_packed():
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    assert bytes(to_bytes(array)) == array.astype("<i4").tobytes()


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_elements_survive_their_bytes(elements):
    assert decode_bytes(memoryview(encode_bytes(elements)), len(elements)) == elements


@given(st.binary(max_size=64), st.integers(0, 8))
def test_bytes_that_do_not_add_up_are_refused(data, expected):
    try:
        assert encode_bytes(decode_bytes(memoryview(data), expected)) == data
    except ValueError as refused:
        assert str(refused)


def test_a_dtype_without_a_place_in_the_protocol_is_refused_by_name():
    with pytest.raises(ValueError, match="complex128"):
        datatype_of(np.zeros(1, complex))
