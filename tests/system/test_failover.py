"""What callers see when an accelerator is busy, hot, failing, hung or gone."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import Gateway, manifest, scaled, scratch, slow_for, wait_for
from edgeway.client import Client, InferenceError, Late, Unavailable

pytestmark = pytest.mark.system


def config(**options) -> dict:
    return {
        "workers": [
            {"name": "sim", "backend": "simulated", "options": {"serviceMs": 2, **options}},
            {"name": "cpu", "backend": "cpu"},
        ]
    }


def deploy(gateway, folder: Path, targets="[sim, cpu]", more="", model=None, name="m") -> None:
    spec = f"targets: {targets}\nlatency: {{budgetMs: 200{more}}}"
    path = manifest(folder, name, "1", (model or scaled(2.0)).SerializeToString(), spec, "simulated")
    gateway.deploy(path)
    wait_for(
        lambda: all(not t["reason"].startswith("loading") for t in gateway.get("targets", name)),
        10,
        "the load on every target",
    )


def ask(client: Client, model="m", **options):
    return client.infer(model, {"x": np.ones(1, np.float32)}, **options)


def test_a_healthy_accelerator_serves_undegraded(folder, gateway_in):
    gateway = gateway_in(config())
    deploy(gateway, folder)
    with Client(gateway.unix) as client:
        result = ask(client)
    assert (result.served_by, result.accelerator, result.kind) == ("sim", "simulated", "simulated")
    assert (result.degraded, result.reason) == (False, "")
    assert result.compute_ms >= 2
    assert 0 < result.budget_left_ms < 200


TROUBLES = {
    "queue": ({"queue": [{"at": 0, "backlogMs": 500}]}, "busy"),
    "heat": ({"heat": {"points": [[0, 80]]}}, "hot"),
    "error": ({"faults": [{"at": 0, "error": True}]}, "failed"),
    "vanish": ({"faults": [{"at": 0, "vanish": True}]}, "lost"),
    "hang": ({"faults": [{"afterRuns": 5, "hang": True}]}, "slow"),
    "crash": ({"faults": [{"afterRuns": 5, "crash": True}]}, "lost"),
}
"""Options of an accelerator that has it, and what answers say then."""


@pytest.fixture(scope="module")
def troubled():
    """A gateway with an accelerator for each trouble: a process of its own, and a model that no other one has."""
    accelerators = [{**config(**options)["workers"][0], "name": trouble} for trouble, (options, _) in TROUBLES.items()]
    with scratch() as folder, Gateway(folder, {"workers": [*accelerators, {"name": "cpu", "backend": "cpu"}]}) as made:
        yield made


@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_cpu_serves_instead_and_the_answer_says_why(troubled, trouble):
    reason = TROUBLES[trouble][1]
    deploy(troubled, troubled.folder, f"[{trouble}, cpu]", name=trouble)
    with Client(troubled.unix) as client:
        results = [ask(client, trouble) for _ in range(8)]
    fallen = [result for result in results if result.degraded]
    assert fallen, results
    assert {(result.served_by, result.reason) for result in fallen} <= {("cpu", reason), ("cpu", "lost")}
    assert reason in {result.reason for result in fallen}
    assert all(result["y"].tolist() == [2.0] for result in results)
    assert all(result.budget_left_ms > 0 for result in results)


def test_degrade_never_forbids_the_cpu(folder, gateway_in):
    gateway = gateway_in(config(faults=[{"at": 0, "vanish": True}]))
    deploy(gateway, folder)
    with Client(gateway.unix) as client:
        with pytest.raises(Unavailable, match="sim"):
            ask(client, degrade="never", budget_ms=100)
        assert ask(client).served_by == "cpu"


def test_a_hung_accelerator_with_no_other_target_ends_with_the_budget(folder, gateway_in):
    gateway = gateway_in(config(faults=[{"afterRuns": 6, "hang": True}]))
    deploy(gateway, folder, targets="[sim]")
    with Client(gateway.unix) as client:
        began = time.monotonic()
        with pytest.raises(InferenceError) as caught:
            ask(client, budget_ms=150)
            ask(client, budget_ms=150)
    assert isinstance(caught.value, Late | Unavailable)
    assert time.monotonic() - began < 1.0


def test_a_wrong_output_is_visible_to_whoever_compares(folder, gateway_in):
    gateway = gateway_in(config(faults=[{"at": 0, "wrong": True}]))
    deploy(gateway, folder)
    with Client(gateway.unix) as client:
        assert ask(client)["y"].tolist() != [2.0]


def test_reject_infeasible_refuses_at_once_and_names_the_least_budget(folder, gateway_in):
    gateway = gateway_in({"workers": [{"name": "cpu", "backend": "cpu"}]})
    deploy(gateway, folder, targets="[cpu]", more=", whenInfeasible: reject", model=slow_for(0.1))
    with Client(gateway.unix) as client:
        began = time.monotonic()
        with pytest.raises(Late) as caught:
            ask(client, budget_ms=20)
    assert time.monotonic() - began < 0.1
    assert caught.value.min_budget_ms > 20


def test_the_restarted_accelerator_serves_again(folder, gateway_in):
    gateway = gateway_in(config(faults=[{"afterRuns": 6, "crash": True}]))
    deploy(gateway, folder)
    with Client(gateway.unix) as client:
        served = [ask(client).served_by for _ in range(6)]
        assert "cpu" in served
        wait_for(lambda: gateway.worker("sim")["restarts"] == 1, 5, "the restart")
        wait_for(lambda: ask(client).served_by == "sim", 5, "the accelerator's return")


def test_a_worker_that_cannot_start_is_lost_with_its_reason(folder, gateway_in):
    workers = [{"name": "sim", "backend": "simulated", "options": {"speed": 9}}, {"name": "cpu", "backend": "cpu"}]
    gateway = gateway_in({"workers": workers})
    deploy(gateway, folder)
    worker = gateway.worker("sim")
    assert worker["state"] == "lost"
    assert "options.speed" in worker["reason"]
    with Client(gateway.unix) as client:
        assert ask(client).served_by == "cpu"
