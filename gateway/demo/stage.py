"""The processes of the demonstration: a gateway of its own, and the camera."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control
from gateway.demo.scenario import Scenario, device_config
from gateway.models.manifest_files import load_manifests, to_plain

READY_LIMIT = 60.0
"""Seconds for the gateway to start and the model to load; a cold Raspberry Pi needs ten."""
_LEADS = (3.0, 8.0, 25.0)
"""Seconds given to the start. The simulated accelerator's script runs by the clock, and must begin with the camera:
when the start took longer, it is done again with more."""
VERSION = "1.1"
"""INT8: as right as the FP32 one, and 5 ms where that takes 12 on a slow core, which leaves no room in 20 ms."""
MANIFEST = f"manifest-{VERSION}.yaml"


class StageFailedError(Exception):
    """The demonstration can't be set up; the message is for the user."""


def digits_folder() -> Path:
    """The example with model, frames and camera: in a checkout, or where the wheel put it."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "examples" / "digits", here.parent / "digits"):
        if (folder / "camera.py").exists():
            return folder
    raise StageFailedError("examples/digits is missing: reinstall edgeway")


def stated_accuracy() -> float:
    """What the training measured on held-out frames, 0 to 1."""
    facts = json.loads((digits_folder() / "accuracy.json").read_text())
    return float(facts[VERSION]["accuracy"])


@dataclass(slots=True)
class Stage:
    """A running gateway with the model deployed."""

    gateway: subprocess.Popen[str]
    address: str
    control: Control
    origin: float
    """``time.monotonic()`` at which the script begins."""
    log: Path

    def pid_of(self, worker: str) -> int:
        """Of the worker's process; 0 while it has none."""
        response = self.control.call("GetAccelerators", control.GetRequest(name=worker))
        return int(response.accelerators[0].pid)


@contextlib.contextmanager
def stage(folder: Path, scenario: Scenario) -> Iterator[Stage]:
    """Start a gateway in ``folder`` and deploy the model; ends everything on leaving.

    Raises:
        StageFailedError
    """
    for number, lead in enumerate(_LEADS):
        own = folder / str(number)
        own.mkdir()
        origin = time.monotonic() + lead
        started = _start(own, scenario, origin)
        try:
            _deploy(started, scenario)
            if time.monotonic() < origin:
                yield started
                return
        finally:
            _end(started.gateway)
    raise StageFailedError(f"the gateway took more than {_LEADS[-1]:g} s to start")


def _start(folder: Path, scenario: Scenario, origin: float) -> Stage:
    sensors = folder / "sys"
    sensors.mkdir()
    (folder / "device.yaml").write_text(json.dumps(device_config(scenario, origin, sensors)))
    log = folder / "gateway.log"
    data, own = f"unix:{folder}/infer.sock", f"unix:{folder}/control.sock"
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(folder / "device.yaml"), "--listen", data]
    command += ["--control", own, "--metrics", "off", "--state-dir", str(folder / "state")]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    announced = _first_line(process, READY_LIMIT)
    if not announced:
        _end(process)
        last = (log.read_text().strip().splitlines() or ["no message"])[-1]
        raise StageFailedError(f"the gateway did not start: {last}")
    return Stage(process, data, Control(own), origin, log)


def _first_line(process: subprocess.Popen[str], limit: float) -> str:
    """The ready line; empty when the process ended, or the limit passed, without one."""
    assert process.stdout is not None
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()


def _deploy(started: Stage, scenario: Scenario) -> None:
    (manifest,) = load_manifests(digits_folder() / MANIFEST)
    plain = to_plain(manifest)
    plain["spec"]["latency"]["budgetMs"] = scenario.load.budget_ms
    started.control.call("Apply", control.ApplyRequest(manifests=[json.dumps(plain)]))
    end = time.monotonic() + READY_LIMIT
    state = ""
    while time.monotonic() < end:
        response = started.control.call("GetDeployments", control.GetRequest(name=manifest.name))
        version = response.deployments[0].versions[0]
        state = f"{version.state} {version.reason}".strip()
        if version.state == "failed":
            break
        targets = started.control.call("GetTargets", control.GetRequest(name=manifest.name)).targets
        waiting = [target for target in targets if target.state != "ready"]
        if version.state == "ready" and not waiting:
            return
        state = ", ".join([state, *(f"{target.worker}: {target.state} {target.reason}" for target in waiting)])
        time.sleep(0.05)
    raise StageFailedError(f"the model did not come up: {state}")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def camera(started: Stage, scenario: Scenario) -> Iterator[Iterator[dict[str, Any]]]:
    """The camera's lines, as they come."""
    command = [sys.executable, "camera.py", "--address", started.address, "--seconds", str(scenario.seconds)]
    command += ["--rate", str(scenario.load.rate), "--start", str(started.origin), "--seed", str(scenario.seed)]
    process = subprocess.Popen(command, cwd=digits_folder(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield (json.loads(line) for line in process.stdout)
        if process.wait(10):
            last = (process.stderr.read().strip().splitlines() or ["no message"])[-1]
            raise StageFailedError(f"the camera failed: {last}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
