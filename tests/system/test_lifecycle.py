"""States of versions through a real gateway: on their way up, and when what they run on has gone or refuses them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import Gateway, manifest, scaled, wait_for
from edgeway.client import Client

pytestmark = pytest.mark.system
X = np.ones(1, np.float32)


def apply(gateway: Gateway, label: str, targets: str, *flags: str, factor: float = 2.0) -> Any:
    content = scaled(factor).SerializeToString()
    path = manifest(gateway.folder, "m", label, content, f"targets: {targets}")
    return gateway.run("apply", "-f", path, *flags)


def version(gateway: Gateway, label: str) -> dict[str, Any]:
    return next(v for v in gateway.get("deployments", "m")[0]["versions"] if v["version"] == label)


def target(gateway: Gateway, worker: str) -> dict[str, Any]:
    return next(t for t in gateway.get("targets", "m") if t["worker"] == worker)


def states(gateway: Gateway, label: str) -> list[str]:
    events = (event for event in gateway.get("events", "m") if event["version"] == label)
    return [event["kind"].removeprefix("version-") for event in events if event["kind"].startswith("version-")]


def served(gateway: Gateway) -> tuple[str, str]:
    """Which version and worker serve."""
    with Client(gateway.unix) as client:
        answer = client.infer("m", {"x": X})
    return answer.version, answer.served_by


def test_a_version_whose_first_runs_take_their_time_is_warming(folder: Path, gateway_in: Callable[..., Gateway]):
    hangs = {"faults": [{"at": 0, "hang": True, "seconds": 3600}]}
    sim = {"name": "sim", "backend": "simulated", "loadSeconds": 3600, "options": hangs}
    gateway = gateway_in({"workers": [sim, {"name": "cpu", "backend": "cpu"}]})
    assert apply(gateway, "1", "[cpu]", "--wait").returncode == 0
    assert states(gateway, "1") == ["verifying", "loading", "warming", "ready"]
    waiting = apply(gateway, "2", "[sim]", "--wait", "--timeout", "3")
    assert (waiting.returncode, "m 2: warming" in waiting.stderr) == (1, True), waiting.stderr
    assert version(gateway, "2")["state"] == "warming"
    wait_for(lambda: re.fullmatch("loading: warming up, [0-9]+ s", target(gateway, "sim")["reason"]), 10, "its words")
    assert served(gateway) == ("1", "cpu")
    os.kill(gateway.worker("sim")["pid"], signal.SIGKILL)
    wait_for(lambda: states(gateway, "2")[-3:] == ["warming", "loading", "warming"], 10, "the second warm-up")


def test_a_version_whose_only_accelerator_can_not_work_here_fails_in_time_and_holds_up_nobody(
    folder: Path, gateway_in: Callable[..., Gateway]
):
    device = {"name": "tpu", "backend": "edgetpu", "loadSeconds": 3}
    gateway = gateway_in({"workers": [device, {"name": "cpu", "backend": "cpu"}]})
    assert gateway.worker("tpu")["state"] == "lost"
    done = apply(gateway, "1", "[tpu]", "--wait", "--timeout", "30")
    assert done.returncode == 1
    assert "m 1: failed: tpu: " in done.stderr, done.stderr
    assert apply(gateway, "1", "[cpu]", "--wait", "--timeout", "30").returncode == 0


def rot(gateway: Gateway, before: bytes) -> None:
    """The stored file changes behind the gateway's back, and the worker that has it starts again."""
    stored = [p for p in (gateway.folder / "state" / "models").glob("*.onnx") if p.read_bytes() == before]
    assert len(stored) == 1
    stored[0].chmod(0o640)
    stored[0].write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.kill(gateway.worker("cpu")["pid"], signal.SIGKILL)


def test_a_version_whose_stored_file_rots_is_not_ready_and_comes_back_when_it_is_applied(
    folder: Path, gateway_in: Callable[..., Gateway]
):
    gateway = gateway_in({"workers": [{"name": "cpu", "backend": "cpu"}]})
    assert apply(gateway, "1", "[cpu]", "--wait", factor=2.0).returncode == 0
    assert apply(gateway, "2", "[cpu]", "--wait", factor=3.0).returncode == 0
    rot(gateway, scaled(3.0).SerializeToString())
    wait_for(lambda: version(gateway, "2")["state"] == "failed", 20, "what is shown of it")
    assert "checksum mismatch" in version(gateway, "2")["reason"]
    wait_for(lambda: version(gateway, "1")["percent"] == 100, 20, "the version before")
    assert served(gateway) == ("1", "cpu")
    assert apply(gateway, "2", "[cpu]", "--wait", factor=3.0).returncode == 0
    assert served(gateway) == ("2", "cpu")
