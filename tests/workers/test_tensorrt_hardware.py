"""TensorRT on a real GPU: skipped, with the reason, where there is none. How to run it: docs/tensorrt.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import manifest, model_of, scaled, value, wait_for
from edgeway.client import Client
from edgeway.tensors import to_array, to_bytes
from gateway.device.nvml import NvmlGpu
from workers.backend import BackendUnavailable, ModelRejected, Settings, Tensor
from workers.backends.cpu import CpuBackend
from workers.backends.tensorrt import TensorrtBackend
from workers.loaded import NeverCancelled
from workers.tensorrt.place import PLAN

pytestmark = [pytest.mark.hardware, pytest.mark.timeout(900)]
THROUGH = ("onnxruntime", "native")


@pytest.fixture(autouse=True)
def gpu():
    probe = TensorrtBackend.probe()
    if not probe.available:
        pytest.skip(f"tensorrt: {probe.reason}")


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings("trt", 1, 1, cache=str(tmp_path / "cache"))


def backend(settings: Settings, through: str, **options) -> TensorrtBackend:
    try:
        return TensorrtBackend(replace(settings, options={"through": through, **options}))
    except BackendUnavailable as missing:
        pytest.skip(str(missing))


def convolutions(width: int = 64, layers: int = 6) -> onnx.ModelProto:
    """A picture of 64 x 64 through some convolutions, the same at each call."""
    random = np.random.default_rng(1)
    nodes, weights, channels = [], [], 3
    for layer in range(layers):
        weight = random.normal(0, 1 / np.sqrt(channels * 9), (width, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        told = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [f"h{layer}" if layer else "x", f"w{layer}"], [f"c{layer}"], **told))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"h{layer + 1}"]))
        channels = width
    nodes.append(helper.make_node("GlobalAveragePool", [f"h{layers}"], ["y"]))
    x, y = value("x", TensorProto.FLOAT, ["n", 3, 64, 64]), value("y", TensorProto.FLOAT, ["n", width, 1, 1])
    return model_of(nodes, [x], [y], weights)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 3, 64, 64)).astype(np.float32)


def run(model, array: np.ndarray) -> np.ndarray:
    (y,) = model.run({"x": Tensor("FP32", array.shape, memoryview(to_bytes(array)))}, ["y"], NeverCancelled())
    return np.array(to_array(y.datatype, y.shape, y.data))


def on_the_cpu(array: np.ndarray) -> np.ndarray:
    return run(CpuBackend(Settings()).load(convolutions().SerializeToString(), "m 1"), array)


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize(("options", "tolerance"), [({}, 2e-3), ({"fp16": True}, 2e-2)], ids=["FP32", "FP16"])
def test_it_computes_what_the_cpu_does(settings, through, options, tolerance):
    """FP32 on a GPU rounds its factors to TF32, of ten bits."""
    model = backend(settings, through, **options).load(convolutions().SerializeToString(), "m 1")
    assert model.provenance.startswith("all ")
    for count in (1, 3, 8):
        np.testing.assert_allclose(run(model, pictures(count)), on_the_cpu(pictures(count)), atol=tolerance)


@pytest.mark.parametrize("through", THROUGH)
def test_the_second_start_reads_what_the_first_one_built(settings, through, tmp_path):
    times, answers = [], []
    for _ in range(2):
        made = backend(settings, through)
        began = time.monotonic()
        model = made.load(convolutions().SerializeToString(), "m 1")
        times.append(time.monotonic() - began)
        answers.append(run(model, pictures(2)))
        model.close()
    assert len(list(tmp_path.glob("cache/engines/*/manifest.json"))) == 1
    assert times[1] < times[0] / 2
    np.testing.assert_allclose(*answers, atol=1e-6)


def test_a_plan_that_was_built_here_is_served_and_a_damaged_one_is_rejected(settings, tmp_path):
    built = backend(settings, "native").load(convolutions().SerializeToString(), "m 1")
    (file,) = tmp_path.glob(f"cache/engines/*/{PLAN}")
    plan = file.read_bytes()
    served = backend(Settings(), "native").load(plan, "m 1")
    np.testing.assert_array_equal(run(served, pictures(2)), run(built, pictures(2)))
    with pytest.raises(ModelRejected, match="does not take this engine"):
        backend(Settings(), "native").load(plan[: len(plan) // 2], "m 1")


@pytest.mark.parametrize("through", THROUGH)
def test_a_build_says_what_it_is_at(settings, through):
    told: list[str] = []
    done = threading.Event()

    def listen() -> None:
        while not done.wait(0.01):
            told.extend(text for _, text in settings.progress.told(after=0.0))

    listener = threading.Thread(target=listen)
    listener.start()
    with settings.progress.of(1):
        backend(settings, through).load(convolutions().SerializeToString(), "m 1")
    done.set()
    listener.join()
    assert any(text.startswith("building the engine") for text in told)


def test_memory_of_the_gpu_is_given_back(settings):
    made = backend(settings, "native")
    native = made._native
    content, free = convolutions().SerializeToString(), []
    for _ in range(20):
        model = made.load(content, "m 1")
        run(model, pictures(8))
        model.close()
        free.append(int(native.cuda.cudaMemGetInfo()[1]))
    assert free[-1] >= free[5] - (16 << 20)


def test_an_engine_is_rejected_where_the_builder_would_change_a_datatype_and_served_where_it_keeps_it(settings):
    made = backend(settings, "native")
    sides = [value("x", TensorProto.INT64, [4])], [value("y", TensorProto.INT64, [4])]
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], *sides)
    if "INT64" not in made.datatypes:
        with pytest.raises(ModelRejected, match="x is INT64 in the model"):
            made.load(model.SerializeToString(), "m 1")
        return
    served = made.load(model.SerializeToString(), "m 1")
    array = np.int64([1, -(1 << 40), 3, 4])
    (y,) = served.run({"x": Tensor("INT64", array.shape, memoryview(to_bytes(array)))}, ["y"], NeverCancelled())
    assert to_array(y.datatype, y.shape, y.data).tolist() == array.tolist()


def test_the_driver_tells_how_warm_the_gpu_is():
    reading = NvmlGpu(0).read(1.0)
    assert reading.problem == ""
    assert 5 < reading.temperature_c < 110
    assert reading.limit_c is None or reading.limit_c > reading.temperature_c - 20
    assert reading.throttled in (False, True)
    assert 0 <= reading.load <= 1


@pytest.mark.system
def test_doctor_names_the_gpu_and_what_drives_it(folder: Path):
    command = [sys.executable, "-m", "gateway", "doctor", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    report = next(each for each in json.loads(done.stdout) if each["backend"] == "tensorrt")
    assert report["available"]
    assert "compute" in report["devices"][0]
    assert "TensorRT" in report["runtime"]


@pytest.mark.system
def test_a_worker_that_is_killed_in_a_run_costs_no_request_and_comes_back_with_its_engine(folder: Path, gateway_in):
    gateway = gateway_in({"workers": [{"name": "trt", "backend": "tensorrt"}, {"name": "cpu", "backend": "cpu"}]})
    spec = "targets: [trt, cpu]\nlatency: {budgetMs: 1000}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "tensorrt")
    assert gateway.run("apply", "-f", path, "--wait").returncode == 0

    def state() -> str:
        return next(each for each in gateway.get("targets", "m") if each["worker"] == "trt")["state"]

    with Client(gateway.unix) as client:
        served = [client.infer("m", {"x": np.float32([3])}).served_by]
        wait_for(
            lambda: served.append(client.infer("m", {"x": np.float32([3])}).served_by) or state() == "ready", 600, "it"
        )
        assert served[0] == "cpu"  # while the worker starts and builds
        worker = next(each for each in gateway.get("accelerators") if each["worker"] == "trt")
        for number in range(400):
            if number == 100:
                os.kill(worker["pid"], signal.SIGKILL)
            answer = client.infer("m", {"x": np.float32([number])})
            assert answer["y"].tolist() == [2.0 * number]
        wait_for(lambda: state() == "ready", 60, "the worker, with an engine that it need not build")
        assert client.infer("m", {"x": np.float32([1])}).served_by == "trt"
