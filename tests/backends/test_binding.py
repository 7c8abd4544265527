"""What a bound model answers, operator by operator: the same as one that is not bound, also when its memory has changed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from benchmarks.harness import model_of, scaled, slow_for, value
from benchmarks.show.conformance import cases
from edgeway.tensors import datatype_of, to_bytes
from workers.backend import BackendError, RunCancelled, Settings, Tensor
from workers.loaded import NeverCancelled
from workers.registry import find
from workers.schedule import Run


@pytest.mark.system
def test_the_node_tests_that_can_be_bound_answer_as_those_that_are_not():
    backend = find("cpu")(Settings())
    bound_cases, differing = 0, []
    for number, case in enumerate(cases()):
        if isinstance(case, str) or number % 3:
            continue
        try:
            model = backend.load(case.model.SerializeToString(), case.name)
            # As they lie in a slot: memory that is reused, bytes of any kind before it.
            memory = [np.frombuffer(bytearray(to_bytes(array)), np.uint8) for array in case.inputs]
            inputs = {
                spec.name: Tensor(datatype_of(array), array.shape, data.data)
                for spec, array, data in zip(model.inputs, case.inputs, memory, strict=False)
            }
            names = [spec.name for spec in model.outputs]
            answers = [model.run(inputs, names, NeverCancelled()) for _ in range(4)]
        except (BackendError, ValueError):
            continue  # not for onnxruntime, or not for numpy
        plain = answers[0]
        if any([t.data for t in answer] != [t.data for t in plain] for answer in answers):
            continue  # it draws lots
        room = {
            name: Tensor(t.datatype, t.shape, memoryview(bytearray(b"\xa5" * t.data.nbytes)))
            for name, t in zip(names, plain, strict=True)
        }
        bound = model.bind(inputs, room)
        if bound is None:
            continue
        bound_cases += 1
        for _ in range(2):
            if not bound.run(NeverCancelled()) or any(
                room[n].data != t.data for n, t in zip(names, plain, strict=True)
            ):
                differing.append(case.name)
                break
    assert not differing
    assert bound_cases > 300


def tensor(array: np.ndarray, datatype: str) -> Tensor:
    return Tensor(datatype, array.shape, to_bytes(array))


def test_a_bound_model_reads_and_writes_in_place():
    model = find("cpu")(Settings()).load(scaled(2.5).SerializeToString(), "m")
    inputs, outputs = np.array([1, -2], np.float32), np.zeros(2, np.float32)
    bound = model.bind({"x": tensor(inputs, "FP32")}, {"y": tensor(outputs, "FP32")})
    assert bound is not None
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [2.5, -5.0]
    inputs[:] = [4, 0]
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [10, 0]


def test_a_bound_run_that_was_ended_leaves_the_next_one_whole():
    model = find("cpu")(Settings()).load(slow_for(0.2).SerializeToString(), "m")
    inputs, outputs = np.ones(1, np.float32), np.zeros(1, np.float32)
    bound = model.bind({"x": tensor(inputs, "FP32")}, {"y": tensor(outputs, "FP32")})
    assert bound is not None
    cancellation = Run(1, 5, 0.0, 0.0)
    cancellation.cancel()
    with pytest.raises(RunCancelled):
        bound.run(cancellation)
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [1.0]


def test_outputs_whose_shape_the_inputs_values_decide_are_never_bound():
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    inputs = [value("x", TensorProto.FLOAT, ["n"])]
    model = find("cpu")(Settings()).load(
        model_of(nodes, inputs, [value("y", TensorProto.INT64, [1, "k"])]).SerializeToString(), "m"
    )
    found = tensor(np.zeros((1, 2), np.int64), "INT64")
    assert model.bind({"x": tensor(np.ones(2, np.float32), "FP32")}, {"y": found}) is None
