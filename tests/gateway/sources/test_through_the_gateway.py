"""Models from elsewhere through a real gateway: applied, resumed after a kill, never fetched twice."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks.file_server import FileServer
from benchmarks.harness import Gateway, scaled, scratch, wait_for
from edgeway.client import Client
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

pytestmark = pytest.mark.system


def model(ballast=0):
    """y = 2 x, with so many bytes of weights that nothing needs."""
    made = scaled(2.0)
    if ballast:
        made.graph.initializer.append(numpy_helper.from_array(np.frombuffer(os.urandom(ballast), np.uint8), "ballast"))
    return made.SerializeToString()


def manifest(gateway, name, uri, content, version="1.0", checksum=None):
    path = gateway.folder / f"{name}-{version}.json"
    sha256 = checksum or hashlib.sha256(content).hexdigest()
    spec = {"model": {"uri": uri, "version": version, "checksum": f"sha256:{sha256}"}, "targets": ["cpu"]}
    plain = {"apiVersion": "edge.ai/v1", "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec}
    path.write_text(json.dumps(plain))
    return str(path)


def version_of(gateway, name):
    found = gateway.get("deployments", name)
    return found[0]["versions"][-1] if found else {}


def answer(gateway, name):
    with Client(gateway.unix) as client:
        return client.infer(name, {"x": np.ones(2, np.float32)})["y"].tolist()


@pytest.fixture(scope="module")
def gateway(s3, registry_port):
    """One that may fetch from this machine's servers, as 127.0.0.1 and from buckets, but not as localhost."""
    store = {"endpoint": f"http://127.0.0.1:{s3}", "region": "us-east-1", "allowHttp": True}
    fetch = {"hosts": ["127.0.0.1", "models"], "objectStore": store, "patienceSeconds": 20, "timeoutSeconds": 5}
    fetch["plainRegistries"] = [f"127.0.0.1:{registry_port}"]
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with scratch() as folder, Gateway(folder, {"fetch": fetch}, environment=keys) as running:
        yield running


def test_a_model_comes_over_a_link_that_is_cut(gateway):
    content = model(200_000)
    with FileServer(content, cuts=[50_000] * 3) as server:
        done = gateway.run("apply", "-f", manifest(gateway, "cut", server.url(), content), "--wait")
        assert done.returncode == 0, done.stderr
        assert len(server.asked) == 4
    assert answer(gateway, "cut") == [2.0, 2.0]


def test_a_model_comes_from_an_object_store(gateway, s3):
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}", **keys)
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="double.onnx", Body=model())
    path = manifest(gateway, "object", "s3://models/double.onnx", model())
    done = gateway.run("apply", "-f", path, "--wait")
    assert done.returncode == 0, done.stderr
    assert answer(gateway, "object") == [2.0, 2.0]


def test_a_model_comes_from_a_registry(gateway, registry, tmp_path):
    import oras.client

    content = model(100)
    (tmp_path / "double.onnx").write_bytes(content)
    pushing, files = oras.client.OrasClient(insecure=True), [str(tmp_path / "double.onnx")]
    pushing.push(f"127.0.0.1:{registry}/models/double:1.0", files=files, disable_path_validation=True)
    uri = f"oci://127.0.0.1:{registry}/models/double:1.0"
    done = gateway.run("apply", "-f", manifest(gateway, "artifact", uri, content), "--wait")
    assert done.returncode == 0, done.stderr
    assert answer(gateway, "artifact") == [2.0, 2.0]


def test_what_is_refused_says_why(gateway):
    content = model(1000)  # of its own: what is in the store is not fetched, wherever it is said to be
    with FileServer(content) as server, FileServer(content) as elsewhere:
        path = manifest(gateway, "elsewhere", elsewhere.url(host="localhost"), content)
        done = gateway.run("apply", "-f", path, "--wait", "--timeout", "20")
        assert done.returncode == 1
        assert "localhost is not one of the hosts that fetch.hosts allows" in done.stderr
        assert elsewhere.asked == []
        uri = server.url("/m.onnx?key=secret").replace("//", "//user:secret@")
        done = gateway.run(
            "apply", "-f", manifest(gateway, "wrong", uri, content, checksum="0" * 64), "--wait", "--timeout", "20"
        )
        found = version_of(gateway, "wrong")
        assert (done.returncode, found["state"]) == (1, "failed")
        assert "checksum mismatch" in found["reason"]
        assert "secret" not in found["reason"] + done.stderr


def test_how_far_it_is_is_told_to_operators(gateway):
    content = model(400_000)

    def progress():
        answer = Control(gateway.control).call("GetDeployments", control.GetRequest(name="slow"))
        version = answer.deployments[0].versions[0]
        return version.progress if version.HasField("progress") and version.progress.done else None

    with FileServer(content, rate=100_000) as server:
        assert gateway.run("apply", "-f", manifest(gateway, "slow", server.url(), content)).returncode == 0
        said = wait_for(progress, 20, "a first figure")
        assert 0 < said.done <= said.total == len(content)
        assert gateway.run("delete", "slow").returncode == 0


def test_a_gateway_that_was_killed_goes_on_with_its_downloads_and_fetches_nothing_twice(folder):
    content = model(600_000)
    with FileServer(content, rate=200_000) as server:
        gateway = Gateway(folder).start()
        assert gateway.run("apply", "-f", manifest(gateway, "m", server.url(), content)).returncode == 0
        wait_for(lambda: server.sent > 150_000, 20, "a part of the file")
        gateway.process.kill()
        gateway.process.wait()
        server.rate = None
        with gateway:
            wait_for(lambda: version_of(gateway, "m").get("state") == "ready", 30, "the model")
            assert "range" in server.asked[-1][1]
            assert answer(gateway, "m") == [2.0, 2.0]
            asked = len(server.asked)
            path = manifest(gateway, "m", server.url("/other.onnx"), content, "2.0")
            assert gateway.run("apply", "-f", path, "--wait").returncode == 0
            assert len(server.asked) == asked


def test_a_download_that_hangs_does_not_keep_the_gateway_from_ending(folder):
    release = threading.Event()

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "300000")
        handler.end_headers()
        handler.wfile.write(bytes(1000))
        release.wait(60)

    with FileServer() as server:
        server.answer = stall
        gateway = Gateway(folder, {"fetch": {"timeoutSeconds": 60}}).start()
        gateway.run("apply", "-f", manifest(gateway, "m", server.url(), b""))
        wait_for(lambda: server.asked, 20, "the download's begin")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0
        gateway.process.stdout.close()
        release.set()
