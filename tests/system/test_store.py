"""The store under a running gateway: what is served is what was verified, and files go with their versions."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.admin import Admin
from benchmarks.harness import manifest, scaled, wait_for
from edgeway.client import Client, InferenceError
from edgeway.v1 import control_pb2 as control

pytestmark = pytest.mark.system


@pytest.fixture
def gateway(folder, gateway_in):
    return gateway_in({"workers": [{"name": "cpu", "backend": "cpu"}], "store": {"reserveMB": 0}})


@pytest.fixture
def admin(gateway):
    with Admin(gateway.control) as made:
        yield made


def install(admin: Admin, folder: Path, version: str, factor: float, more: str = "") -> None:
    admin.apply(manifest(folder, "m", version, scaled(factor).SerializeToString(), more))
    assert admin.outcome("m", version, 20).state == "ready"


def stored(folder: Path) -> list[Path]:
    return list((folder / "state" / "models").glob("*.onnx"))


def worker_pid(admin: Admin) -> int:
    return int(admin.call("GetAccelerators", control.GetRequest()).accelerators[0].pid)


def test_a_stored_file_that_was_changed_is_never_served_and_the_reason_is_its_checksum(folder, gateway, admin):
    install(admin, folder, "1", 2.0)
    (file,) = stored(folder)
    content = bytearray(file.read_bytes())
    other = scaled(3.0).SerializeToString()
    assert len(other) == len(content)
    before = file.stat()
    file.chmod(0o600)
    file.write_bytes(other)  # a model that loads, and answers otherwise
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with Client(gateway.unix, deadline_ms=5000) as client:
        assert client.infer("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]  # it was loaded before
        os.kill(worker_pid(admin), signal.SIGKILL)

        def refused() -> str:
            targets = admin.call("GetTargets", control.GetRequest(name="m")).targets
            return next((t.reason for t in targets if "checksum mismatch" in t.reason), "")

        wait_for(refused, 20, "the refusal of the changed file")
        with pytest.raises(InferenceError):
            client.infer("m", {"x": np.ones(1, np.float32)})


def test_a_changed_file_is_fetched_again_at_the_next_start(folder, gateway, admin):
    install(admin, folder, "1", 2.0)
    (file,) = stored(folder)
    assert gateway.stop() == 0
    file.chmod(0o600)
    file.write_bytes(scaled(3.0).SerializeToString())
    gateway.start()
    with Client(gateway.unix, deadline_ms=5000) as client:
        assert client.infer("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]


def test_a_version_comes_up_again_without_its_source(folder, gateway, admin):
    install(admin, folder, "1", 2.0)
    (folder / "m-1.onnx").unlink()
    assert gateway.stop() == 0
    gateway.start()
    with Client(gateway.unix, deadline_ms=5000) as client:
        assert client.infer("m", {"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]


def test_the_file_of_a_deleted_version_goes_and_those_of_others_stay(folder, gateway, admin):
    install(admin, folder, "1", 2.0)
    first = stored(folder)
    install(admin, folder, "2", 3.0)
    admin.call("Delete", control.DeleteRequest(name="m", version="2"))
    wait_for(lambda: stored(folder) == first, 10, "the end of the file")


def test_a_store_that_is_full_refuses_the_next_version_and_says_who_has_the_room(folder, gateway_in):
    gateway = gateway_in({"workers": [{"name": "cpu", "backend": "cpu"}], "store": {"maxMB": 1, "reserveMB": 0}})
    with Admin(gateway.control) as admin:
        install(admin, folder, "1", 2.0)
        model = scaled(3.0)
        model.doc_string = "x" * (1 << 20)
        admin.apply(manifest(folder, "m", "2", model.SerializeToString()))
        status = admin.outcome("m", "2", 20)
        assert status.state == "failed"
        assert "no room for m-2.onnx: 1.0 MB needed" in status.reason
        assert "store.maxMB is 1" in status.reason
        assert "held by m 1 0.0 MB" in status.reason
        assert admin.versions("m")["1"].percent == 100
