"""Remote targets killed and stopped mid-traffic: with a local target left nothing fails, and they are taken back.

A second Edgeway always; Triton too where its environment is (``make peers-env``, 1.5 GB).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from benchmarks.harness import Gateway, Verdict, alive, descendants, manifest, put, scaled, scratch, wait_for
from benchmarks.peers import environments, servers
from benchmarks.show.workers import accelerator
from gateway.cli.control import Control

RATE = 100.0
BUDGET_MS = 500
STILL = 4.0
"""Seconds that it is stopped."""
LOST_WITHIN = {"kill": 1.0, "stop": 4.0}
"""Seconds until its state says so. One that is stopped is found out when a look at it, one a second, takes 2 s."""
X = np.arange(8, dtype=np.float32)
CONFIG = """
name: "m"
backend: "python"
max_batch_size: 0
input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""


class Load:
    """Requests at a steady rate, each on time whether or not the others are answered; answers are checked."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)
        self._tensor = triton.InferInput("x", list(X.shape), "FP32")
        self._tensor.set_data_from_numpy(X)
        self.outcomes: list[str] = []
        self.late = 0
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            self._client.async_infer("m", [self._tensor], self._answered, client_timeout=5, timeout=BUDGET_MS * 1000)
            self.sent += 1
            self._stop.wait(max(0.0, began + self.sent / RATE - time.monotonic()))

    def _answered(self, result: triton.InferResult | None, error: Exception | None) -> None:
        if result is None:
            self.outcomes.append(f"error: {error}")
        elif result.as_numpy("y").tolist() != (2 * X).tolist():
            self.outcomes.append("error: a wrong answer")
        else:
            said = result.get_response().parameters
            self.late += said["edgeway_budget_left_us"].int64_param < 0
            self.outcomes.append(said["edgeway_target"].string_param)

    def latest(self) -> str:
        return self.outcomes[-1] if self.outcomes else ""

    def end(self) -> Counter[str]:
        self._stop.set()
        self._thread.join()
        wait_for(lambda: len(self.outcomes) == self.sent, 10, "the last answers")
        return Counter(self.outcomes)


class Edgeway:
    """Another gateway with the model."""

    def __init__(self, folder: Path) -> None:
        put(folder / "models", "m", scaled(2.0))
        config = {"workers": [{"name": "cpu", "backend": "cpu"}]}
        self._gateway = Gateway(folder, config, ["--model-repository", str(folder / "models")])
        self._gateway.tcp = f"127.0.0.1:{servers.free_port()}"
        self.url = self._gateway.tcp

    def start(self) -> None:
        self._gateway.start()

    @property
    def pid(self) -> int:
        assert self._gateway.process is not None
        return self._gateway.process.pid

    def bury(self) -> None:
        self._gateway.stop()


class Triton:
    """The server of nvidia-pytriton with the model in its Python backend."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = servers.free_port()
        self.url = f"127.0.0.1:{self._port}"
        put(folder / "models", "m", scaled(2.0))
        shutil.copy(servers.repository.SERVING / "triton_model.py", folder / "models" / "m" / "1" / "model.py")
        (folder / "models" / "m" / "config.pbtxt").write_text(CONFIG)
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: list[int] = []

    def start(self) -> None:
        launch = servers.triton_server(self._folder / "models", self._folder, self._port)
        environment = {key: each for key, each in os.environ.items() if key != "PYTHONPATH"} | dict(launch.environment)
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                launch.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self._folder
            )
        wait_for(self._listens, 60, "the start of Triton")
        self._pids = [self.pid, *descendants(self.pid)]

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / "log").read_text()[-2000:])
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self._port)) == 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def bury(self) -> None:
        assert self._process is not None
        for pid in filter(alive, self._pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        for left in servers.PLACES.glob(f"*{self._folder.name}*"):
            left.unlink(missing_ok=True)


KINDS: dict[str, Callable[[Path], Any]] = {"edgeway": Edgeway, "triton": Triton}


@contextlib.contextmanager
def pair(kind: str, targets: str) -> Iterator[tuple[Any, Gateway]]:
    """The other server, and a gateway that has it as its first target."""
    with scratch() as there, scratch() as here:
        far = KINDS[kind](there)
        far.start()
        try:
            workers = [{"name": "far", "backend": "remote", "options": {"url": far.url}}]
            workers.append({"name": "cpu", "backend": "cpu"})
            with Gateway(here, {"workers": workers}) as gateway:
                more = f"targets: {targets}\nlatency: {{budgetMs: {BUDGET_MS}}}"
                path = manifest(here, "m", "1", scaled(2.0).SerializeToString(), more)
                applied = gateway.run("apply", "-f", path, "--wait")
                assert applied.returncode == 0, applied.stderr
                wait_for(lambda: gateway.get("targets", "m")[0]["state"] == "ready", 20, "the remote target")
                yield far, gateway
        finally:
            far.bury()


def trouble(far: Any, gateway: Gateway, load: Load, how: str) -> tuple[float, float]:
    """Seconds until it is said to be lost, and from when it is there again until it serves again."""
    admin = Control(gateway.control)
    began = time.monotonic()
    os.kill(far.pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    wait_for(lambda: accelerator(admin, "far").state == "lost", 10, "the loss")
    lost = time.monotonic() - began
    if how == "kill":
        far.bury()
        far.start()
    else:
        time.sleep(max(0.0, began + STILL - time.monotonic()))
        os.kill(far.pid, signal.SIGCONT)
    there = time.monotonic()
    wait_for(lambda: load.latest() == "far", 40, "the return")
    return lost, time.monotonic() - there


def show(kind: str, kills: int, control: bool, verdict: Verdict) -> None:
    with pair(kind, "[far, cpu]") as (far, gateway):
        load = Load(gateway.unix)
        try:
            wait_for(lambda: load.latest() == "far", 10, "the first answers")
            seen = []
            for how in ["kill"] * kills + ["stop"]:
                time.sleep(1.0)
                seen.append((how, *trouble(far, gateway, load, how)))
            time.sleep(1.0)
        finally:
            outcomes = load.end()
        served = {name: count for name, count in outcomes.items() if name in ("far", "cpu")}
        failed = sum(outcomes.values()) - sum(served.values())
        first = next((name for name in outcomes if name not in served), "")
        verdict.check(
            failed == 0 and len(served) == 2,
            f"{kind}: {failed} of {load.sent} failed (none may), {load.late} late, served by {served} {first}",
        )
        for how, lost, back in seen:
            verdict.check(
                lost <= LOST_WITHIN[how],
                f"{kind}: {how}: lost after {lost:.2f} s (at most {LOST_WITHIN[how]:g} s), "
                f"serves again {back:.2f} s after it is there",
            )
    if control:
        with pair(kind, "[far]") as (far, gateway):
            load = Load(gateway.unix)
            time.sleep(1)
            os.kill(far.pid, signal.SIGKILL)
            time.sleep(1)
            outcomes = load.end()
            failed = sum(count for name, count in outcomes.items() if name.startswith("error"))
            verdict.control(f"{kind} with no local target: {failed} of {load.sent} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--no-control", action="store_true")
    options = parser.parse_args()
    verdict = Verdict(f"a remote target killed and stopped under {RATE:g} requests/s, budget {BUDGET_MS} ms")
    for kind in [options.only] if options.only else KINDS:
        if kind == "triton" and not (environments.FOLDER / "triton" / ".installed").exists():
            print("  no Triton here: `python -m benchmarks.peers.environments triton` installs it (1.5 GB)")
            continue
        show(kind, options.kills, not options.no_control, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
