"""Golden samples: what counts as agreeing, which files of samples are refused, what the message says."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import identity, model_of, scaled, value
from edgeway.v1 import worker_pb2
from workers import golden
from workers.backend import DeviceFault, RunFailed, Settings, Tensor, TensorSpec
from workers.backends.cpu import CpuBackend
from workers.golden import Disagrees, Rule, Samples, Unusable, default_rule, read_samples
from workers.loading import LoadError, check

TIGHT = Rule(tolerance=(1e-2, 1e-3))


class Model:
    """Gives for sample i what it was told: x is the number of the sample."""

    platform = "fake"

    def __init__(self, answers: np.ndarray, shape: tuple[int, ...] = (1,), datatype: str = "FP32") -> None:
        self.answers = answers
        self.inputs = [TensorSpec("x", "INT64", shape)]
        self.outputs = [TensorSpec("y", datatype, (-1,) * (answers.ndim - 1))]
        self.seen: list[tuple[int, ...]] = []

    def run(self, inputs, outputs, cancellation):
        self.seen.append(inputs["x"].shape)
        answer = self.answers[int(np.frombuffer(inputs["x"].data, np.int64)[0])]
        if isinstance(answer, np.ndarray) and answer.dtype == object:
            raise answer[0]
        array = np.ascontiguousarray(answer)
        return [Tensor("FP32", array.shape, array.reshape(-1).view(np.uint8).data)]


def samples(answers: np.ndarray, right: np.ndarray, **model) -> Samples:
    return Samples({"x": np.arange(len(right)).reshape(-1, 1), "y": right}, Model(answers, **model))


def outputs(count: int = 4, classes: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, classes)).astype(np.float32)


def packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_a_model_that_answers_right_agrees_and_says_how_far_off_it_was():
    right = outputs()
    found = samples(right + np.float32(5e-4), right).check(TIGHT)
    assert found.deviation == pytest.approx(5e-4, rel=1e-2)
    assert "4 samples" in found.text
    assert "rtol 0.01" in found.text


def test_the_message_names_sample_output_element_and_the_numbers():
    right = outputs()
    right[3, 7] = 0.12
    wrong = right.copy()
    wrong[3, 7] = 0.91
    with pytest.raises(Disagrees, match=r"sample 3: output y\[7\] is 0.91, golden 0.12: off by 0.79, allowed 0.0022"):
        samples(wrong, right).check(TIGHT)


@given(
    st.floats(-1e6, 1e6, width=32),
    st.floats(-1e6, 1e6, width=32),
    st.floats(0, 1),
    st.floats(0, 10),
)
def test_tolerance_is_the_formula_for_every_value(got, right, rtol, atol):
    answers, golden_ = np.array([[got]], np.float32), np.array([[right]], np.float32)
    holds = abs(float(np.float32(got)) - float(np.float32(right))) <= atol + rtol * abs(float(np.float32(right)))
    try:
        samples(answers, golden_).check(Rule(tolerance=(rtol, atol)))
    except Disagrees:
        assert not holds
    else:
        assert holds


@pytest.mark.parametrize(
    ("got", "right"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (np.inf, -np.inf)]
)
def test_what_is_no_number_is_wrong_where_golden_is_one(got, right):
    for rule in (TIGHT, Rule(cosine=0.5)):
        with pytest.raises(Disagrees):
            samples(np.array([[got, 1.0]], np.float32), np.array([[right, 1.0]], np.float32)).check(rule)


def test_not_a_number_and_infinity_are_right_where_golden_is_the_same():
    right = np.array([[np.nan, np.inf, -np.inf, 0.0]], np.float32)
    assert samples(right, right).check(TIGHT).deviation == 0.0


def test_top1_is_the_share_of_samples_with_the_largest_value_in_place():
    right = outputs(100)
    wrong = right.copy()
    for index in (17, 40):
        wrong[index] = -wrong[index]
    assert "0.980" in samples(wrong, right).check(Rule(top1=0.98)).text
    with pytest.raises(Disagrees, match=r"top1 of 100 samples is 0.980, bound 0.99; sample 17: output y is largest at"):
        samples(wrong, right).check(Rule(top1=0.99))


def test_top1_of_a_quantised_tie_counts_as_right():
    right = np.array([[0.1, 0.9, 0.89]], np.float32)
    samples(np.array([[0.0, 0.9, 0.9]], np.float32), right).check(Rule(top1=1.0))


def test_top1_without_classes_is_refused():
    with pytest.raises(Unusable, match="two classes"):
        samples(outputs(4, 1), outputs(4, 1)).check(Rule(top1=0.5))


def test_cosine_holds_for_every_output():
    right = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    turned = np.array([[2.0, 0.0], [1.0, 1.0]], np.float32)
    assert "0.7071" in samples(turned, right).check(Rule(cosine=0.7)).text
    with pytest.raises(Disagrees, match=r"sample 1: output y has a cosine of 0.7071 to golden, allowed 0.99"):
        samples(turned, right).check(Rule(cosine=0.99))


def test_a_run_that_fails_on_a_sample_disagrees_but_one_that_fails_for_the_device_does_not():
    failing = np.empty((1, 1), object)
    failing[0, 0] = RunFailed("no such axis")
    with pytest.raises(Disagrees, match="sample 0: the run failed: no such axis"):
        samples(failing, outputs(1, 1)).check(TIGHT)
    failing[0, 0] = DeviceFault("reset")
    with pytest.raises(DeviceFault):
        samples(failing, outputs(1, 1)).check(TIGHT)


def test_another_shape_disagrees():
    with pytest.raises(Disagrees, match=r"has shape \[9\], golden \[8\]"):
        samples(outputs(4, 9), outputs(4, 8)).check(TIGHT)


@pytest.mark.parametrize(("spec", "expected"), [((1,), (1,)), ((-1,), (1,)), ((-1, 1), (1, 1)), ((1, 1), (1, 1))])
def test_samples_may_have_the_models_batch_axis_or_leave_it_out(spec, expected):
    model = Model(outputs(), shape=spec)
    Samples({"x": np.arange(4).reshape(4, 1), "y": model.answers}, model).check(TIGHT)
    assert model.seen == [expected] * 4


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((2, 1), np.int64)}, "no array for any output"),
        ({"y": np.zeros((2, 8), np.float32)}, "no array for x"),
        ({"x": np.zeros((2, 1), np.int64), "y": np.zeros((3, 8), np.float32)}, "same first axis"),
        ({"x": np.zeros((0, 1), np.int64), "y": np.zeros((0, 8), np.float32)}, "same first axis"),
        ({"x": np.int64(1), "y": np.zeros((2, 8), np.float32)}, "same first axis"),
        ({"x": np.zeros((2, 1), np.int64), "y": np.zeros((2, 8)), "z": np.zeros((2, 8))}, "no tensor z, it has x, y"),
        ({"x": np.zeros((2, 3, 3), np.int64), "y": np.zeros((2, 8))}, "expected samples of shape"),
        ({"x": np.zeros((2, 1), np.float32), "y": np.zeros((2, 8))}, "expected INT64, got FP32"),
    ],
)
def test_samples_that_are_not_the_models_are_refused(arrays, says):
    with pytest.raises(Unusable, match=says):
        Samples(arrays, Model(outputs()))


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * (golden.MAX_BYTES + 1))
    return file.getvalue()


def lying_header() -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 45,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 64)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        packed(x=np.zeros(3))[:60],
        packed(x=np.array([print, {}], object)),
        lying_header(),
        np.zeros(3).tobytes(),
    ],
    ids=["empty", "no-zip", "cut", "pickled", "lying-header", "raw"],
)
def test_files_that_are_no_plain_arrays_are_refused(content):
    with pytest.raises(Unusable, match="golden samples"):
        read_samples(content)


def test_a_file_that_unpacks_beyond_the_limit_is_refused_before_it_is_unpacked():
    with pytest.raises(Unusable, match=f"{golden.MAX_BYTES + 1} bytes unpacked"):
        read_samples(bomb())


def test_time_is_left_to_others_after_each_run():
    ways: list[float] = []
    right = outputs()
    samples(right, right).check(TIGHT, ways.append)
    assert len(ways) == 4


def quantised() -> bytes:
    weights = [numpy_helper.from_array(np.float32(0.05), "scale"), numpy_helper.from_array(np.uint8(128), "zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    tensors = [value("x", TensorProto.FLOAT, [8])], [value("y", TensorProto.FLOAT, [8])]
    return model_of(nodes, *tensors, weights).SerializeToString()


def test_the_default_rule_is_tolerance_for_floats_and_class_and_direction_for_quantised_files():
    backend = CpuBackend(Settings())
    floats, steps = scaled(2.0).SerializeToString(), quantised()
    assert default_rule(floats, backend.load(floats, "m")) == TIGHT
    assert default_rule(steps, backend.load(steps, "m")) == Rule(top1=0.98, cosine=0.99)
    whole = identity(TensorProto.INT8).SerializeToString()
    assert default_rule(whole, backend.load(whole, "m")).cosine == 0.99


@pytest.mark.parametrize("datatype", [TensorProto.BFLOAT16, TensorProto.STRING, TensorProto.FLOAT16, TensorProto.BOOL])
def test_every_datatype_can_have_golden_samples(datatype):
    model = CpuBackend(Settings()).load(identity(datatype).SerializeToString(), "m")
    x = {
        TensorProto.BFLOAT16: np.array([[1.5, -2.0]], np.float32),
        TensorProto.STRING: np.array([["edge", "way"]]),
        TensorProto.FLOAT16: np.array([[1.5, -2.0]], np.float16),
        TensorProto.BOOL: np.array([[True, False]]),
    }[datatype]
    Samples({"x": x, "y": x}, model).check(TIGHT)
    other = x[:, ::-1]
    with pytest.raises(Disagrees, match=r"sample 0: output y"):
        Samples({"x": x, "y": other}, model).check(TIGHT)


def test_the_load_order_says_where_the_samples_are_and_what_their_checksum_is(tmp_path):
    path = tmp_path / "golden.npz"
    x = outputs(2, 3)
    path.write_bytes(packed(x=x, y=2 * x))
    model = CpuBackend(Settings()).load(scaled(2.0).SerializeToString(), "m")
    order = worker_pb2.Load(golden=worker_pb2.Golden(path=str(path)))
    assert check(order, model, TIGHT, lambda seconds: None).deviation == 0.0
    order.golden.sha256 = "0" * 64
    with pytest.raises(LoadError, match="checksum mismatch") as refused:
        check(order, model, TIGHT, lambda seconds: None)
    assert refused.value.reason == worker_pb2.LoadFailed.CHECKSUM
