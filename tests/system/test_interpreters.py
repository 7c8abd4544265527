"""Workers under interpreters of their own: another Python serves, and one that can't says why."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from onnx import TensorProto

from benchmarks.harness import identity, put, scaled, wait_for
from benchmarks.worker import Refused, Worker
from edgeway.client import Client

pytestmark = pytest.mark.system
X = {"x": np.array([1, -2], np.float32)}


def test_a_worker_runs_under_python_3_9(folder, gateway_in, runtime):
    put(folder / "models", "double", scaled(2.0))
    old = {"name": "old", "backend": "cpu", "python": runtime("python3.9")}
    gateway = gateway_in({"workers": [old]}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=10_000) as client:
        assert client.infer("double", X)["y"].tolist() == [2, -4]
    (only,) = gateway.get("accelerators")
    assert only["worker"] == "old"
    assert gateway.worker("old")["runtime"].startswith("onnxruntime 1.19")


def test_a_runtime_that_is_too_old_for_a_datatype_refuses_the_model_and_goes_on(runtime):
    with Worker("cpu", runtime("python3.9")) as worker:
        with pytest.raises(Refused, match="too old for BF16 tensors"):
            worker.load(identity(TensorProto.BFLOAT16).SerializeToString(), ".onnx")
        double = worker.load(scaled(2.0).SerializeToString(), ".onnx")
        assert worker.run(double, X["x"])[0].tolist() == [2, -4]


def test_an_interpreter_that_can_not_be_used_is_a_typed_reason_and_others_serve(folder, gateway_in):
    put(folder / "models", "double", scaled(2.0))
    bare = folder / "bare"  # as a Python without site-packages: it has no protobuf
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    workers = [
        {"name": "gone", "backend": "simulated", "python": "/no/such/python"},
        {"name": "bare", "backend": "simulated", "python": str(bare)},
        {"name": "odd", "backend": "simulated", "options": {"speed": 9}},
        {"name": "what", "backend": "abacus"},
    ]
    gateway = gateway_in({"workers": workers}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=10_000) as client:
        assert client.infer("double", X)["y"].tolist() == [2, -4]

    def told() -> dict[str, dict]:
        found = {worker["worker"]: worker for worker in gateway.get("accelerators")}
        return found if all(found[worker["name"]]["code"] for worker in workers) else {}

    found = wait_for(told, 10, "a reason of each")
    codes = {name: worker["code"] for name, worker in found.items()}
    assert codes == {
        "gone": "missing-interpreter",
        "bare": "missing-library",
        "odd": "misconfigured",
        "what": "unsupported",
        "cpu": "",
    }
    assert {found[name]["state"] for name in codes if codes[name]} == {"lost"}
    assert "/no/such/python" in found["gone"]["reason"]
    assert "pip install" in found["bare"]["remedy"]
    assert "speed" in found["odd"]["reason"]
    assert "abacus" in found["what"]["reason"]
    assert "Traceback" not in gateway.log
    events = [event["worker"] for event in gateway.get("events") if event["kind"] == "worker-unavailable"]
    assert sorted(events) == ["bare", "gone", "odd", "what"]  # once each, however often it is tried again
    assert not [event for event in gateway.get("events") if event["kind"] == "worker-crash-loop"]


def test_without_a_config_what_was_found_and_what_it_lacks_is_told_and_the_cpu_serves(folder, gateway_in):
    (folder / "dev").mkdir()
    (folder / "dev" / "fastrpc-cdsp").touch()
    put(folder / "models", "double", scaled(2.0))
    roots = {"sysfsRoot": str(folder / "sys"), "devRoot": str(folder / "dev")}
    gateway = gateway_in({"accelerators": roots}, "--model-repository", str(folder / "models"))
    assert [worker["worker"] for worker in gateway.get("accelerators")] == ["cpu"]
    (told,) = [event["message"] for event in gateway.get("events") if event["kind"] == "accelerator-found"]
    assert "fastrpc-cdsp" in told
    assert "onnxruntime-qnn" in told
    with Client(gateway.unix, deadline_ms=10_000) as client:
        assert client.infer("double", X)["y"].tolist() == [2, -4]


def test_a_worker_of_a_found_accelerator_is_started_and_says_why_it_can_not_serve(folder, gateway_in):
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("ai-edge-litert is not installed")
    (folder / "dev").mkdir()
    (folder / "dev" / "apex_0").touch()  # no chip is behind it
    put(folder / "models", "double", scaled(2.0))
    roots = {"sysfsRoot": str(folder / "sys"), "devRoot": str(folder / "dev")}
    gateway = gateway_in({"accelerators": roots}, "--model-repository", str(folder / "models"))
    wait_for(lambda: gateway.worker("edgetpu")["code"], 10, "its reason")
    found = gateway.worker("edgetpu")
    assert (found["state"], found["backend"]) == ("lost", "edgetpu")
    assert found["reason"]
    assert found["remedy"]
    with Client(gateway.unix, deadline_ms=10_000) as client:
        assert client.infer("double", X)["y"].tolist() == [2, -4]
