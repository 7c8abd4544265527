"""TensorRT's backend over fakes of TensorRT and CUDA, and over the real ONNX Runtime, which has no GPU here.

What needs a GPU is in ``test_tensorrt_hardware.py``.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import identity, model_of, scaled, value
from edgeway.tensors import BY_NAME, to_array, to_bytes
from tests.workers.fake_tensorrt import CudaError, FakeCuda, FakeTensorrt, plan, tensor
from workers.backend import (
    MISSING_DEVICE,
    MISSING_LIBRARY,
    WRONG_DRIVER,
    BackendUnavailable,
    DeviceFault,
    ModelRejected,
    ModelTooLarge,
    NotOnDevice,
    RunFailed,
    Settings,
    Tensor,
)
from workers.backends import tensorrt as under_test
from workers.backends.tensorrt import TensorrtBackend
from workers.loaded import NeverCancelled
from workers.nvidia import Gpu, Sight
from workers.onnx_runtime import CPU, OnnxRuntime
from workers.tensorrt import through_onnx
from workers.tensorrt.through_onnx import CUDA, PROVIDER

ORIN = Sight([Gpu("Orin", "8.7", 8 << 30)], "540.4.0", (13, 0))
X, Y = tensor("x"), tensor("y", mode="OUTPUT")


@pytest.fixture
def cuda(monkeypatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", made)
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=made))
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=sys.modules["cuda.bindings"]))
    monkeypatch.setattr(under_test, "look", lambda roots: ORIN)
    return made


@pytest.fixture
def trt(cuda, monkeypatch) -> FakeTensorrt:
    made = FakeTensorrt(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    return made


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings("trt", 1, 1, cache=str(tmp_path / "cache"))


def backend(settings: Settings | None = None, **options) -> TensorrtBackend:
    return TensorrtBackend(replace(settings or Settings("trt", 1, 1), options=options))


def given(array: np.ndarray, datatype: str = "FP32") -> Tensor:
    return Tensor(datatype, array.shape, memoryview(to_bytes(array)))


def run(model, *arrays: Tensor) -> list[np.ndarray]:
    feed = {spec.name: array for spec, array in zip(model.inputs, arrays, strict=True)}
    outputs = model.run(feed, [spec.name for spec in model.outputs], NeverCancelled())
    return [to_array(o.datatype, o.shape, memoryview(o.data)) for o in outputs]


# -- engines, by TensorRT itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("FLOAT", "FP32"),
        ("HALF", "FP16"),
        ("BF16", "BF16"),
        ("INT8", "INT8"),
        ("UINT8", "UINT8"),
        ("INT32", "INT32"),
        ("INT64", "INT64"),
        ("BOOL", "BOOL"),
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_an_engine_of_any_type_and_shape_is_served(trt, theirs, ours, shape):
    content = plan(tensor("x", theirs, shape), tensor("y", theirs, shape, "OUTPUT"), factor=1)
    model = backend().load(content, "m 1")
    assert (model.inputs[0].datatype, model.inputs[0].shape) == (ours, shape)
    array = (np.arange(int(np.prod(shape))) % 2).reshape(shape).astype(BY_NAME[ours].numpy)
    (got,) = run(model, given(array, ours))
    np.testing.assert_array_equal(got, array)
    assert model.platform == "tensorrt_plan"
    assert model.provenance == "all 3 layers in one engine of TensorRT 10.3.0"


def test_only_the_outputs_that_are_wanted_are_copied_back(trt, cuda):
    model = backend().load(plan(X, Y, tensor("z", mode="OUTPUT")), "m 1")
    cuda.copies.clear()
    feed = {"x": given(np.float32([1, 2]))}
    (z,) = model.run(feed, ["z"], NeverCancelled())
    assert to_array(z.datatype, z.shape, z.data).tolist() == [2, 4]
    assert cuda.copies == [("to device", 8), ("to host", 8)]


def test_an_answer_is_not_changed_by_the_next_run(trt):
    model = backend().load(plan(X, Y), "m 1")
    (first,) = run(model, given(np.float32([1, 2])))
    run(model, given(np.float32([5, 6])))
    assert first.tolist() == [2, 4]


def test_buffers_are_kept_from_run_to_run_and_all_given_back_at_the_end(trt, cuda):
    open_x, open_y = tensor("x", shape=[-1], profile=[[1], [2], [4000]]), tensor("y", shape=[-1], mode="OUTPUT")
    model = backend().load(plan(open_x, open_y), "m 1")
    before = set(cuda.device)
    run(model, given(np.ones(3, np.float32)))
    assert set(cuda.device) == before
    run(model, given(np.ones(4000, np.float32)))
    assert len(cuda.device) == len(cuda.host) == 2
    model.close()
    assert (cuda.device, cuda.host, cuda.streams) == ({}, {}, set())


def test_a_shape_beyond_the_profile_fails_before_the_engine_sees_it(trt, cuda):
    open_x, open_y = tensor("x", shape=[-1], profile=[[1], [2], [4]]), tensor("y", shape=[-1], mode="OUTPUT")
    model = backend().load(plan(open_x, open_y), "m 1")
    cuda.copies.clear()
    with pytest.raises(RunFailed, match=r"input x is \[5\], and the engine is built for \[1\] to \[4\]"):
        run(model, given(np.ones(5, np.float32)))
    assert cuda.copies == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (plan(X, Y, version="8.6.1"), "built by 8.6.1"),
        (b"\x00not an engine", "magicTagRead"),
        (plan(X, tensor("y", "FP8", mode="OUTPUT")), "y is DataType.FP8"),
        (plan(X, tensor("y", mode="OUTPUT") | {"format": "CHW4"}), "only LINEAR"),
        (
            plan(
                tensor("x", shape=[-1], profile=[[1], [1], [2]]),
                tensor("y", shape=[-1], mode="OUTPUT", undetermined=True),
            ),
            "shape of output y",
        ),
        (b"", "empty"),
    ],
    ids=["version", "no engine", "type", "layout", "values", "empty"],
)
def test_an_engine_that_can_not_be_served_is_rejected_with_the_reason(trt, cuda, content, why):
    with pytest.raises(ModelRejected) as refused:
        backend().load(content, "m 1")
    assert why in str(refused.value)
    assert (cuda.device, cuda.host, cuda.streams) == ({}, {}, set())


def test_an_engine_of_another_version_says_what_to_do(trt):
    with pytest.raises(ModelRejected, match=r"TensorRT 10\.3\.0 does not take .* give the \.onnx"):
        backend().load(plan(X, Y, version="8.6.1"), "m 1")


def test_an_engine_that_does_not_fit_is_too_large(trt, cuda):
    with pytest.raises(ModelTooLarge):
        backend().load(plan(X, Y).replace(b'"factor"', b'"huge": true, "factor"'), "m 1")
    cuda.fails["cudaMalloc"] = CudaError.cudaErrorMemoryAllocation
    made = backend()
    with pytest.raises(ModelTooLarge):
        made.load(plan(X, Y), "m 1")
    assert made.heat().lost == ""
    assert (cuda.host, cuda.streams) == ({}, set())


def test_as_many_runs_at_a_time_as_there_are_instances_and_each_has_its_stream(trt, cuda):
    model = backend(Settings("trt", 1, 2)).load(plan(X, Y), "m 1")
    assert len(cuda.streams) == 2
    trt.entered = threading.Barrier(2)
    results: list[float] = []
    ask = lambda number: results.append(float(run(model, given(np.full(2, number, np.float32)))[0][0]) / number)  # noqa: E731
    threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2, 2]


def test_a_device_that_faults_fails_the_run_and_ends_the_process(trt, cuda):
    made = backend()
    model = made.load(plan(X, Y), "m 1")
    assert made.heat().lost == ""
    cuda.fails["cudaStreamSynchronize"] = CudaError.cudaErrorIllegalAddress
    with pytest.raises(DeviceFault, match=r"cudaStreamSynchronize: CUDA error 700 \(cudaErrorIllegalAddress\)"):
        run(model, given(np.float32([1, 2])))
    with pytest.raises(DeviceFault):
        made.heat()


def test_an_engine_that_refuses_to_run_is_rejected_when_it_is_loaded(trt):
    with pytest.raises(ModelRejected, match="TensorRT refused the run"):
        backend().load(plan(X, Y).replace(b'"factor"', b'"refuses": true, "factor"'), "m 1")


# -- engines that are built here -----------------------------------------------------------------------------------


def test_without_the_provider_an_onnx_model_is_built_by_tensorrt_and_kept(trt, settings):
    content = scaled(2.5).SerializeToString()
    for _ in range(3):  # restarts
        model = backend(settings, fp16=True, workspaceMB=64, builderLevel=2).load(content, "m 1")
        assert run(model, given(np.float32([1, -2])))[0].tolist() == [2.5, -5.0]
        model.close()
    (config,) = trt.builds
    assert config.flags == {trt.BuilderFlag.FP16}
    assert config.pools == {trt.MemoryPoolType.WORKSPACE: 64 << 20}
    assert config.builder_optimization_level == 2
    assert config.profiles == {"x": ((1,), (1,), (8,))}


@pytest.mark.parametrize("change", ["driver", "device", "version", "option", "model", "damage"])
def test_what_was_built_under_anything_else_is_built_again(trt, settings, monkeypatch, change, tmp_path):
    content = scaled(2.5).SerializeToString()
    backend(settings).load(content, "m 1").close()
    if change == "driver":
        monkeypatch.setattr(under_test, "look", lambda roots: replace(ORIN, driver="560"))
    elif change == "device":
        monkeypatch.setattr(under_test, "look", lambda roots: replace(ORIN, gpus=[Gpu("Xavier", "7.2", 8 << 30)]))
    elif change == "version":
        trt.__version__ = "10.4.0"
    elif change == "model":
        content = scaled(3.5).SerializeToString()
    elif change == "damage":
        (engine,) = tmp_path.glob("cache/engines/*/engine.plan")
        engine.write_bytes(engine.read_bytes()[:-4])
    model = backend(settings, **({"fp16": True} if change == "option" else {})).load(content, "m 1")
    assert run(model, given(np.float32([2])))[0].tolist() == [7.0 if change == "model" else 5.0]
    assert len(trt.builds) == 2


def test_the_timings_of_one_build_serve_the_next_on_the_same_device(trt, settings, monkeypatch):
    backend(settings).load(scaled(2.5).SerializeToString(), "m 1")
    backend(settings).load(scaled(3.5).SerializeToString(), "n 1")
    monkeypatch.setattr(under_test, "look", lambda roots: replace(ORIN, gpus=[Gpu("Xavier", "7.2", 8 << 30)]))
    backend(settings).load(scaled(2.5).SerializeToString(), "m 1")
    assert [config.timings.known for config in trt.builds] == [b"", b"+", b""]


def test_a_build_says_how_far_it_is(trt, settings):
    told: list[str] = []
    with settings.progress.of(7):
        trt.during_build = lambda: told.extend(text for _, text in settings.progress.told(after=-1.0))
        backend(settings).load(scaled(2.5).SerializeToString(), "m 1")
    assert told == ["building the engine: Tactics 3/4, 0 s"]


def test_a_model_that_the_parser_refuses_is_rejected_and_leaves_nothing(trt, settings, tmp_path):
    with pytest.raises(ModelRejected, match="No importer registered"):
        backend(settings).load(identity().SerializeToString(), "m 1")
    assert not list(tmp_path.glob("cache/engines/*/engine.plan"))


def test_a_model_of_which_the_parser_makes_another_datatype_is_rejected_with_both(trt, settings):
    sides = [value("x", TensorProto.INT64, [2])], [value("y", TensorProto.INT64, [2])]
    model = model_of(
        [helper.make_node("Mul", ["x", "w"], ["y"])], *sides, [numpy_helper.from_array(np.int64([2]), "w")]
    )
    with pytest.raises(ModelRejected, match=r"x is INT64 in the model, and TensorRT 10\.3\.0 makes INT32 of it"):
        backend(settings).load(model.SerializeToString(), "m 1")
    assert trt.builds == []


def test_a_version_that_takes_the_precision_from_the_model_says_so(trt, settings):
    trt.BuilderFlag = SimpleNamespace(BF16=1)  # as of TensorRT 11
    with pytest.raises(ModelRejected, match=r"knows no FP16: .* convert the model"):
        backend(settings, fp16=True).load(scaled(2.0).SerializeToString(), "m 1")


def test_a_calibration_table_is_given_to_the_builder_and_is_part_of_the_engine(trt, settings, tmp_path):
    table = tmp_path / "table"
    for content in (b"TRT-1\nx: 3c010a14", b"TRT-1\nx: 3c010a15"):
        table.write_bytes(content)
        backend(settings, int8=True, calibrationTable=str(table)).load(scaled(2.0).SerializeToString(), "m 1")
    assert [config.int8_calibrator.read_calibration_cache()[-1:] for config in trt.builds] == [b"4", b"5"]
    assert all(trt.BuilderFlag.INT8 in config.flags for config in trt.builds)


# -- what is missing -----------------------------------------------------------------------------------------------


def test_an_interpreter_without_either_library_names_both(cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailable) as refused:
        backend()
    assert refused.value.code == MISSING_LIBRARY
    assert "without the TensorRT provider" in str(refused.value)
    assert "tensorrt can't be imported" in str(refused.value)
    probe = TensorrtBackend.probe()
    assert (probe.available, probe.code, probe.devices) == (False, MISSING_LIBRARY, ("Orin (8192 MB, compute 8.7)",))


def test_a_driver_that_is_too_old_for_cuda_is_a_matter_of_the_driver(trt, cuda):
    cuda.fails["cudaSetDevice"] = CudaError.cudaErrorInsufficientDriver
    assert TensorrtBackend.probe().code == WRONG_DRIVER


def test_a_gpu_that_is_not_there_is_refused_by_its_number(trt):
    with pytest.raises(BackendUnavailable, match="no GPU has the number 3") as refused:
        backend(device=3)
    assert refused.value.code == MISSING_DEVICE


def test_with_the_libraries_and_a_device_it_is_available(trt):
    probe = TensorrtBackend.probe()
    assert (probe.available, probe.runtime) == (True, "TensorRT 10.3.0")
    assert backend().formats == (".plan", ".engine", ".onnx")


# -- ONNX Runtime --------------------------------------------------------------------------------------------------


def claims(monkeypatch) -> None:
    """ONNX Runtime as it is compiled for a GPU: its list of providers says nothing of what is there."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDER, CUDA, CPU])


def test_a_provider_that_is_listed_without_its_library_is_unavailable(cuda, monkeypatch):
    claims(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        BackendUnavailable, match=r"the TensorRT provider: .*providers_(shared|cuda|tensorrt)\.so"
    ) as refused:
        backend()
    assert refused.value.code == MISSING_LIBRARY


def test_a_session_that_would_run_on_the_cpu_is_refused_though_the_provider_was_asked_for(cuda, monkeypatch):
    """ONNX Runtime warns, leaves the provider out, and computes on the CPU."""
    claims(monkeypatch)
    monkeypatch.setattr(through_onnx, "_open_libraries", lambda folder: None)
    made = backend(through="onnxruntime")
    with (
        pytest.raises((BackendUnavailable, NotOnDevice)),
        pytest.warns(UserWarning, match="not in available provider names"),
    ):
        made.load(scaled(2.0).SerializeToString(), "m 1")


@pytest.mark.parametrize("provider", [PROVIDER, CUDA])
def test_onnx_runtime_itself_would_have_run_it_on_the_cpu(provider):
    """The trap, without us."""
    with pytest.warns(UserWarning, match="not in available provider names"):
        session = onnxruntime.InferenceSession(scaled(2.0).SerializeToString(), providers=[provider])
    assert session.get_providers() == [CPU]
    assert session.run(None, {"x": np.float32([1])})[0].tolist() == [2.0]


class FakeProvider:
    """Sessions as if the provider were there: real ones on the CPU, engines written as the provider would."""

    def __init__(self, monkeypatch) -> None:
        self.told: list[dict[str, str]] = []
        self.assigned = {PROVIDER: ["Mul"], CUDA: ["Relu"]}
        claims(monkeypatch)
        monkeypatch.setattr(through_onnx, "_open_libraries", lambda folder: None)
        self._real = OnnxRuntime.model
        monkeypatch.setattr(OnnxRuntime, "model", lambda *given, **more: self._model(*given, **more))

    def _model(self, runtime, content, external=None, options=None, providers=None, proof=lambda session: ""):
        if providers == [CPU]:
            return self._real(runtime, content, external or {}, options, providers)
        assert [name for name, _ in providers] == [PROVIDER, CUDA]
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        told = providers[0][1]
        self.told.append(told)
        if told["trt_engine_cache_enable"] == "True":
            (Path(told["trt_engine_cache_path"]) / "graph_sm87.engine").write_bytes(b"engine")
        model = self._real(runtime, content, external or {}, runtime.options(1), [CPU])
        try:
            model.provenance = proof(self)
        except NotOnDevice:
            model.close()
            raise
        return model

    def get_providers(self):
        return [PROVIDER, CUDA, CPU]

    def get_inputs(self):
        return [None]

    get_outputs = get_inputs

    def get_provider_graph_assignment_info(self):
        nodes = {name: [SimpleNamespace(op_type=each) for each in types] for name, types in self.assigned.items()}
        return [SimpleNamespace(ep_name=name, get_nodes=lambda found=found: found) for name, found in nodes.items()]


def test_through_onnx_runtime_the_engine_is_built_in_a_folder_of_its_own_and_read_from_there_later(
    cuda, settings, monkeypatch, tmp_path
):
    provider = FakeProvider(monkeypatch)
    folders = []
    for _ in range(2):
        model = backend(settings, fp16=True, maxBatch=4).load(scaled(2.5).SerializeToString(), "m 1")
        assert run(model, given(np.float32([2])))[0].tolist() == [5.0]
        folders.append(provider.told[-1]["trt_engine_cache_path"])
    first, second = (Path(folder) for folder in folders)
    assert first.name.startswith("building-")
    assert not first.exists()
    assert sorted(path.name for path in second.iterdir()) == [".lock", "graph_sm87.engine", "manifest.json"]
    assert provider.told[1]["trt_profile_max_shapes"] == "x:4"
    assert provider.told[1]["trt_fp16_enable"] == "True"
    assert "2 of 2 nodes on" in model.provenance


def test_a_shape_that_would_make_the_provider_build_another_engine_fails_at_once(cuda, settings, monkeypatch):
    FakeProvider(monkeypatch)
    model = backend(settings).load(scaled(2.5).SerializeToString(), "m 1")
    with pytest.raises(RunFailed, match=r"input x is \[9\]"):
        run(model, given(np.ones(9, np.float32)))
    assert model.bind({"x": given(np.float32([1]))}, {"y": given(np.float32([1]))}) is None


def test_a_graph_of_which_a_node_is_on_the_cpu_is_refused_with_its_operator_and_not_kept(
    cuda, settings, monkeypatch, tmp_path
):
    provider = FakeProvider(monkeypatch)
    provider.assigned[CPU] = ["NonZero", "Resize"]
    with pytest.raises(NotOnDevice, match=r"2 of 4 nodes.*NonZero, Resize"):
        backend(settings).load(scaled(2.5).SerializeToString(), "m 1")
    assert not list(tmp_path.glob("cache/engines/*/*.engine"))


def test_a_fault_of_cuda_in_a_run_is_the_devices_and_ends_the_process(cuda, settings, monkeypatch):
    FakeProvider(monkeypatch)
    made = backend(settings)
    model = made.load(scaled(2.5).SerializeToString(), "m 1")

    def fails(*given):
        raise RunFailed("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    monkeypatch.setattr(model._model, "run", fails)
    with pytest.raises(DeviceFault, match="CUDA failure 700"):
        run(model, given(np.float32([1])))
    with pytest.raises(DeviceFault):
        made.heat()


def test_a_driver_older_than_the_runtime_was_built_for_is_said_to_be(cuda, monkeypatch):
    FakeProvider(monkeypatch)
    monkeypatch.setattr(through_onnx, "_built_for", lambda: "13.0")
    monkeypatch.setattr(under_test, "look", lambda roots: replace(ORIN, cuda=(12, 6)))
    with pytest.raises(BackendUnavailable, match=r"wants CUDA 13\.0, and the driver goes up to 12\.6") as refused:
        backend(through="onnxruntime")
    assert refused.value.code == WRONG_DRIVER


def test_a_model_that_is_none_is_rejected_either_way(trt, settings, monkeypatch):
    for _ in range(2):
        for content in (b"\x08", b"\x08\x07junk", scaled(1.0).SerializeToString()[:-20]):
            with pytest.raises(ModelRejected):
                backend(settings).load(content, "m 1")
        FakeProvider(monkeypatch)


def test_an_engine_without_tensorrt_itself_is_rejected_with_what_is_missing(cuda, settings, monkeypatch):
    FakeProvider(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    made = backend(settings)
    assert made.formats == (".onnx",)
    with pytest.raises(ModelRejected, match="an engine needs TensorRT itself: tensorrt can't be imported"):
        made.load(plan(X, Y), "m 1")


def test_external_data_of_a_model_goes_through_onnx_runtime_only(trt, settings):
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    sides = [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])]
    model = model_of([node], *sides, [weight])
    with pytest.raises(ModelRejected, match="external data needs ONNX Runtime"):
        backend(settings).load(model.SerializeToString(), "m 1", {"weights.bin": bytes(4)})
