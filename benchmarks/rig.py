"""The rig of the shows: a simulated accelerator, a CPU worker with one instance, a gateway, and a deployed model."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import onnx
from google.protobuf.message import Message

from benchmarks.harness import Gateway, manifest, scratch, slow_for, wait_for
from benchmarks.load import METHODS
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

SERVICE_MS = 3.0
"""Whole time of a run on the simulated accelerator."""
COMPUTE_SECONDS = 0.002
"""What the model really computes, on either worker."""
LEADS = (2.5, 8.0, 30.0)
"""Seconds given to gateway and model to come up before the script of the simulated worker begins; when they took
longer, all is started again with more."""
READY_LIMIT = 60.0
SENSORS = "sys"
"""Folder of a rig in which fake sensors are: what ``$SYSFS`` stands for in a device config."""


def workers(sim: Mapping[str, Any] | None = None, **of_sim: Any) -> dict[str, Any]:
    """Device config of the rig. ``sim``: options of the simulated accelerator; ``of_sim``: settings of its worker."""
    return {
        "heat": {"sysfsRoot": "$SYSFS"},  # never this machine's own sensors
        "workers": [
            {"name": "sim", "backend": "simulated", "options": {"serviceMs": SERVICE_MS, **(sim or {})}, **of_sim},
            {"name": "cpu", "backend": "cpu", "instances": 1},
        ],
    }


@dataclass
class Rig:
    """What runs. ``origin``: monotonic seconds at which the simulated worker's script, and so the load, begins."""

    folder: Path
    gateway: Gateway
    control: Control
    origin: float
    deployed: list[str] = field(default_factory=list)

    def accelerator(self, name: str = "sim") -> control.AcceleratorStatus:
        return self.accelerators(name)[0]

    def accelerators(self, name: str = "") -> Sequence[control.AcceleratorStatus]:
        answer = self.control.call("GetAccelerators", control.GetRequest(name=name))
        return list(answer.accelerators)

    def targets(self, name: str = "m") -> Sequence[control.TargetStatus]:
        return list(self.control.call("GetTargets", control.GetRequest(name=name)).targets)

    def events(self, kind: str = "") -> Sequence[control.Event]:
        events = self.control.call("GetEvents", control.GetRequest()).events
        return [event for event in events if kind in ("", event.kind)]

    def kill(self, name: str = "sim", how: signal.Signals = signal.SIGKILL) -> int:
        """Send its process a signal; the pid."""
        pid = int(self.accelerator(name).pid)
        os.kill(pid, how)
        return pid

    def deploy(self, name: str, model: onnx.ModelProto, spec: str) -> None:
        """Apply, and wait until every target has it."""
        path = manifest(self.folder, name, "1", model.SerializeToString(), spec, "simulated")
        self.gateway.deploy(path, READY_LIMIT)
        self.deployed.append(name)
        wait_for(
            lambda: all(not t.reason.startswith("loading") for t in self.targets(name)),
            READY_LIMIT,
            "the load on all targets",
        )


def in_flight(gateway: Gateway, worker: str = "cpu") -> int:
    """Requests that a worker has; asked without a process of its own, which would take longer than a run."""
    answer = Control(gateway.control).call("GetAccelerators", control.GetRequest(name=worker))
    return int(answer.accelerators[0].in_flight)


@contextlib.contextmanager
def rig(
    device: Mapping[str, Any] | None = None,
    spec: str = "targets: [sim, cpu]",
    model: onnx.ModelProto | None = None,
    flags: Sequence[str] = (),
    prepare: Callable[[Path], None] | None = None,
    scripted: bool = True,
) -> Iterator[Rig]:
    """A gateway with the model ``m``. ``prepare(folder)`` is called before the gateway starts.

    ``$SYSFS`` in the device config becomes the folder ``SENSORS`` of the rig.

    ``scripted``: the simulated workers' scripts begin at ``Rig.origin``, which lies ahead when the rig is handed over.
    """
    model = model or slow_for(COMPUTE_SECONDS)
    for lead in LEADS:
        with scratch() as folder:
            if prepare is not None:
                prepare(folder)
            origin = time.monotonic() + lead if scripted else 0.0
            with Gateway(folder, _placed(device or workers(), folder, origin), flags) as gateway:
                on = Rig(folder, gateway, Control(gateway.control), origin)
                on.deploy("m", model, spec)
                if not scripted or time.monotonic() < origin:
                    yield on
                    return
    raise RuntimeError(f"the gateway took more than {LEADS[-1]:g} s to come up")


def _placed(device: Mapping[str, Any], folder: Path, origin: float) -> dict[str, Any]:
    """The config with the scripts' origin, and the folder of fake sensors in the place of ``$SYSFS``."""
    config: dict[str, Any] = _filled(dict(device), str(folder / SENSORS))
    for worker in config.get("workers", ()):
        if worker["backend"] == "simulated" and origin:
            worker["options"] = {"origin": origin, **worker.get("options", {})}
    return config


def _filled(value: Any, sensors: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, sensors) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, sensors) for each in value]
    return sensors if value == "$SYSFS" else value


class Caller:
    """One call at a time over a channel of its own, as the plainest stock client would."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.enable_retries", 0)])
        self._live: Any = self._channel.unary_unary(METHODS["ServerLive"].path)
        self._infer: Any = self._channel.unary_unary(METHODS["ModelInfer"].path)

    def live(self) -> float:
        """Seconds of an empty call."""
        began = time.perf_counter()
        self._live(b"", timeout=5)
        return time.perf_counter() - began

    def infer(self, message: bytes) -> tuple[float, bytes, Any]:
        """(seconds, answer, the error if there was none)."""
        began = time.perf_counter()
        try:
            answer = self._infer(message, timeout=10)
        except grpc.RpcError as failed:
            return time.perf_counter() - began, b"", failed
        return time.perf_counter() - began, answer, None

    def ask(self, rpc: str, request: Message) -> Any:
        """The response of another RPC."""
        answer: Any = self._channel.unary_unary(METHODS[rpc].path)(request.SerializeToString(), timeout=10)
        return METHODS[rpc].response.FromString(answer)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far; a tick of the kernel's accounting is 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
