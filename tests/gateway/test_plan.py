"""Plans: what a request's form means for a version."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeway import frames
from edgeway.frames import Infer, TensorPlace
from edgeway.tensors import BY_NAME
from gateway.plan import UNKNOWN_OUTPUT_BYTES, plan_of
from gateway.request import InputTensor, Request, Signature, TensorSpec
from gateway.target import Version

NAMES = ("a", "b", "c", "d")
sizes = st.lists(st.integers(0, 300), min_size=1, max_size=4)


def version(inputs: int, outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", (4,)),)) -> Version:
    specs = tuple(TensorSpec(name, "UINT8", (-1,)) for name in NAMES[:inputs])
    return Version("1", Signature("onnx", specs, outputs), ())


def request(given_sizes: list[int], order: list[int], outputs: tuple[str, ...] = ()) -> Request:
    tensors = [
        InputTensor(NAMES[which], "UINT8", (given_sizes[which],), memoryview(bytes(given_sizes[which])))
        for which in order
    ]
    return Request("m", "", "", tensors, outputs, 0.0, sum(given_sizes))


@given(sizes, st.randoms())
def test_inputs_lie_apart_and_aligned_in_whatever_order_they_come(given_sizes, random):
    order = list(range(len(given_sizes)))
    random.shuffle(order)
    plan = plan_of(request(given_sizes, order), version(len(given_sizes)))
    end = 0
    for which, (start, stop) in zip(order, plan.spans, strict=True):
        assert start >= end
        assert start % frames.ALIGNMENT == 0
        assert stop - start == given_sizes[which]
        end = stop
    assert plan.out_offset >= end
    assert plan.out_offset % frames.ALIGNMENT == 0
    assert plan.nbytes == sum(given_sizes)


@given(sizes, st.randoms(), st.booleans())
def test_the_frame_of_a_plan_is_what_the_worker_reads(given_sizes, random, wanted):
    order = list(range(len(given_sizes)))
    random.shuffle(order)
    plan = plan_of(request(given_sizes, order, ("y",) if wanted else ()), version(len(given_sizes)))
    frame = frames.pack_run(9, 3, 2, plan.out_offset, 1.5, 5, plan.counts, plan.tensors)
    code = BY_NAME["UINT8"].code
    places = [
        TensorPlace(which, code, (given_sizes[which],), start, stop - start)
        for which, (start, stop) in zip(order, plan.spans, strict=True)
    ]
    assert frames.unpack_infer(frame) == Infer(9, 3, 2, plan.out_offset, 1.5, 5, places, (0,) if wanted else ())


def test_room_for_outputs_is_exact_where_their_shapes_are_and_a_guess_beyond_the_known_ones_elsewhere():
    fixed, unknown = TensorSpec("fixed", "FP32", (100,)), TensorSpec("open", "FP32", (-1,))
    two = version(1, (fixed, unknown))
    both, one = plan_of(request([4], [0]), two), plan_of(request([4], [0], ("fixed",)), two)
    assert (one.room, one.exact) == (frames.aligned(400), True)
    assert (both.room, both.exact) == (frames.aligned(400) + UNKNOWN_OUTPUT_BYTES, False)


def test_a_version_keeps_plans_by_form_and_not_too_many():
    served = version(1)
    for number in range(1000):
        asked = request([number % 7], [0])
        asked.form = object()
        assert served.plan(asked) is served.plans[asked.form]
    assert len(served.plans) < 500
    asked.form = None
    served.plan(asked)
    assert None not in served.plans
