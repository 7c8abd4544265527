"""Requests that share a run of the model, through the gateway."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import identity, manifest, poisonable, scaled, wait_for
from edgeway.client import Client, InferenceError

pytestmark = pytest.mark.system


def test_batching_joins_requests_that_come_together_and_none_is_answered_with_anothers(folder, gateway_in):
    sim = {"name": "sim", "backend": "simulated", "options": {"serviceMs": 200}}
    gateway = gateway_in({"workers": [sim], "budget": {"defaultMs": 20000}})
    spec = "targets: [sim]\nbatching: {maxSize: 8, maxDelayMs: 500}"
    path = manifest(folder, "m", "1", scaled(3.0).SerializeToString(), spec)
    gateway.deploy(path)
    with Client(gateway.unix) as client, ThreadPoolExecutor(8) as callers:

        def ask(number: int) -> float:
            return float(client.infer("m", {"x": np.full(1, number, np.float32)}, budget_ms=20000)["y"][0])

        began = time.monotonic()
        got = list(callers.map(ask, range(16)))
        took = time.monotonic() - began
    assert got == [3.0 * number for number in range(16)]
    assert took < 16 * 0.2 / 2  # one after the other would take 3.2 s


def test_a_model_that_can_not_batch_is_refused_with_the_reason_and_taken_without(folder, gateway_in):
    gateway = gateway_in()
    content = identity(shape=(1, 4)).SerializeToString()
    path = manifest(folder, "m", "1", content, "batching: {maxSize: 8}", "cpu")
    refused = gateway.run("apply", "-f", path, "--wait")
    assert refused.returncode == 1
    assert "batching: input x has the fixed size 1" in refused.stderr
    (version,) = gateway.get("deployments", "m")[0]["versions"]
    assert "batching" in version["reason"]
    gateway.deploy(manifest(folder, "m", "1", content, "", "cpu"))
    text = Path(path).read_text() + "  batching: {maxSize: 0}\n"
    Path(path).write_text(text)
    wrong = gateway.run("validate", "-f", path)
    assert "batching.maxSize" in wrong.stderr


def test_a_lone_request_that_waits_for_others_is_neither_hung_nor_late(folder, gateway_in):
    sim = {"name": "sim", "backend": "simulated", "hangSeconds": 0.2, "options": {"serviceMs": 5}}
    gateway = gateway_in({"workers": [sim, {"name": "cpu", "backend": "cpu"}]})
    spec = "targets: [sim, cpu]\nbatching: {maxSize: 8, maxDelayMs: 1000}"
    path = manifest(folder, "m", "1", scaled(3.0).SerializeToString(), spec)
    gateway.deploy(path)
    with Client(gateway.unix) as client:
        for _ in range(3):
            patient = client.infer("m", {"x": np.ones(1, np.float32)}, budget_ms=10000)
            hasty = client.infer("m", {"x": np.ones(1, np.float32)}, budget_ms=500)
            assert (patient.served_by, hasty.served_by) == ("sim", "sim")
            assert patient.queue_ms > hasty.queue_ms
            assert hasty.budget_left_ms > 0
    assert gateway.worker("sim")["restarts"] == 0


def test_a_request_that_kills_its_worker_takes_none_of_those_with_it_that_shared_its_run(folder, gateway_in):
    gateway = gateway_in({"budget": {"defaultMs": 20000}})
    path = manifest(
        folder, "m", "1", poisonable().SerializeToString(), "batching: {maxSize: 3, maxDelayMs: 1000}", "cpu"
    )
    gateway.deploy(path)
    wait_for(lambda: len(gateway.children()) >= 3, 10, "zygote and standby")
    with Client(gateway.unix) as client, ThreadPoolExecutor(8) as callers:

        def ask(number: int) -> int | str:
            try:
                return int(client.infer("m", {"x": np.full(1, number, np.int32)}, budget_ms=20000)["y"][0])
            except InferenceError as refused:
                return type(refused).__name__

        got = list(callers.map(ask, [1, -1, 2]))  # of four or more at once the processor divides without a fault
    assert [got[0], got[2]] == [int(-(2**31) / 3), int(-(2**31) / 5)]
    assert isinstance(got[1], str)
    assert gateway.worker("cpu")["restarts"] == 1
