"""Golden samples through a real gateway: who is barred, who serves, what is said, and what a restart asks again."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from benchmarks.harness import Gateway, alive, manifest, model_of, scaled, value, wait_for
from edgeway.client import Client
from tests.workers.test_external import DATA, VALUES, adding

pytestmark = pytest.mark.system
CONFIG = {"workers": [{"name": "cpu", "backend": "cpu"}, {"name": "sim", "backend": "simulated"}]}
X = np.arange(20, dtype=np.float32).reshape(5, 4)


def golden(folder: Path, factor: float) -> str:
    """Lines of a manifest: samples of y = factor * x."""
    path = folder / f"golden-{factor:g}.npz"
    np.savez(path, x=X, y=np.float32(factor) * X)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f'golden: {{uri: "file:{path.name}", checksum: "sha256:{digest}"}}\n'


def artifact(folder: Path, content: bytes, more: str = "") -> str:
    """Lines of a manifest: another file, for the simulated accelerator."""
    digest = hashlib.sha256(content).hexdigest()
    (folder / f"{digest[:8]}.onnx").write_bytes(content)
    entry = f'accelerator: simulated, uri: "file:{digest[:8]}.onnx", checksum: "sha256:{digest}"'
    return f"artifacts: [{{{entry}{more}}}]\n"


def apply(gateway: Gateway, version: str, content: bytes, more: str, name: str = "m", code: int = 0) -> str:
    path = manifest(gateway.folder, name, version, content, "targets: [sim, cpu]\n" + more)
    done = gateway.run("apply", "-f", path, "--wait", "--timeout", "20")
    assert done.returncode == code, done.stderr
    return done.stderr


def targets(gateway: Gateway, name: str = "m") -> dict[str, dict]:
    return {target["worker"]: target for target in gateway.get("targets", name)}


def version_of(gateway: Gateway, label: str, name: str = "m") -> dict:
    return next(v for v in gateway.get("deployments", name)[0]["versions"] if v["version"] == label)


def test_an_artifact_that_disagrees_is_barred_on_its_accelerator_and_the_cpu_serves(
    gateway_in: Callable[..., Gateway], folder: Path
):
    gateway = gateway_in(CONFIG)
    right, wrong = scaled(2.0).SerializeToString(), scaled(2.5).SerializeToString()
    apply(gateway, "1", right, artifact(folder, wrong) + golden(folder, 2.0))
    state = targets(gateway)
    assert state["sim"]["state"] == "lost"
    assert state["cpu"]["state"] == "ready"
    says = "barred: sample 0: output y[3] is 7.5, golden 6: off by 1.5, allowed 0.061, and 2 more of 4"
    assert state["sim"]["reason"] == says
    assert version_of(gateway, "1")["state"] == "ready"
    assert f"sim: {says}" in version_of(gateway, "1")["reason"]
    with Client(gateway.unix) as client:
        answer = client.infer("m", {"x": X[1]})
    assert answer["y"].tolist() == (2 * X[1]).tolist()
    assert (answer.served_by, answer.reason) == ("cpu", "barred")
    kinds = {event["kind"]: event for event in gateway.get("events", "m")}
    assert kinds["artifact-barred"]["worker"] == "sim"
    assert "5 samples: within rtol 0.01, atol 0.001" in kinds["golden-agrees"]["message"]


def test_a_rule_of_its_own_lets_a_looser_artifact_pass(gateway_in: Callable[..., Gateway], folder: Path):
    gateway = gateway_in(CONFIG)
    right, scaled_up = scaled(2.0).SerializeToString(), scaled(2.5).SerializeToString()
    apply(gateway, "1", right, artifact(folder, scaled_up, ", golden: {cosine: 0.99}") + golden(folder, 2.0))
    assert {name: target["state"] for name, target in targets(gateway).items()} == {"sim": "ready", "cpu": "ready"}


def test_a_version_that_disagrees_everywhere_is_barred_and_the_one_before_serves(
    gateway_in: Callable[..., Gateway], folder: Path
):
    gateway = gateway_in(CONFIG)
    apply(gateway, "1", scaled(2.0).SerializeToString(), golden(folder, 2.0))
    said = apply(gateway, "2", scaled(3.0).SerializeToString(), golden(folder, 2.0), code=1)
    assert "barred" in said
    assert "golden 6" in said
    assert version_of(gateway, "2")["state"] == "barred"
    with Client(gateway.unix) as client:
        assert client.infer("m", {"x": X[0]}).version == "1"
    assert "barred" in apply(gateway, "2", scaled(3.0).SerializeToString(), golden(folder, 2.0), code=1)
    barred = [event for event in gateway.get("events", "m") if event["kind"] == "version-barred"]
    assert len(barred) == 2  # applied again, it was tried again


def test_a_restart_of_the_worker_keeps_what_the_check_found(gateway_in: Callable[..., Gateway], folder: Path):
    gateway = gateway_in(CONFIG)
    right, wrong = scaled(2.0).SerializeToString(), scaled(2.5).SerializeToString()
    apply(gateway, "1", right, golden(folder, 2.0), name="good")
    apply(gateway, "1", right, artifact(folder, wrong) + golden(folder, 2.0))
    pid = gateway.worker("sim")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid) and targets(gateway, "good")["sim"]["state"] == "ready", 10, "the worker's return")
    assert targets(gateway)["sim"]["reason"].startswith("barred: sample 0")
    agreed = [event for event in gateway.get("events", "good") if event["kind"] == "golden-agrees"]
    assert len(agreed) == 2  # one for each worker, none for the restart


def test_listed_external_data_comes_along_and_unlisted_is_refused(gateway_in: Callable[..., Gateway], folder: Path):
    gateway = gateway_in(CONFIG)
    content = adding("weights.bin").SerializeToString()
    (folder / "weights.bin").write_bytes(DATA)
    path = Path(manifest(folder, "m", "1", content))
    listed = f'externalData: [{{path: weights.bin, checksum: "sha256:{hashlib.sha256(DATA).hexdigest()}"}}]'
    plain = path.read_text()
    done = gateway.run("apply", "-f", str(path), "--wait", "--timeout", "20")
    assert done.returncode == 1
    assert "external data that the manifest does not list under externalData: weights.bin" in done.stderr
    path.write_text(plain.replace('version: "1"', f'version: "2", {listed}'))
    done = gateway.run("apply", "-f", str(path), "--wait", "--timeout", "20")
    assert done.returncode == 0, done.stderr
    with Client(gateway.unix) as client:
        assert client.infer("m", {"x": np.ones(64, np.float32)})["y"].tolist() == (VALUES + 1).tolist()


def test_a_file_whose_tensors_are_others_is_no_file_of_this_version(gateway_in: Callable[..., Gateway], folder: Path):
    gateway = gateway_in(CONFIG)
    nodes = [helper.make_node("Identity", ["z"], ["y"])]
    other = model_of(nodes, [value("z", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])])
    apply(gateway, "1", scaled(2.0).SerializeToString(), artifact(folder, other.SerializeToString()))
    wait_for(lambda: any("other tensors" in t["reason"] for t in targets(gateway).values()), 5, "the refusal")
