"""The proof that a graph runs on a device: what a session says is believed, what it lists is not."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from benchmarks.harness import scaled
from workers.backend import BackendUnavailable, ModelRejected, NotOnDevice
from workers.onnx_runtime import OnnxModel, OnnxRuntime
from workers.placement import OnDevice, Placement, distance, hold_to, load_on, read_min_share

NPU, CPU = "NpuExecutionProvider", "CPUExecutionProvider"


class Session:
    """Says what ONNX Runtime's would."""

    def __init__(self, nodes: Mapping[str, Mapping[str, int]], listed: tuple[str, ...] = (NPU, CPU)) -> None:
        self._nodes = nodes
        self._listed = listed

    def get_providers(self) -> list[str]:
        return list(self._listed)

    def get_inputs(self) -> list[object]:
        return [object()]

    get_outputs = get_inputs

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda operators=operators: [
                    SimpleNamespace(op_type=operator) for operator, count in operators.items() for _ in range(count)
                ],
            )
            for provider, operators in self._nodes.items()
        ]


def test_a_graph_that_is_on_the_device_alone_says_how_many_nodes():
    assert OnDevice([NPU])(Session({NPU: {"Conv": 38}})) == f"38 of 38 nodes on {NPU}"


def test_the_outer_quantization_may_be_on_the_cpu_and_is_told():
    session = Session({NPU: {"Conv": 42}, CPU: {"QuantizeLinear": 1, "DequantizeLinear": 1}})
    told = OnDevice([NPU])(session)
    assert told == f"42 of 44 nodes on {NPU}, 2 on the CPU (QuantizeLinear, DequantizeLinear)"


def test_more_quantization_than_inputs_and_outputs_is_inside_the_graph_and_refused():
    session = Session({NPU: {"Conv": 97}, CPU: {"QuantizeLinear": 2, "DequantizeLinear": 1}})
    with pytest.raises(NotOnDevice, match=r"only 97 of 100 nodes .* QuantizeLinear \(2\), DequantizeLinear"):
        OnDevice([NPU])(session)


def test_any_other_operator_on_the_cpu_is_refused_by_name_however_few_they_are():
    with pytest.raises(NotOnDevice, match=r"only 999 of 1000 nodes on NpuExecutionProvider; .* CPU: Unsqueeze"):
        OnDevice([NPU])(Session({NPU: {"Conv": 999}, CPU: {"Unsqueeze": 1}}))


def test_a_provider_that_is_listed_first_and_has_no_node_is_refused():
    with pytest.raises(NotOnDevice, match=rf"only 0 of 5 nodes on {NPU}; .* Conv \(3\), Relu \(2\)"):
        OnDevice([NPU])(Session({CPU: {"Conv": 3, "Relu": 2}}))


def test_a_provider_that_was_left_out_is_refused():
    with pytest.raises(NotOnDevice, match=f"left {NPU} out"):
        OnDevice([NPU])(Session({CPU: {"Conv": 3}}, (CPU,)))


def test_a_session_that_records_nothing_proves_nothing():
    with pytest.raises(NotOnDevice, match="no node"):
        OnDevice([NPU])(Session({}))


def test_the_share_that_is_asked_for_counts():
    session = Session({NPU: {"Conv": 8}, CPU: {"QuantizeLinear": 1, "DequantizeLinear": 1}})
    with pytest.raises(NotOnDevice, match=r"only 8 of 10 nodes .* asks 90 %"):
        OnDevice([NPU])(session)
    assert OnDevice([NPU], 0.8)(session).startswith("8 of 10 nodes")


def test_a_second_provider_of_the_same_device_counts_as_the_device():
    told = OnDevice([NPU, "GpuExecutionProvider"])(Session({NPU: {"Conv": 3}, "GpuExecutionProvider": {"Loop": 1}}))
    assert told == f"4 of 4 nodes on {NPU} and GpuExecutionProvider"


def test_a_provider_that_onnxruntime_lists_first_and_gives_nothing_to_is_refused_with_the_operators():
    idle = "AzureExecutionProvider"
    if idle not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {idle}")
    runtime = OnnxRuntime()
    with pytest.raises(NotOnDevice, match=f"only 0 of 1 nodes on {idle}; it would run on the CPU: Mul"):
        load_on(OnDevice([idle]), runtime, scaled(2.0).SerializeToString(), lambda: runtime.options(1), [idle])


def test_onnxruntime_tells_which_provider_has_which_operators():
    options = OnDevice([CPU]).prepare(onnxruntime.SessionOptions(), fallback=True)
    session = onnxruntime.InferenceSession(scaled(2.0).SerializeToString(), options, providers=[CPU])
    placement = Placement.of(session)
    if placement is None:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not tell")
    assert placement.nodes == {CPU: {"Mul": 1}}


@pytest.mark.parametrize("value", [True, "0.5", None, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(value):
    with pytest.raises(BackendUnavailable, match=r"options\.minShare"):
        read_min_share(value)


def test_a_device_that_computes_something_else_than_the_cpu_is_refused_by_output():
    runtime = OnnxRuntime()

    def made(factor: float) -> OnnxModel:
        return runtime.model(scaled(factor).SerializeToString(), options=runtime.options(1), providers=[CPU])

    hold_to(made(2.0), made(2.01))
    with pytest.raises(ModelRejected, match="output y of a first run on random values is 50% off"):
        hold_to(made(2.0), made(4.0))


@pytest.mark.parametrize(
    ("got", "expected", "apart"),
    [
        ([1, 2], [1, 2], 0.0),
        ([3, 5], [3, 4], 0.2),
        ([1, 2, 3], [1, 2], np.inf),
        ([np.nan, 2], [1, 2], np.inf),
        ([1, 2], [np.nan, 2], 0.0),
        ([], [], 0.0),
        ([0], [0], 0.0),
    ],
)
def test_how_far_apart_two_answers_are(got, expected, apart):
    assert distance(np.float32(got), np.float32(expected)) == pytest.approx(apart)
