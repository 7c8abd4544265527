"""What every backend does, on each that is present."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper

from benchmarks.harness import identity, model_of, scaled, slow_for, value
from edgeway.tensors import BY_NAME, encode_bytes, to_array, to_bytes
from workers.backend import BackendUnavailable, InvalidInput, ModelRejected, RunCancelled, RunFailed, Settings, Tensor
from workers.loaded import NeverCancelled
from workers.registry import find, names, probe_all
from workers.schedule import Run

ONNX = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", sorted(names()), indirect=True)


@pytest.fixture
def backend(request):
    kind, probe = probe_all(request.param)[request.param]
    if not probe.available:
        pytest.skip(f"{request.param} ({kind}): {probe.reason}")
    made = find(request.param)(Settings(request.param, 1, 1))
    if ".onnx" not in made.formats:
        pytest.skip(f"{request.param} takes {made.formats}, not .onnx")
    return made


def tensor(array: np.ndarray, datatype: str) -> Tensor:
    return Tensor(datatype, array.shape, to_bytes(array))


def run(model, *inputs: Tensor) -> list[np.ndarray]:
    feed = {spec.name: given for spec, given in zip(model.inputs, inputs, strict=True)}
    outputs = model.run(feed, [spec.name for spec in model.outputs], NeverCancelled())
    return [to_array(o.datatype, o.shape, memoryview(o.data)) for o in outputs]


@pytest.mark.parametrize("datatype", sorted(ONNX))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_every_datatype_comes_back_as_it_went_in(backend, datatype, shape):
    model = backend.load(identity(ONNX[datatype], [f"d{i}" for i in range(len(shape))]).SerializeToString(), "m")
    assert model.inputs[0].datatype == model.outputs[0].datatype == datatype
    assert model.inputs[0].shape == (-1,) * len(shape)
    count = int(np.prod(shape))
    if datatype == "BYTES":
        elements = [f"wörd {i}".encode() for i in range(count)]
        (got,) = run(model, Tensor("BYTES", shape, memoryview(encode_bytes(elements))))
        assert got.reshape(-1).tolist() == elements
    else:
        array = (np.arange(count) % 2).reshape(shape).astype(BY_NAME[datatype].numpy)
        (got,) = run(model, Tensor(datatype, shape, memoryview(to_bytes(array))))
        np.testing.assert_array_equal(got, array)


def test_it_computes_what_the_model_says(backend):
    model = backend.load(scaled(2.5).SerializeToString(), "m")
    (got,) = run(model, tensor(np.array([1, -2], np.float32), "FP32"))
    assert got.tolist() == [2.5, -5.0]


def test_a_bound_model_reads_and_writes_in_place(backend):
    model = backend.load(scaled(2.5).SerializeToString(), "m")
    inputs, outputs = np.array([1, -2], np.float32), np.zeros(2, np.float32)
    bound = model.bind({"x": tensor(inputs, "FP32")}, {"y": tensor(outputs, "FP32")})
    if bound is None:
        pytest.skip("this backend does not bind")
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [2.5, -5.0]
    inputs[:] = [4, 0]
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [10, 0]


def test_a_bound_run_that_was_ended_leaves_the_next_one_whole(backend):
    model = backend.load(slow_for(0.2).SerializeToString(), "m")
    inputs, outputs = np.ones(1, np.float32), np.zeros(1, np.float32)
    bound = model.bind({"x": tensor(inputs, "FP32")}, {"y": tensor(outputs, "FP32")})
    if bound is None:
        pytest.skip("this backend does not bind")
    cancellation = Run(1, 5, 0.0, 0.0)
    cancellation.cancel()
    with pytest.raises(RunCancelled):
        bound.run(cancellation)
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [1.0]


def test_outputs_whose_shape_the_inputs_values_decide_are_never_bound(backend):
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    inputs = [value("x", TensorProto.FLOAT, ["n"])]
    model = backend.load(model_of(nodes, inputs, [value("y", TensorProto.INT64, [1, "k"])]).SerializeToString(), "m")
    found = tensor(np.zeros((1, 2), np.int64), "INT64")
    assert model.bind({"x": tensor(np.ones(2, np.float32), "FP32")}, {"y": found}) is None


@pytest.mark.parametrize("content", [b"", b"not a model", scaled(1.0).SerializeToString()[:-20]])
def test_a_file_that_is_no_model_is_rejected_with_a_reason(backend, content):
    with pytest.raises(ModelRejected) as refused:
        backend.load(content, "m")
    assert str(refused.value)


def test_an_error_of_the_runtime_is_the_runs_not_the_inputs(backend):
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"])]
    inputs = [value("x", TensorProto.FLOAT, [2]), value("i", TensorProto.INT64, [1])]
    model = backend.load(model_of(nodes, inputs, [value("y", TensorProto.FLOAT, [1])]).SerializeToString(), "m")
    with pytest.raises(RunFailed):
        run(model, tensor(np.zeros(2, np.float32), "FP32"), tensor(np.array([99]), "INT64"))


def test_text_that_is_none_is_an_invalid_input(backend):
    model = backend.load(identity(TensorProto.STRING).SerializeToString(), "m")
    with pytest.raises(InvalidInput):
        run(model, Tensor("BYTES", (1,), memoryview(b"\x05\x00\x00\x00ab")))


def test_a_run_that_nobody_waits_for_is_ended(backend):
    if not backend.can_cancel:
        pytest.skip("this backend declares that it can't end a run")
    model = backend.load(slow_for(3.0).SerializeToString(), "m")
    cancellation = Run(1, 5, 0.0, 0.0)
    timer = threading.Timer(0.2, cancellation.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(RunCancelled):
        model.run({"x": tensor(np.ones(1, np.float32), "FP32")}, ["y"], cancellation)
    assert time.monotonic() - began < 2.0


def test_two_threads_may_run_one_model(backend):
    model = backend.load(scaled(2.0).SerializeToString(), "m")
    results: list[float] = []

    def ask(number: int) -> None:
        (got,) = run(model, tensor(np.full(4, number, np.float32), "FP32"))
        results.append(float(got[0]) / number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2.0] * 8


@pytest.mark.parametrize("name", ["cpu", "simulated"])
def test_an_unknown_option_is_refused_by_name(name):
    with pytest.raises(BackendUnavailable, match="speed"):
        find(name)(Settings(name, 1, 1, options={"speed": 9}))


def test_the_simulated_backend_says_so_everywhere():
    kind, probe = probe_all("simulated")["simulated"]
    made = find("simulated")(Settings("tpu", 1, 1))
    assert kind == made.kind == "simulated"
    assert "simulat" in probe.reason + made.device
    assert "simulated" in made.runtime


def test_service_time_is_the_floor_of_the_whole_run():
    made = find("simulated")(Settings("tpu", 1, 1, options={"serviceMs": 300}))
    model = made.load(slow_for(0.2).SerializeToString(), "m")
    began = time.monotonic()
    run(model, tensor(np.ones(1, np.float32), "FP32"))
    assert 0.3 <= time.monotonic() - began < 0.45  # not 0.5: computing counts toward it


def test_a_backend_that_does_not_exist_is_listed_with_the_remedy():
    kind, probe = probe_all("tensorrt")["tensorrt"]
    assert (kind, probe.available) == ("hardware", False)
    assert probe.reason
    assert probe.remedy
