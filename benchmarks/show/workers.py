"""SIGKILL of the CPU worker under load: back within a second, and with a second target nothing fails."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from benchmarks.harness import Gateway, Verdict, manifest, scaled, scratch, wait_for
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

RATE = 60.0
BACK_WITHIN = 1.0


class Load:
    """Requests at a steady rate, each on time whether or not the others are answered."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)
        self._tensor = triton.InferInput("x", [4], "FP32")
        self._tensor.set_data_from_numpy(np.ones(4, np.float32))
        self.outcomes: list[str] = []
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            self._client.async_infer("m", [self._tensor], self._answered, client_timeout=5)
            self.sent += 1
            self._stop.wait(max(0.0, began + self.sent / RATE - time.monotonic()))

    def _answered(self, result: triton.InferResult | None, error: Exception | None) -> None:
        if result is None:
            self.outcomes.append(str(error))
        else:
            self.outcomes.append(result.get_response().parameters["edgeway_target"].string_param)

    def end(self) -> Counter[str]:
        self._stop.set()
        self._thread.join()
        wait_for(lambda: len(self.outcomes) == self.sent, 10, "the last answers")
        return Counter(self.outcomes)


def accelerator(gateway: Control, name: str = "cpu") -> Any:
    return gateway.call("GetAccelerators", control.GetRequest(name=name)).accelerators[0]


def kill_and_time(gateway: Control) -> float:
    """Seconds from SIGKILL until another process of the worker is ready."""
    old = accelerator(gateway).pid
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)

    def back() -> bool:
        now = accelerator(gateway)
        return now.pid not in (0, old) and now.state == "ready"

    wait_for(back, 10, "the worker's return")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    verdict = Verdict(f"SIGKILL of the CPU worker under {RATE:g} requests/s")
    two = {"workers": [{"name": "cpu", "backend": "cpu"}, {"name": "spare", "backend": "simulated"}]}
    for title, config, targets in (
        ("with a second target", two, "[cpu, spare]"),
        ("alone", {"workers": [{"name": "cpu", "backend": "cpu"}]}, "[cpu]"),
    ):
        with scratch() as folder, Gateway(folder, config) as gateway:
            more = f"targets: {targets}\nlatency: {{budgetMs: 500}}"
            path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), more)
            applied = gateway.run("apply", "-f", path, "--wait")
            assert applied.returncode == 0, applied.stderr
            admin = Control(gateway.control)
            load = Load(gateway.unix)
            back = []
            for _ in range(options.kills):
                time.sleep(1.2)
                back.append(kill_and_time(admin))
            time.sleep(0.5)
            outcomes = load.end()
            served = {name: count for name, count in outcomes.items() if name in ("cpu", "spare")}
            failed = sum(outcomes.values()) - sum(served.values())
            verdict.check(
                max(back) <= BACK_WITHIN,
                f"{title}: back after {', '.join(f'{b:.2f}' for b in back)} s (at most {BACK_WITHIN:g} s)",
            )
            other = next((name for name in outcomes if name not in served), "")
            figure = f"{title}: {failed} of {load.sent} failed, served by {served} {other}"
            if title == "alone":
                verdict.control(figure)
            else:
                verdict.check(failed == 0 and len(served) == 2, f"{figure} (none may)")
    verdict.end()


if __name__ == "__main__":
    main()
