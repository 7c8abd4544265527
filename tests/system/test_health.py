"""What operators and callers see of a target's health: crash loops, poison, heat, full queues, short memory."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from benchmarks.harness import manifest, poisonable, put, scaled, wait_for
from edgeway.client import BadRequest, Client, InferenceError

pytestmark = pytest.mark.system


def config(sim: dict, **more) -> dict:
    workers = [
        {"name": "sim", "backend": "simulated", "options": {"serviceMs": 2, **sim}},
        {"name": "cpu", "backend": "cpu", "instances": 1},
    ]
    return {"workers": workers, **more}


def deploy(gateway, folder: Path, targets="[sim, cpu]", latency="budgetMs: 200", more="", model=None) -> None:
    spec = f"targets: {targets}\nlatency: {{{latency}}}\n{more}"
    path = manifest(folder, "m", "1", (model or scaled(2.0)).SerializeToString(), spec, "simulated")
    gateway.deploy(path)
    wait_for(
        lambda: all(not t["reason"].startswith("loading") for t in gateway.get("targets", "m")),
        10,
        "the load on every target",
    )


def ask(client: Client, **options):
    return client.infer("m", {"x": np.ones(1, np.float32)}, **options)


def stock(gateway, values, priority=0, timeout=None, model="m"):
    """One request of a stock client, which doesn't ask again by itself; the status of its failure, or OK."""
    client = triton.InferenceServerClient(gateway.unix)
    tensor = triton.InferInput("x", list(values.shape), "INT32" if values.dtype == np.int32 else "FP32")
    tensor.set_data_from_numpy(values)
    try:
        client.infer(model, [tensor], priority=priority, timeout=timeout, client_timeout=20)
    except InferenceServerException as refused:
        return refused.status().removeprefix("StatusCode.")
    finally:
        client.close()
    return "OK"


def target(gateway, worker="sim"):
    return next(t for t in gateway.get("targets", "m") if t["worker"] == worker)


def test_a_worker_in_a_crash_loop_is_said_to_be_and_the_cpu_serves_meanwhile(folder, gateway_in):
    gateway = gateway_in(config({"faults": [{"at": 0, "crash": True, "seconds": 3600}]}))
    spec = "targets: [sim, cpu]\nlatency: {budgetMs: 500}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "simulated")
    gateway.deploy(path)
    with Client(gateway.unix) as client:
        served = [ask(client).served_by for _ in range(5)]
        wait_for(lambda: "crash loop" in gateway.worker("sim")["reason"], 30, "the crash loop")
        served += [ask(client).served_by for _ in range(5)]
    assert set(served) == {"cpu"}
    worker = gateway.worker("sim")
    assert worker["state"] == "lost"
    assert "next start in" in worker["reason"]
    assert [e for e in gateway.get("events") if e["kind"] == "worker-crash-loop"]
    assert target(gateway)["state"] == "lost"
    assert "crash loop" in target(gateway)["reason"]


def test_a_request_that_kills_its_worker_gets_one_more_try_where_it_harms_nobody(folder, gateway_in):
    gateway = gateway_in(config({}))
    deploy(gateway, folder, model=poisonable())
    wait_for(lambda: len(gateway.children()) >= 4, 10, "zygote and standby")
    poison, harmless = np.array([-1], np.int32), np.array([3], np.int32)
    pid = gateway.worker("cpu")["pid"]
    assert stock(gateway, harmless) == "OK"
    assert stock(gateway, poison) == "INTERNAL"
    wait_for(lambda: gateway.worker("sim")["pid"] and gateway.worker("sim")["state"] == "ready", 10, "the next process")
    assert {stock(gateway, poison) for _ in range(5)} == {"INTERNAL"}
    assert stock(gateway, harmless) == "OK"
    assert (gateway.worker("sim")["restarts"], gateway.worker("cpu")["restarts"]) == (1, 0)
    assert gateway.worker("cpu")["pid"] == pid


def test_a_request_whose_worker_was_killed_under_it_is_answered_by_a_disposable_one(folder, gateway_in):
    gateway = gateway_in(config({"faults": [{"afterRuns": 6, "crash": True}]}))
    deploy(gateway, folder)
    wait_for(lambda: len(gateway.children()) >= 4, 10, "zygote and standby")
    with Client(gateway.unix) as client:
        results = [ask(client) for _ in range(8)]
    lost = [result for result in results if result.reason == "lost"]
    assert lost
    assert {(result.served_by, result.kind) for result in lost} == {("cpu", "cpu")}
    assert all(result["y"].tolist() == [2.0] for result in results)


def test_what_waits_in_a_queue_when_its_budget_ends_is_refused_then_although_another_run_goes_on(folder, gateway_in):
    gateway = gateway_in(config({"serviceMs": 1000}, telemetry={"sampleRatio": 0}))
    deploy(gateway, folder, "[sim]", "budgetMs: 5000")
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(stock, gateway, np.ones(1, np.float32))
        wait_for(lambda: gateway.worker("sim")["inFlight"] == 1, 5, "the first run")
        began = time.monotonic()
        assert stock(gateway, np.ones(1, np.float32), timeout=100_000) == "DEADLINE_EXCEEDED"
        assert time.monotonic() - began > 0.09
        assert not first.done()
        assert first.result() == "OK"
    stats = triton.InferenceServerClient(gateway.unix).get_inference_statistics("m", as_json=True)["model_stats"][0]
    assert int(stats["execution_count"]) == 1


def test_a_higher_class_takes_the_place_of_a_waiting_lower_one(folder, gateway_in):
    gateway = gateway_in(config({"serviceMs": 1000}, limits={"maxInFlight": 2, "classPercent": {"low": 100}}))
    deploy(gateway, folder, "[sim]", "budgetMs: 15000")
    x = np.ones(1, np.float32)
    with ThreadPoolExecutor(4) as callers:
        running = callers.submit(stock, gateway, x, 9)
        wait_for(lambda: gateway.worker("sim")["inFlight"] == 1, 5, "the first run")
        waiting = callers.submit(stock, gateway, x, 9)
        wait_for(lambda: gateway.worker("sim")["inFlight"] == 2, 5, "the second in the queue")
        assert stock(gateway, x, 8) == "RESOURCE_EXHAUSTED"
        high = callers.submit(stock, gateway, x, 1)
        assert waiting.result() == "RESOURCE_EXHAUSTED"
        assert (running.result(), high.result()) == ("OK", "OK")


def test_a_newer_frame_of_a_stream_takes_the_place_of_the_one_that_waits(folder, gateway_in):
    gateway = gateway_in(config({"serviceMs": 1200}))
    deploy(gateway, folder, "[sim]", "budgetMs: 15000")

    def frame() -> str:
        with Client(gateway.unix, deadline_ms=15_000) as client:
            try:
                return ask(client, stream_key="front").served_by
            except InferenceError as ended:
                return f"{ended.code.name}: {ended}"

    with ThreadPoolExecutor(3) as callers:
        running = callers.submit(frame)
        wait_for(lambda: gateway.worker("sim")["inFlight"] == 1, 5, "the first frame's run")
        waiting = callers.submit(frame)
        wait_for(lambda: gateway.worker("sim")["inFlight"] == 2, 5, "the second in the queue")
        with pytest.raises(BadRequest), Client(gateway.unix) as client:
            client.infer("m", {"x": np.ones(1, np.float64)}, stream_key="front")  # refused, so it supersedes nobody
        assert gateway.worker("sim")["inFlight"] == 2
        assert not waiting.done()
        newest = callers.submit(frame)
        assert waiting.result().startswith("ABORTED: superseded")
        assert (running.result(), newest.result()) == ("sim", "sim")


def zone(root: Path, celsius: float) -> None:
    """A thermal zone as the kernel has it."""
    folder = root / "class" / "thermal" / "thermal_zone0"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("type", "sim-thermal"), ("mode", "enabled"), ("temp", f"{round(celsius * 1000)}")):
        whole = folder / f".{name}"
        whole.write_text(text + "\n")
        whole.rename(folder / name)


def test_priorities_leave_a_warming_accelerator_in_order_and_high_ones_last(folder, gateway_in):
    root = folder / "sys"
    zone(root, 50)
    heat = {"sysfsRoot": str(root), "dwellSeconds": 0.2, "intervalSeconds": 0.1, "forecastSeconds": 0}
    gateway = gateway_in(config({}, heat=heat))
    deploy(gateway, folder)

    def servers() -> list[str]:
        with Client(gateway.unix) as client:
            return [ask(client, priority=priority).served_by for priority in (1, 5, 9)]

    assert servers() == ["sim", "sim", "sim"]
    for celsius, expected in ((67, ["sim", "sim", "cpu"]), (77, ["sim", "cpu", "cpu"]), (87, ["cpu", "cpu", "cpu"])):
        zone(root, celsius)
        wait_for(lambda expected=expected: servers() == expected, 15, f"the order at {celsius} degrees")
    worker = gateway.worker("sim")
    assert (worker["state"], worker["band"]) == ("hot", "critical")
    with Client(gateway.unix) as client:
        assert (ask(client).reason, ask(client, degrade="never").served_by) == ("hot", "sim")
    zone(root, 50)
    wait_for(lambda: servers() == ["sim", "sim", "sim"], 20, "the return")


def test_a_deployment_that_may_not_degrade_is_not_serving_without_its_first_target(folder, gateway_in):
    gateway = gateway_in(config({"faults": [{"at": 0, "vanish": True}]}))
    deploy(gateway, folder, latency="budgetMs: 200, degrade: never")
    with grpc.insecure_channel(gateway.unix) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        lost = health_pb2.HealthCheckResponse.NOT_SERVING
        wait_for(lambda: stub.Check(health_pb2.HealthCheckRequest(service="m")).status == lost, 10, "NOT_SERVING")
    assert not triton.InferenceServerClient(gateway.unix).is_model_ready("m")
    assert stock(gateway, np.ones(1, np.float32)) == "UNAVAILABLE"


def test_a_version_that_needs_more_memory_than_there_is_fails_with_the_reason(folder, gateway_in):
    gateway = gateway_in(config({}))
    needs = "cpu, minMemoryMB: 90000000"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), "targets: [cpu]", needs)
    done = gateway.run("apply", "-f", path, "--wait")
    assert done.returncode == 1
    assert "90000000 MB" in done.stderr
    assert "available" in done.stderr


def test_a_load_that_never_ends_costs_the_process_and_nobody_else(folder, gateway_in):
    device = config({"faults": [{"at": 0, "hang": True, "seconds": 3600}]})
    device["workers"][0]["loadSeconds"] = 3
    put(folder / "models", "m", scaled(2.0))
    gateway = gateway_in(device, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client:
        wait_for(lambda: gateway.get("targets", "m"), 10, "the deployment")
        wait_for(lambda: target(gateway, "cpu")["state"] == "ready", 20, "the CPU's load")
        assert ask(client).served_by == "cpu"
        wait_for(
            lambda: re.fullmatch("loading: warming up, [0-9]+ s", target(gateway, "sim")["reason"]), 20, "its progress"
        )
        wait_for(lambda: any("hung: a load" in e["message"] for e in gateway.get("events")), 20, "the end of the load")
        assert ask(client).served_by == "cpu"
