"""Processes: limits, stops, zombies, and what systemd hears."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from benchmarks.harness import manifest, model_of, put, scaled, slow, value, wait_for
from edgeway.client import Client, InferenceError, Late

pytestmark = pytest.mark.system
ONE = {"x": np.ones(1, np.float32)}


def greedy():
    """y = sum of as many ones as ``shape`` says: its memory is up to the caller."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["y"], keepdims=1),
    ]
    inputs = [value("x", TensorProto.FLOAT, [1]), value("shape", TensorProto.INT64, [1])]
    return model_of(nodes, inputs, [value("y", TensorProto.FLOAT, [1])])


def test_a_run_beyond_the_memory_limit_fails_and_harms_nobody(folder, gateway_in):
    put(folder / "models", "greedy", greedy())
    workers = [{"name": "cpu", "backend": "cpu", "memoryLimitMB": 512}]
    gateway = gateway_in({"workers": workers}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=10_000) as client:

        def total(count: int) -> float:
            shape = np.array([count], np.int64)
            return float(client.infer("greedy", {"x": np.ones(1, np.float32), "shape": shape})["y"][0])

        pid = gateway.worker()["pid"]
        assert total(1000) == 1000
        with pytest.raises(InferenceError) as refused:
            total(4_000_000_000)
        assert refused.value.code.name == "INTERNAL"
        assert total(2000) == 2000
    assert gateway.worker()["pid"] == pid


def test_a_stopped_worker_costs_one_budget_and_then_the_other_serves(folder, gateway_in):
    workers = [{"name": "sim", "backend": "simulated"}, {"name": "cpu", "backend": "cpu"}]
    gateway = gateway_in({"workers": workers, "budget": {"defaultMs": 200}})
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), accelerator="simulated")
    gateway.deploy(path)
    wait_for(lambda: all(t["state"] == "ready" for t in gateway.get("targets", "m")), 5, "both targets")
    pid = gateway.worker("sim")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with Client(gateway.unix) as client:
            results = [client.infer("m", ONE) for _ in range(10)]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {result.served_by for result in results} == {"cpu"}
    assert all(result.budget_left_ms > 0 for result in results)
    assert sum(result.total_ms > 50 for result in results) <= 2


def test_a_run_that_was_to_be_short_and_drags_on_holds_up_nobody(folder, gateway_in):
    put(folder / "models", "fickle", slow(None))
    put(folder / "models", "cheap", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))

    def fickle(client: Client, trips: int, budget_ms: float) -> float:
        result = client.infer("fickle", {**ONE, "trips": np.array(trips, np.int64)}, budget_ms=budget_ms)
        return result.compute_ms

    with Client(gateway.unix) as client:
        per_trip = fickle(client, 400, 5000) / 400
        for _ in range(60):
            fickle(client, 0, 500)  # now it is known as quick
        trips = int(3000 / per_trip)

        def give_up() -> None:
            with pytest.raises(Late):
                fickle(client, trips, 1500)

        given_up = threading.Thread(target=give_up)
        given_up.start()
        wait_for(lambda: gateway.worker()["inFlight"] == 1, 5, "the long run")
        waits = [client.infer("cheap", ONE).wall_ms for _ in range(20)]
        assert max(waits) < 500
        given_up.join()
        wait_for(lambda: fickle(client, 0, 500) < 500, 2, "the end of the run that nobody waits for")


def test_no_zombie_is_left_by_workers_that_die(folder, gateway_in):
    put(folder / "models", "m", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    for _ in range(3):
        pid = gateway.worker()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda dead=pid: gateway.worker()["pid"] not in (0, None, dead), 5, "the next process")
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in gateway.children()]
    assert states
    assert "Z" not in states
    assert gateway.worker()["restarts"] == 3


def test_systemd_hears_ready_watchdog_and_stopping(folder, gateway_in):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(10)
        gateway = gateway_in({}, NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="200000")
        said = [notify.recv(1000).decode() for _ in range(4)]
        assert any("READY=1" in line for line in said)
        assert any("WATCHDOG=1" in line for line in said)
        gateway.stop()
        end = time.monotonic() + 5
        while "STOPPING=1" not in (line := notify.recv(1000).decode()):
            assert time.monotonic() < end, line


def test_a_state_directory_that_cannot_be_written_is_told_at_start(folder, gateway_in):
    (folder / "state").write_text("a file where a folder should be")
    with pytest.raises(RuntimeError, match="state"):
        gateway_in()


@pytest.mark.parametrize("what", ["deployments", "targets", "accelerators", "events"])
def test_the_command_says_what_the_tests_take_from_the_gateway_without_it(serving, what):
    said = serving.run("get", what, "-o", "json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == serving.get(what) != []
    (name, *_) = (row[key] for row in serving.get(what) for key in ("name", "deployment", "worker") if row.get(key))
    assert json.loads(serving.run("get", what, name, "-o", "json").stdout) == serving.get(what, name) != []
