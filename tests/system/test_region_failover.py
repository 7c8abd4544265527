"""Regions when workers fail: another attempt answers right, and only one of them writes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import Gateway, manifest, poisonable, put, scaled, slow_for, wait_for
from benchmarks.rig import in_flight
from edgeway.client import Client, InferenceError

pytestmark = pytest.mark.system
MB = 1 << 20
N = 100_000
"""Elements: enough to be viewed where they lie."""


def config(**options) -> dict:
    return {
        "workers": [
            {"name": "sim", "backend": "simulated", "options": {"serviceMs": 2, **options}},
            {"name": "cpu", "backend": "cpu"},
        ]
    }


def deploy(gateway: Gateway, folder: Path, budget_ms: int = 400) -> None:
    spec = f"targets: [sim, cpu]\nlatency: {{budgetMs: {budget_ms}}}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "simulated")
    gateway.deploy(path)
    wait_for(
        lambda: all(not t["reason"].startswith("loading") for t in gateway.get("targets", "m")),
        10,
        "the load on every target",
    )


@pytest.mark.parametrize("fault", ["crash", "hang", "error"])
def test_the_next_target_reads_the_region_again_and_answers(folder, gateway_in, fault):
    gateway = gateway_in(config(faults=[{"afterRuns": 8, fault: True}]))
    deploy(gateway, folder)
    with Client(gateway.unix) as client, client.region(MB) as region:
        frame, out = region.array(N), region.array(N)
        degraded = 0
        for number in range(24):
            frame[:] = number
            out[:] = -1
            result = client.infer("m", {"x": frame}, into={"y": out})
            assert (out == 2 * number).all()
            degraded += result.degraded
        assert degraded


def test_a_late_loser_does_not_write_once_the_client_has_its_answer(folder, gateway_in):
    gateway = gateway_in(config(faults=[{"afterRuns": 8, "slow": 200, "seconds": 1.0}]))  # runs of 400 ms
    deploy(gateway, folder)
    with Client(gateway.unix) as client, client.region(MB) as region:
        frame, out = region.array(N), region.array(N)
        late = 0
        for number in range(12):
            frame[:] = number
            result = client.infer("m", {"x": frame}, into={"y": out})
            assert (out == 2 * number).all()
            if result.served_by == "cpu" and result.reason == "slow":
                late += 1
                out[:] = -7  # the client uses its memory for something else
                wait_for(lambda: not in_flight(gateway, "sim"), 5, "the end of the late run")
                assert (out == -7).all()
        assert late


def test_nobody_writes_for_a_client_that_has_given_up(folder, gateway_in):
    put(folder / "models", "slow", slow_for(0.4))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client, client.region(MB) as region:
        frame, out = region.array(1), region.array(1)
        out[:] = -7
        with pytest.raises(InferenceError):
            client.infer("slow", {"x": frame}, into={"y": out}, budget_ms=60)
        wait_for(lambda: not in_flight(gateway), 10, "the end of the run")
        assert out.tolist() == [-7]
        frame[:] = 3
        assert client.infer("slow", {"x": frame}, into={"y": out}, budget_ms=5000)["y"].tolist() == [3] == out.tolist()


def test_a_worker_that_is_killed_in_the_middle_of_a_run_is_made_up_for(folder, gateway_in):
    put(folder / "models", "slow", slow_for(0.5))
    put(folder / "models", "double", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client, client.region(4 * MB) as region, ThreadPoolExecutor(1) as pool:
        frame, out = region.array(1), region.array(1)
        frame[:] = 5
        killed = gateway.worker()["pid"]
        running = pool.submit(client.infer, "slow", {"x": frame}, into={"y": out}, budget_ms=8000)
        wait_for(lambda: in_flight(gateway), 5, "the run")
        os.kill(killed, signal.SIGKILL)
        assert running.result(10)["y"].tolist() == [5] == out.tolist()
        wait_for(lambda: gateway.worker()["pid"] not in (0, killed), 10, "another process")
        big, double = region.array(N), region.array(N)
        for number in range(5):  # the new process gets the region as well
            big[:] = number
            client.infer("double", {"x": big}, into={"y": double}, budget_ms=5000)
            assert (double == 2 * number).all()


def test_a_poisonous_input_in_a_region_is_quarantined_and_its_neighbours_are_not(folder, gateway_in):
    put(folder / "models", "m", poisonable())
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=8000) as client, client.region(MB) as region:
        frame = region.array(N + 3, np.int32)  # the last ones are no full vector: only these trap
        frame[:] = 1
        assert client.infer("m", {"x": frame})["y"].shape == (N + 3,)
        frame[-1] = -1
        with pytest.raises(InferenceError):
            client.infer("m", {"x": frame})
        deaths = len([e for e in gateway.get("events") if e["kind"] == "worker-died"])
        for _ in range(3):
            with pytest.raises(InferenceError, match="refused for a while"):
                client.infer("m", {"x": frame})
            with pytest.raises(InferenceError, match="refused for a while"):  # the same in the message
                client.infer("m", {"x": frame.copy()})
        frame[-1] = 1
        wait_for(lambda: gateway.worker()["state"] == "ready", 10, "another process")
        assert client.infer("m", {"x": frame})["y"].shape == (N + 3,)
        assert len([e for e in gateway.get("events") if e["kind"] == "worker-died"]) == deaths
