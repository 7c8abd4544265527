"""Models for LiteRT and the Edge TPU, through a gateway."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from benchmarks.harness import manifest, scaled, wait_for
from benchmarks.tflite_models import compiled, counting, identity
from benchmarks.tflite_models import scaled as scaled_lite
from edgeway.client import Client, InferenceError
from edgeway.v1 import open_inference_pb2 as oip

pytestmark = [pytest.mark.system]
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
ROOT = Path(__file__).resolve().parents[2]


def put(repository: Path, name: str, content: bytes) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content)


def targets(gateway, name: str) -> dict[str, dict]:
    return {row["worker"]: row for row in gateway.get("targets") if row["deployment"] == name}


def test_a_stock_client_learns_what_the_integers_of_a_tensor_stand_for(folder, gateway_in):
    put(folder / "models", "eighths", identity("INT8", (1, 4), scale=[0.125], zero=-1))
    gateway = gateway_in({"workers": [{"name": "lite", "backend": "litert"}]}, "--model-repository", f"{folder}/models")
    client = triton.InferenceServerClient(gateway.address)
    wait_for(lambda: client.is_model_ready("eighths"), 20, "the model")
    config = client.get_model_config("eighths", as_json=True)["config"]
    told = {key: value["string_value"] for key, value in config["parameters"].items()}
    assert told == {
        "quantization.x.scale": "0.125",
        "quantization.x.zero_point": "-1",
        "quantization.y.scale": "0.125",
        "quantization.y.zero_point": "-1",
    }
    with grpc.insecure_channel(gateway.address) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            oip.ModelMetadataRequest.SerializeToString,
            oip.ModelMetadataResponse.FromString,
        )
        properties = dict(ask(oip.ModelMetadataRequest(name="eighths"), timeout=10).properties)
    assert properties.items() >= told.items()
    sent = triton.InferInput("x", [1, 4], "INT8")
    sent.set_data_from_numpy(np.array([[-128, 0, 1, 127]], np.int8))
    assert client.infer("eighths", [sent]).as_numpy("y").tolist() == [[-128, 0, 1, 127]]


def test_a_model_that_remembers_begins_anew_with_its_first_caller(folder, gateway_in):
    put(folder / "models", "count", counting())
    gateway = gateway_in({"workers": [{"name": "lite", "backend": "litert"}]}, "--model-repository", f"{folder}/models")
    with Client(gateway.unix) as client:
        wait_for(lambda: targets(gateway, "count").get("lite", {}).get("state") == "ready", 20, "the model")
        seen = [float(client.infer("count", {"x": np.zeros(1, np.float32)})["y"][0]) for _ in range(20)]
    assert seen == list(range(1, 21))


def test_one_deployment_mixes_onnx_and_tflite_and_fails_over_between_the_runtimes(folder, gateway_in):
    config = {"workers": [{"name": "lite", "backend": "litert"}, {"name": "cpu", "backend": "cpu"}]}
    gateway = gateway_in(config)
    (folder / "m.tflite").write_bytes(scaled_lite(2.0))
    digest = hashlib.sha256(scaled_lite(2.0)).hexdigest()
    artifact = f'{{accelerator: litert, uri: "file:m.tflite", checksum: "sha256:{digest}"}}'
    more = f"targets: [litert, cpu]\nartifacts: [{artifact}]\n"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), more)
    gateway.deploy(path)
    wait_for(lambda: {row["state"] for row in targets(gateway, "m").values()} == {"ready"}, 20, "both targets")
    rows = targets(gateway, "m")
    assert "nodes on the CPU" in rows["lite"]["provenance"]
    with Client(gateway.unix) as client:
        served = client.infer("m", {"x": np.float32([1, 2])})
        assert (served.served_by, served["y"].tolist()) == ("lite", [2, 4])
        subprocess.run(["kill", "-9", str(gateway.worker("lite")["pid"])], check=True)
        served = client.infer("m", {"x": np.float32([1, 2, 3])})
        assert served["y"].tolist() == [2, 4, 6]


@pytest.fixture
def coral(folder):
    """Config of a worker whose Edge TPU is a stub, and the folder that makes it be there."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the stub of libedgetpu with")
    library, source = folder / "libedgetpu.so.1", ROOT / "tests/workers/stubs/edgetpu.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    device = folder / "sys/bus/usb/devices/2-1"
    device.mkdir(parents=True)
    for name, text in (("idVendor", "18d1"), ("idProduct", "9302"), ("busnum", "2"), ("devnum", "4")):
        (device / name).write_text(f"{text}\n")
    node = folder / "dev/bus/usb/002/004"
    node.parent.mkdir(parents=True)
    node.touch()
    (folder / "behaviour").write_text("takes")
    options = {"library": str(library), "sysfsRoot": f"{folder}/sys", "devRoot": f"{folder}/dev", "allowCpu": True}
    options["lockFolder"] = str(folder)
    env = {"STUB_EDGETPU": f"{folder}/behaviour"}
    return {"name": "coral", "backend": "edgetpu", "options": options, "env": env}, device


def test_a_coral_that_is_pulled_is_lost_and_serves_again_when_it_is_back(folder, gateway_in, coral):
    worker, device = coral
    put(folder / "models", "taken", compiled())
    put(folder / "models", "other", scaled_lite(3.0))
    gateway = gateway_in({"workers": [worker]}, "--model-repository", f"{folder}/models")
    ask = {"x": np.zeros((1, 4), np.uint8)}
    with Client(gateway.unix) as client:
        wait_for(lambda: targets(gateway, "taken").get("coral", {}).get("state") == "ready", 20, "the model")
        wait_for(lambda: targets(gateway, "other").get("coral", {}).get("state") == "ready", 20, "the other model")
        served = client.infer("taken", ask)
        assert (served.kind, served["y"].shape) == ("hardware", (1, 2))
        served = client.infer("other", {"x": np.float32([1])})
        assert (served.kind, served["y"].tolist()) == ("cpu", [3])
        kinds = {name: targets(gateway, name)["coral"]["kind"] for name in ("taken", "other")}
        assert kinds == {"taken": "hardware", "other": "cpu"}
        before = gateway.worker("coral")["pid"]
        device.rename(folder / "pulled")
        wait_for(lambda: gateway.worker("coral")["state"] == "lost", 10, "the loss")
        assert "gone from the bus" in gateway.worker("coral")["reason"]
        with pytest.raises(InferenceError) as refused:
            client.infer("taken", ask)
        assert refused.value.code.name == "UNAVAILABLE"
        (folder / "pulled").rename(device)
        wait_for(lambda: targets(gateway, "taken")["coral"]["state"] == "ready", 20, "its return")
        assert gateway.worker("coral")["pid"] != before
        assert client.infer("taken", ask)["y"].shape == (1, 2)


def test_a_coral_that_is_not_there_says_so_in_the_status(folder, gateway_in, coral):
    worker, device = coral
    shutil.rmtree(device)
    gateway = gateway_in({"workers": [worker]})
    wait_for(lambda: "no Coral Edge TPU" in gateway.worker("coral")["reason"], 10, "the reason")
