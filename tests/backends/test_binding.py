"""What a bound model answers, operator by operator: the same as one that is not bound, also when its memory has changed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.show.conformance import cases
from edgeway.tensors import datatype_of, to_bytes
from workers.backend import BackendError, Settings, Tensor
from workers.loaded import NeverCancelled
from workers.registry import find


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
