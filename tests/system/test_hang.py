"""A hung accelerator: the CPU answers in time, and the worker is replaced without an operator."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from benchmarks.harness import manifest, scaled, wait_for
from edgeway.client import Client

pytestmark = pytest.mark.system


def deployed(gateway, folder, targets="[sim, cpu]", budget_ms=200):
    spec = f"targets: {targets}\nlatency: {{budgetMs: {budget_ms}}}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "simulated")
    gateway.deploy(path)
    wait_for(lambda: all(t["state"] == "ready" for t in gateway.get("targets", "m")), 10, "all targets")


def workers(hang_seconds, **options):
    sim = {"name": "sim", "backend": "simulated", "hangSeconds": hang_seconds, "options": {"serviceMs": 2, **options}}
    return {"workers": [sim, {"name": "cpu", "backend": "cpu"}]}


def ask(client, **options):
    return client.infer("m", {"x": np.ones(1, np.float32)}, **options)


def test_a_stopped_worker_is_killed_and_replaced_while_the_cpu_answers(folder, gateway_in):
    gateway = gateway_in(workers(0.5))
    deployed(gateway, folder)
    stopped = gateway.worker("sim")["pid"]
    with Client(gateway.unix) as client:
        assert ask(client).served_by == "sim"
        os.kill(stopped, signal.SIGSTOP)
        first = ask(client)
        assert (first.served_by, first.reason) == ("cpu", "slow")
        assert first.budget_left_ms > 0
        wait_for(lambda: gateway.worker("sim")["pid"] not in (0, stopped), 10, "another process")
        wait_for(lambda: ask(client).served_by == "sim", 10, "the accelerator's return")
    assert gateway.worker("sim")["restarts"] == 1
    assert any("hung" in event["message"] for event in gateway.get("events") if event["kind"] == "worker-died")


def test_a_run_that_never_ends_is_found_although_its_caller_still_waits(folder, gateway_in):
    gateway = gateway_in(workers(0.5, faults=[{"afterRuns": 6, "hang": True}]))
    deployed(gateway, folder, "[sim]")
    client = triton.InferenceServerClient(gateway.unix)  # it doesn't ask again by itself
    tensor = triton.InferInput("x", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    with pytest.raises(InferenceServerException, match="hung") as refused:
        for _ in range(12):
            client.infer("m", [tensor], client_timeout=20)
    assert refused.value.status() == "StatusCode.UNAVAILABLE"


def test_a_long_queue_behind_a_worker_that_makes_progress_is_no_hang(folder, gateway_in):
    gateway = gateway_in(workers(0.3, serviceMs=100))
    deployed(gateway, folder, "[sim]", 5000)
    with Client(gateway.unix) as client, ThreadPoolExecutor(10) as callers:
        answers = callers.map(lambda _: ask(client), range(10))
        assert {answer.served_by for answer in answers} == {"sim"}
    assert gateway.worker("sim")["restarts"] == 0


def test_an_answer_after_its_time_still_wins_over_a_target_that_is_later(folder, gateway_in):
    """The accelerator's run stops for 150 ms; the other target, started beside it after 100 ms, takes 300 ms."""
    config = workers(5.0, faults=[{"afterRuns": 8, "hang": True, "seconds": 0.15}])
    config["workers"][1] = {"name": "slow", "backend": "simulated", "options": {"serviceMs": 300}}
    gateway = gateway_in(config)
    deployed(gateway, folder, "[sim, slow]")
    with Client(gateway.unix) as client:
        results = [ask(client) for _ in range(12)]
    assert {(result.served_by, result.degraded) for result in results} == {("sim", False)}
    assert max(result.total_ms for result in results) > 100
    assert min(result.budget_left_ms for result in results) > 0


def test_two_hung_accelerators_still_leave_the_cpu_its_time(folder, gateway_in):
    config = workers(30.0)
    config["workers"].insert(1, {**workers(30.0)["workers"][0], "name": "other"})
    gateway = gateway_in(config)
    deployed(gateway, folder, "[sim, other, cpu]", 400)
    for name in ("sim", "other"):
        os.kill(gateway.worker(name)["pid"], signal.SIGSTOP)
    with Client(gateway.unix) as client:
        result = ask(client)
    assert (result.served_by, result.reason) == ("cpu", "slow")
    assert result.budget_left_ms > 0
