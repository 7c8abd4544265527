"""TensorRT on a real GPU: skipped, with the reason, where there is none.

On a Jetson: ``python3 -m venv --system-site-packages``, ``pip install -e '.[device,dev,tensorrt]' cuda-python`` of the
driver's version of CUDA, ``pytest -m hardware tests/workers/test_tensorrt_hardware.py``.
"""

from __future__ import annotations

import os
import signal
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
from workers.backend import BackendUnavailable, ModelRejected, Settings, Tensor
from workers.backends.cpu import CpuBackend
from workers.backends.tensorrt import PLAN, TensorrtBackend
from workers.loaded import NeverCancelled

pytestmark = pytest.mark.hardware
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
    assert "CPU" not in model.provenance.replace("no node on the CPU", "")
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


@pytest.mark.system
def test_a_worker_that_is_killed_in_a_run_costs_no_request_and_comes_back_with_its_engine(folder: Path, gateway_in):
    gateway = gateway_in({"workers": [{"name": "trt", "backend": "tensorrt"}, {"name": "cpu", "backend": "cpu"}]})
    spec = "targets: [trt, cpu]\nlatency: {budgetMs: 1000}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "tensorrt")
    assert gateway.run("apply", "-f", path, "--wait").returncode == 0

    def state() -> str:
        return next(each for each in gateway.get("targets", "m") if each["worker"] == "trt")["state"]

    wait_for(lambda: state() == "ready", 600, "the engine")
    with Client(gateway.unix) as client:
        worker = next(each for each in gateway.get("accelerators") if each["worker"] == "trt")
        for number in range(400):
            if number == 100:
                os.kill(worker["pid"], signal.SIGKILL)
            answer = client.infer("m", {"x": np.float32([number])})
            assert answer["y"].tolist() == [2.0 * number]
        wait_for(lambda: state() == "ready", 60, "the worker, with an engine that it need not build")
        assert client.infer("m", {"x": np.float32([1])}).served_by == "trt"
