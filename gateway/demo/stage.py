"""The processes of the demonstration: a gateway of its own, the camera, and the one who kills the accelerator."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control
from gateway.demo.script import Phase, simulation
from gateway.models.manifest_files import load_manifests, to_plain

READY_LIMIT = 60.0
"""Seconds for the gateway to start and the model to load; a cold Raspberry Pi needs ten."""
_LEADS = (3.0, 8.0, 25.0)
"""Seconds given to the start. The simulated accelerator's script runs by the clock, and must begin with the camera:
when the start took longer, it is done again with more."""
MANIFEST = "manifest-1.0.yaml"


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
    return float(facts["1.0"]["accuracy"])


@dataclass(slots=True)
class Stage:
    """A running gateway with the model deployed."""

    gateway: subprocess.Popen[str]
    address: str
    control: Control
    origin: float
    """``time.monotonic()`` at which the script begins."""
    log: Path

    def accelerator(self) -> Any:
        """Status of the simulated worker."""
        response = self.control.call("GetAccelerators", control.GetRequest(name="accelerator"))
        return response.accelerators[0]

    def kill_accelerator(self) -> int:
        """SIGKILL its process; the pid, 0 where it is not there just now."""
        pid = int(self.accelerator().pid)
        if pid:
            os.kill(pid, signal.SIGKILL)
        return pid


@contextlib.contextmanager
def stage(folder: Path, phases: Sequence[Phase]) -> Iterator[Stage]:
    """Start a gateway in ``folder`` and deploy the model; ends everything on leaving.

    Raises:
        StageFailedError
    """
    for number, lead in enumerate(_LEADS):
        own = folder / str(number)
        own.mkdir()
        origin = time.monotonic() + lead
        started = _start(own, phases, origin)
        try:
            _deploy(started)
            if time.monotonic() < origin:
                yield started
                return
        finally:
            _end(started.gateway)
    raise StageFailedError(f"the gateway took more than {_LEADS[-1]:g} s to start")


def _start(folder: Path, phases: Sequence[Phase], origin: float) -> Stage:
    config = {
        "workers": [
            {"name": "cpu", "backend": "cpu", "threads": 1},
            {"name": "accelerator", "backend": "simulated", "threads": 2, "options": simulation(phases, origin)},
        ]
    }
    (folder / "device.yaml").write_text(yaml.safe_dump(config))
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


def _deploy(started: Stage) -> None:
    (manifest,) = load_manifests(digits_folder() / MANIFEST)
    text = json.dumps(to_plain(manifest))
    started.control.call("Apply", control.ApplyRequest(manifests=[text]))
    end = time.monotonic() + READY_LIMIT
    state = ""
    while time.monotonic() < end:
        response = started.control.call("GetDeployments", control.GetRequest(name=manifest.name))
        version = response.deployments[0].versions[0]
        state = f"{version.state} {version.reason}"
        if version.state == "failed":
            break
        targets = started.control.call("GetTargets", control.GetRequest(name=manifest.name)).targets
        if version.state == "ready" and all(target.state == "ready" for target in targets):
            return
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
def camera(started: Stage, seconds: float, rate: float) -> Iterator[Iterator[dict[str, Any]]]:
    """The camera's lines, as they come."""
    command = [sys.executable, "camera.py", "--address", started.address, "--seconds", str(seconds)]
    command += ["--rate", str(rate), "--start", str(started.origin)]
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
