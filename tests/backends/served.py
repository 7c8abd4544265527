"""Models on the real workers of a gateway, and what it says of them."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import numpy as np

from benchmarks.harness import Gateway, manifest, wait_for
from edgeway.client import Client
from edgeway.client.result import Result

SETTLED = 60.0
"""Seconds within which a target is ready or refused; an emulator takes half a second when it is alone."""


class Served:
    """A gateway, and a worker of it that is looked at."""

    def __init__(self, gateway: Gateway, worker: str) -> None:
        self.gateway = gateway
        self.worker = worker

    def deploy(self, name: str, content: bytes, targets: str = "") -> None:
        """It is ready on the CPU then, at least. ``targets``: default: the worker, then the CPU."""
        path = manifest(self.gateway.folder, name, "1", content, f"targets: {targets or f'[{self.worker}, cpu]'}")
        self.gateway.deploy(path, SETTLED)

    def target(self, name: str, worker: str = "") -> dict[str, Any]:
        """Once it has loaded the model, or failed to."""
        worker = worker or self.worker

        def settled() -> Any:
            found = [target for target in self.gateway.get("targets", name) if target["worker"] == worker]
            return found and found[0]["state"] in ("ready", "lost") and found[0]

        return dict(wait_for(settled, SETTLED, f"{name} on {worker}"))

    def ask(self, name: str, x: np.ndarray) -> tuple[np.ndarray, Result]:
        with Client(self.gateway.unix) as client:
            answer = client.infer(name, {"x": x}, budget_ms=1e3 * SETTLED)
        return answer["y"], answer

    def replace(self) -> None:
        """Kill the worker; another takes its place."""
        old = self.gateway.worker(self.worker)["pid"]
        os.kill(old, signal.SIGKILL)

        def replaced() -> bool:
            now = self.gateway.worker(self.worker)
            return now["pid"] != old and now["state"] == "ready"

        wait_for(replaced, SETTLED, "another process")

    def doctor(self, backend: str, *arguments: str) -> dict[str, Any]:
        """Its row."""
        done = self.gateway.run("doctor", "-o", "json", *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return dict(next(row for row in json.loads(done.stdout) if row["backend"] == backend))
