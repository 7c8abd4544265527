"""Deploying by manifest, through the command line."""

import contextlib
import functools
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import manifest, scaled, wait_for
from edgeway.client import Client, InferenceError

pytestmark = pytest.mark.system

FOUNDING = """
apiVersion: edge.ai/v1
kind: ModelDeployment
metadata:
  name: object-detector
spec:
  model:
    uri: {uri}
    version: "2.3"
    checksum: "sha256:{checksum}"
  rollback: {{previousVersion: "2.2", autoRollbackOnError: true, errorThreshold: 5}}
  hardware: {{accelerator: jetson-orin, minMemoryMB: 2048}}
"""
TWO_WORKERS = {"workers": [{"name": "cpu", "backend": "cpu"}, {"name": "sim", "backend": "simulated"}]}


def version_of(folder: Path, version: str, factor: float, more: str = "") -> str:
    return manifest(folder, "m", version, scaled(factor).SerializeToString(), more)


@contextlib.contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """The folder by HTTP; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def answers(address: str, count: int = 1, **options) -> list[tuple[float, str]]:
    """(first output, version) of each."""
    with Client(address) as client:
        results = [client.infer("m", {"x": np.ones(1, np.float32)}, **options) for _ in range(count)]
    return [(float(result["y"][0]), result.version) for result in results]


def versions(gateway) -> dict:
    return {v["version"]: v for v in gateway.get("deployments", "m")[0]["versions"]}


def test_the_founding_example_is_served_by_the_cpu_degraded_because_the_jetson_is_lost(folder, gateway_in):
    gateway = gateway_in()
    model = folder / "model.onnx"
    model.write_bytes(scaled(3.0).SerializeToString())
    path = folder / "founding.yaml"
    path.write_text(FOUNDING.format(uri=f"file://{model}", checksum=hashlib.sha256(model.read_bytes()).hexdigest()))
    applied = gateway.run("apply", "-f", str(path), "--wait")
    assert applied.returncode == 0, applied.stderr
    assert "tensorrt" in applied.stderr  # a warning names the accelerator that this device lacks
    with Client(gateway.unix) as client:
        result = client.infer("object-detector", {"x": np.ones(2, np.float32)})
    assert result["y"].tolist() == [3.0, 3.0]
    assert (result.served_by, result.degraded, result.reason) == ("cpu", True, "lost")
    states = {target["worker"]: target["state"] for target in gateway.get("targets", "object-detector")}
    assert states == {"tensorrt": "lost", "cpu": "ready"}


def test_a_newer_version_takes_over_and_the_older_one_can_still_be_pinned(folder, gateway_in):
    gateway = gateway_in()
    for version, factor in (("1.0", 2.0), ("2.0", 5.0)):
        assert gateway.run("apply", "-f", version_of(folder, version, factor), "--wait").returncode == 0
    assert answers(gateway.unix) == [(5.0, "2.0")]
    assert answers(gateway.unix, version="1.0") == [(2.0, "1.0")]
    assert answers(gateway.unix, version="previous") == [(2.0, "1.0")]
    known = versions(gateway)
    assert (known["2.0"]["current"], known["1.0"]["previous"]) == (True, True)


def test_percent_splits_the_traffic_exactly(folder, gateway_in):
    gateway = gateway_in()
    assert gateway.run("apply", "-f", version_of(folder, "1.0", 2.0), "--wait").returncode == 0
    canary = version_of(folder, "2.0", 5.0, "traffic: {percent: 10}")
    assert gateway.run("apply", "-f", canary, "--wait").returncode == 0
    seen = [version for _, version in answers(gateway.unix, 200)]
    assert seen.count("2.0") == 20
    keyed = {version for _, version in answers(gateway.unix, 30, route_key="robot-7")}
    assert len(keyed) == 1


def test_applying_twice_changes_nothing_and_percents_over_100_are_refused(folder, gateway_in):
    gateway = gateway_in()
    first = version_of(folder, "1.0", 2.0, "traffic: {percent: 60}")
    assert "accepted" in gateway.run("apply", "-f", first, "--wait").stdout
    assert "unchanged" in gateway.run("apply", "-f", first).stdout
    refused = gateway.run("apply", "-f", version_of(folder, "2.0", 5.0, "traffic: {percent: 50}"))
    assert refused.returncode == 1
    assert "110" in refused.stderr


def test_deployments_survive_a_restart(folder, gateway_in):
    gateway = gateway_in()
    path = version_of(folder, "1.0", 2.0)
    assert gateway.run("apply", "-f", path, "--wait").returncode == 0
    (folder / "m-1.0.onnx").unlink()  # the gateway has its own copy
    assert gateway.stop() == 0
    again = gateway_in()
    assert answers(again.unix) == [(2.0, "1.0")]


def test_delete_removes_one_version_or_all(folder, gateway_in):
    gateway = gateway_in()
    for version, factor in (("1.0", 2.0), ("2.0", 5.0)):
        assert gateway.run("apply", "-f", version_of(folder, version, factor), "--wait").returncode == 0
    assert gateway.run("delete", "m", "--version", "2.0").returncode == 0
    wait_for(lambda: answers(gateway.unix) == [(2.0, "1.0")], 5, "the return to 1.0")
    assert gateway.run("delete", "m").returncode == 0
    with pytest.raises(InferenceError, match="no model is called 'm'"):
        answers(gateway.unix)
    missing = gateway.run("delete", "m")
    assert (missing.returncode, "no deployment is called 'm'" in missing.stderr) == (1, True)


def test_a_folder_of_manifests_is_followed(folder, gateway_in):
    manifests = folder / "manifests"
    manifests.mkdir()
    version_of(manifests, "1.0", 2.0)
    gateway = gateway_in({}, "--manifests", str(manifests))
    wait_for(lambda: gateway.get("deployments"), 5, "the first version")
    wait_for(lambda: versions(gateway)["1.0"]["state"] == "ready", 5, "1.0")
    version_of(manifests, "2.0", 5.0)
    wait_for(lambda: versions(gateway).get("2.0", {}).get("state") == "ready", 10, "2.0")
    assert answers(gateway.unix) == [(5.0, "2.0")]
    (manifests / "m-2.0.yaml").unlink()
    wait_for(lambda: answers(gateway.unix) == [(2.0, "1.0")], 10, "the end of 2.0")


def test_a_folder_with_a_mistake_serves_on_and_what_went_while_the_gateway_was_down_goes(folder, gateway_in):
    manifests = folder / "manifests"
    manifests.mkdir()
    for version, factor in (("1.0", 2.0), ("2.0", 5.0)):
        version_of(manifests, version, factor, "traffic: {percent: 10}")
    gateway = gateway_in({}, "--manifests", str(manifests))
    wait_for(lambda: {v["state"] for v in versions(gateway).values()} == {"ready"}, 10, "both versions")
    (manifests / "m-1.0.yaml").write_text("{")
    (manifests / "m-2.0.yaml").unlink()
    version_of(manifests, "3.0", 7.0, "traffic: {percent: 20}")
    wait_for(lambda: versions(gateway).keys() == {"1.0", "3.0"}, 10, "the good file, and the end of 2.0")
    assert answers(gateway.unix, version="1.0") == [(2.0, "1.0")]
    refused = [event["message"] for event in gateway.get("events") if event["kind"] == "manifest-refused"]
    assert len(refused) == 1
    assert refused[0].startswith(f"{manifests}/m-1.0.yaml:1: ")
    assert (
        gateway.run("apply", "-f", str(manifests / "m-3.0.yaml")).returncode == 0
    )  # by hand: it is the operator's now
    assert gateway.stop() == 0
    for path in manifests.glob("*.yaml"):
        path.unlink()
    gateway.start()
    wait_for(lambda: versions(gateway).keys() == {"3.0"}, 10, "the end of 1.0, whose file went")


def test_a_file_that_is_edited_from_one_version_to_the_next_is_never_without_a_server(folder, gateway_in):
    manifests = folder / "manifests"
    manifests.mkdir()
    for version, factor in (("1.0", 2.0), ("2.0", 5.0)):
        Path(version_of(manifests, version, factor)).rename(folder / f"{version}.yaml")
    (folder / "1.0.yaml").rename(manifests / "m.yaml")
    gateway = gateway_in({}, "--manifests", str(manifests))
    wait_for(lambda: versions(gateway)["1.0"]["state"] == "ready", 10, "1.0")
    seen = []
    with Client(gateway.unix) as client:

        def served() -> bool:
            result = client.infer("m", {"x": np.ones(1, np.float32)})
            seen.append((float(result["y"][0]), result.version))
            return result.version == "2.0"

        served()
        (folder / "2.0.yaml").rename(manifests / "m.yaml")
        wait_for(served, 10, "2.0")
        for _ in range(100):
            served()
    assert set(seen) == {(2.0, "1.0"), (5.0, "2.0")}
    wait_for(lambda: versions(gateway).keys() == {"2.0"}, 5, "the end of 1.0")


def test_a_wait_shows_how_far_a_slow_download_is(folder, gateway_in, monkeypatch):
    model = scaled(2.0)
    model.doc_string = "x" * 4_000_000
    path = version_of(folder, "1.0", 2.0)
    content = model.SerializeToString()
    (folder / "big.onnx").write_bytes(content)
    with served_folder(folder) as address:
        text = Path(path).read_text().replace("file:m-1.0.onnx", f"{address}/big.onnx")
        small = hashlib.sha256((folder / "m-1.0.onnx").read_bytes()).hexdigest()
        Path(path).write_text(text.replace(small, hashlib.sha256(content).hexdigest()))
        gateway = gateway_in({"fetch": {"maxMBPerSecond": 2}})
        monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
        done = gateway.run("apply", "-f", path, "--wait")
    assert (done.returncode, done.stdout) == (0, "m 1.0: accepted\nm 1.0: ready\n")
    assert re.search(r"m 1.0: fetching [0-4]\.\d of 4.0 MB", done.stderr)
    assert answers(gateway.unix) == [(2.0, "1.0")]


def test_validate_names_the_line_and_apply_reads_stdin(folder, gateway_in):
    gateway = gateway_in()
    path = version_of(folder, "1.0", 2.0)
    assert gateway.run("validate", "-f", path).returncode == 0
    broken = folder / "broken.yaml"
    broken.write_text(Path(path).read_text().replace('version: "1.0"', "version: 1.10"))
    refused = gateway.run("validate", "-f", str(broken))
    assert refused.returncode == 1
    assert "broken.yaml:6" in refused.stderr
    assert "spec.model.version" in refused.stderr
    text = Path(path).read_text().replace("file:m-1.0.onnx", f"file://{folder}/m-1.0.onnx")
    assert gateway.run("apply", "-f", "-", "--wait", text=text).returncode == 0


def test_get_speaks_json_with_latencies_and_shares(folder, gateway_in):
    gateway = gateway_in(TWO_WORKERS)
    assert gateway.run("apply", "-f", version_of(folder, "1.0", 2.0), "--wait").returncode == 0
    answers(gateway.unix, 50)
    latency = versions(gateway)["1.0"]["latency"]
    assert latency["count"] == 50
    assert 0 < latency["p50Ms"] <= latency["p95Ms"] <= latency["p99Ms"]
    (target,) = gateway.get("targets", "m")
    assert (target["worker"], target["share"]) == ("cpu", 1.0)
    kinds = {worker["worker"]: worker["kind"] for worker in gateway.get("accelerators")}
    assert kinds == {"cpu": "cpu", "sim": "simulated"}
    assert any(event["kind"] == "version-ready" for event in gateway.get("events", "m"))
    infer = gateway.run("infer", "m", "--input", "x=random", "-o", "json")
    assert set(json.loads(infer.stdout)) == {"outputs", "parameters", "wallMs"}
