"""Promotion, roll-back and shares by command, and what survives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import manifest, raising, scaled, wait_for
from edgeway.client import Client, InferenceError

pytestmark = pytest.mark.system


def apply(gateway, folder: Path, version: str, factor: float, more: str = "") -> None:
    done = gateway.run(
        "apply", "-f", manifest(folder, "m", version, scaled(factor).SerializeToString(), more), "--wait"
    )
    assert done.returncode == 0, done.stderr


def served(gateway, count: int = 1) -> list[str]:
    with Client(gateway.unix) as client:
        return [client.infer("m", {"x": np.ones(1, np.float32)}).version for _ in range(count)]


def states(gateway) -> dict[str, tuple[str, int]]:
    return {v["version"]: (v["state"], v["percent"]) for v in gateway.get("deployments", "m")[0]["versions"]}


def test_promote_rollback_and_traffic_steer_a_deployment_and_survive_a_restart(folder, gateway_in):
    gateway = gateway_in()
    apply(gateway, folder, "1", 2.0)
    apply(gateway, folder, "2", 3.0, "traffic: {percent: 10}")
    assert gateway.run("traffic", "m", "2=30").stdout == "m: 2 30 %, 1 70 %\n"
    assert served(gateway, 100).count("2") == 30
    assert gateway.run("promote", "m", "2").stdout == "m 2: promoted\n"
    assert served(gateway) == ["2"]
    assert gateway.stop() == 0
    again = gateway_in()
    assert served(again) == ["2"]
    back = again.run("rollback", "m")
    assert (back.returncode, back.stdout) == (0, "m: 2 rolled back, 1 serves\n")
    assert (served(again), states(again)) == (["1"], {"1": ("ready", 100), "2": ("rolledBack", 0)})
    nowhere = again.run("rollback", "m")
    assert (nowhere.returncode, "no version before 1" in nowhere.stderr) == (1, True)
    kinds = [event["kind"] for event in again.get("events", "m")]
    assert (kinds.count("promoted"), kinds.count("rolled-back"), kinds.count("traffic")) == (1, 1, 1)
    again.process.kill()
    again.process.wait()
    once_more = gateway_in()
    assert (served(once_more), states(once_more)["2"][0]) == (["1"], "rolledBack")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["promote", "m", "9"], 1, "no version is called '9'; known: 1"),
        (["promote", "nothing", "1"], 1, "no deployment is called 'nothing'"),
        (["rollback", "m", "--to", "9"], 1, "no version is called '9'"),
        (["rollback", "m", "--to", "1"], 1, "version 1 is the current one already"),
        (["traffic", "m", "9=10"], 1, "no version is called '9'"),
        (["traffic", "m", "1=101"], 2, "a percent from 0 to 100"),
        (["traffic", "m", "1"], 2, "VERSION=PERCENT"),
    ],
)
def test_commands_that_cannot_be_done_say_why(folder, gateway_in, command, code, said):
    gateway = gateway_in()
    apply(gateway, folder, "1", 2.0)
    refused = gateway.run(*command)
    assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    assert served(gateway) == ["1"]


AUTO = 'rollback: {previousVersion: "1", autoRollbackOnError: true, errorThreshold: 5}'


def asked(client: Client) -> str:
    """The version that answered, or that it failed."""
    try:
        return client.infer("m", {"x": np.ones(1, np.float32)}).version
    except InferenceError as failed:
        assert failed.code.name == "INTERNAL"
        return "failed"


def rolled_back(gateway) -> list[dict]:
    return [event for event in gateway.get("events", "m") if event["kind"] == "rolled-back"]


def test_the_fifth_failed_request_rolls_back_and_the_sixth_is_served_by_the_version_before(folder, gateway_in):
    gateway = gateway_in()
    apply(gateway, folder, "1", 2.0)
    bad = manifest(folder, "m", "2", raising().SerializeToString(), AUTO)
    assert gateway.run("apply", "-f", bad, "--wait").returncode == 0
    with Client(gateway.unix) as client:
        assert [asked(client) for _ in range(8)] == ["failed"] * 5 + ["1"] * 3
    (event,) = rolled_back(gateway)
    assert (event["version"], "errorThreshold: 5 requests failed" in event["message"]) == ("2", True)
    assert states(gateway) == {"1": ("ready", 100), "2": ("rolledBack", 0)}
    assert "5 requests failed" in gateway.get("deployments", "m")[0]["versions"][1]["reason"]
    assert "unchanged" in gateway.run("apply", "-f", bad).stdout
    gateway.process.kill()
    gateway.process.wait()
    again = gateway_in()
    with Client(again.unix) as client:
        assert [asked(client) for _ in range(3)] == ["1"] * 3
    assert len(rolled_back(again)) == 1


def test_a_canary_that_fails_is_left_and_nobody_else_notices(folder, gateway_in):
    gateway = gateway_in()
    apply(gateway, folder, "1", 2.0)
    bad = manifest(folder, "m", "2", raising().SerializeToString(), AUTO + "\ntraffic: {percent: 10}")
    assert gateway.run("apply", "-f", bad, "--wait").returncode == 0
    with Client(gateway.unix) as client:
        answers = [asked(client) for _ in range(100)]
    assert (answers.count("failed"), answers.count("1")) == (5, 95)


def test_the_only_version_is_never_left(folder, gateway_in):
    gateway = gateway_in()
    bad = manifest(folder, "m", "2", raising().SerializeToString(), AUTO)
    assert gateway.run("apply", "-f", bad, "--wait").returncode == 0
    with Client(gateway.unix) as client:
        assert [asked(client) for _ in range(12)] == ["failed"] * 12
    kinds = [event["kind"] for event in gateway.get("events", "m")]
    assert (kinds.count("roll-back-impossible"), kinds.count("rolled-back")) == (1, 0)


def test_steps_lead_a_good_version_to_all_traffic(folder, gateway_in):
    gateway = gateway_in()
    apply(gateway, folder, "1", 2.0)
    apply(gateway, folder, "2", 3.0, "traffic: {steps: [20, 50, 100], stepSeconds: 0.5}")
    assert states(gateway)["2"] == ("ready", 20)
    waits = gateway.get("deployments", "m")[0]["versions"][1]
    assert (waits["steps"], "of 20 requests" in waits["reason"]) == ([50, 100], True)
    served(gateway, 10)
    assert "errors p=1" in gateway.run("get", "deployments").stdout  # so far nothing tells it from the current one

    def promoted() -> bool:
        served(gateway, 50)
        return states(gateway)["2"] == ("ready", 100)

    wait_for(promoted, 20, "the last step")
    steps = [e["message"] for e in gateway.get("events", "m") if e["kind"] in ("step", "promoted")]
    assert steps == ["50 %", "100 %, by its steps"]
