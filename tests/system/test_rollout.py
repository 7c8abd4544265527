"""Promotion, roll-back and shares by command, and what survives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import manifest, scaled
from edgeway.client import Client

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
