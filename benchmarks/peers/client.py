"""The client, a process of its own: one pre-built message over a plain gRPC stub, the same for every server.

It takes one task per line of its input and gives one result per line: ``{"do": "check" | "loop" | "open", "address",
"load", ...}``. An error that is no gRPC status ends it.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.peers.loads import LOADS, Region, answer, arrivals, message
from edgeway.v1 import open_inference_pb2 as oip

METHODS = oip.SERVICES["inference.GRPCInferenceService"]
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
"""For glibc: messages of some MB come from memory that it keeps, else each call pays for fresh pages."""
CALL_LIMIT = 30.0
ROOT = Path(__file__).resolve().parents[2]
Call = Callable[[], bytes]


class Client:
    """The process, seen from the one that started it."""

    def __init__(self, models: Path, cpu: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.client", str(models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **MEMORY},
        )
        self.pid = self._process.pid
        os.sched_setaffinity(self.pid, {cpu})

    def ask(self, **task: Any) -> dict[str, Any]:
        """The result of one task.

        Raises:
            Refused: the server answered with an error, or wrongly.
            RuntimeError: the client ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client ended")
        result: dict[str, Any] = json.loads(line)
        if "refused" in result:
            raise Refused(result["code"], result["refused"])
        return result

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=CALL_LIMIT)
        finally:
            self._process.kill()


class Refused(Exception):
    """A server's error. ``code``: the gRPC status; ``WRONG`` for an answer that is not the model's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Caller:
    """Channels, and regions of shared memory with them, kept from task to task."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._channels: dict[str, grpc.Channel] = {}
        self._calls: dict[tuple[str, str], Any] = {}
        self._regions: dict[tuple[str, str], tuple[Region, Any]] = {}
        self._numbers = itertools.count()

    def check(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """One call, whose answer must be the model's; to a ``fresh`` server on a channel of its own."""
        address, load = task["address"], task["load"]
        if task.get("fresh"):
            self._forget(address)
        given = self._infer(address, load)(self._message(address, load), timeout=CALL_LIMIT)
        held = self._regions.get((address, load))
        got = answer(given) if held is None else np.frombuffer(held[1][held[0].given :], np.float32)
        expected = np.load(self._models / f"{LOADS[load].model}.npy").reshape(-1)
        if got.shape != expected.shape or not np.allclose(got, expected, rtol=1e-3, atol=1e-4):
            raise Refused("WRONG", f"{load}: another answer than the model's, {got.shape} {got[:4]}")
        return {}

    def loop(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """One call at a time for ``seconds``: number of calls, and their p50 and p99 in ms."""
        content = self._message(task["address"], task["load"])
        infer, took = self._infer(task["address"], task["load"]), []
        gc.collect()
        gc.disable()
        began = time.perf_counter()
        end = began + task["seconds"]
        while began < end:
            infer(content, timeout=CALL_LIMIT)
            ended = time.perf_counter()
            took.append(ended - began)
            began = ended
        gc.enable()
        p50, p99 = np.percentile(took, [50, 99]) * 1e3
        return {"calls": len(took), "p50": float(p50), "p99": float(p99)}

    def open(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Calls at the times of ``arrivals``; p50 and p99 in ms from the time at which each was due.

        What ends in an error counts as the longest wait of all.
        """
        plan = list(arrivals(task["rate"], task["seconds"], task["seed"]))
        content, infer = self._message(task["address"], task["load"]), self._infer(task["address"], task["load"])
        ended = [float("nan")] * len(plan)
        done = threading.Semaphore(0)

        def note(index: int, call: Any) -> None:
            if call.code() is grpc.StatusCode.OK:
                ended[index] = time.perf_counter()
            done.release()

        gc.collect()
        gc.disable()
        began, late = time.perf_counter() + 0.1, 0.0
        for index, due in enumerate(plan):
            time.sleep(max(0.0, began + due - time.perf_counter()))
            late = max(late, time.perf_counter() - began - due)
            call = infer.future(content, timeout=CALL_LIMIT)
            call.add_done_callback(lambda ended, index=index: note(index, ended))
        for _ in plan:
            done.acquire()
        gc.enable()
        took = np.array(ended) - began - np.array(plan)
        errors = int(np.isnan(took).sum())
        took[np.isnan(took)] = CALL_LIMIT
        p50, p99 = np.percentile(took, [50, 99]) * 1e3
        return {"calls": len(plan), "errors": errors, "p50": float(p50), "p99": float(p99), "late": late * 1e3}

    def _channel(self, address: str) -> grpc.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.insecure_channel(address, OPTIONS)
        return self._channels[address]

    def _forget(self, address: str) -> None:
        channel = self._channels.pop(address, None)
        if channel is not None:
            channel.close()
        self._calls = {key: call for key, call in self._calls.items() if key[0] != address}
        for key in [key for key in self._regions if key[0] == address]:
            self._regions.pop(key)[0].remove()

    def _infer(self, address: str, load: str) -> Any:
        if (address, load) not in self._calls:
            self._calls[address, load] = self._channel(address).unary_unary(METHODS["ModelInfer"].path)
        return self._calls[address, load]

    def _message(self, address: str, load: str) -> bytes:
        if not LOADS[load].shared:
            return message(LOADS[load].model)
        if (address, load) not in self._regions:
            region = Region(f"peers-{os.getpid()}-{next(self._numbers)}", LOADS[load].model)
            self._regions[address, load] = region, region.map()
            register: Any = self._channel(address).unary_unary(METHODS["SystemSharedMemoryRegister"].path)
            register(region.registration(), timeout=CALL_LIMIT)
        return self._regions[address, load][0].message()

    def close(self) -> None:
        for region, _ in self._regions.values():
            region.remove()
        for channel in self._channels.values():
            channel.close()


def main() -> None:
    caller = Caller(Path(sys.argv[1]))
    try:
        for line in sys.stdin:
            task = json.loads(line)
            try:
                result = {"check": caller.check, "loop": caller.loop, "open": caller.open}[task["do"]](task)
            except grpc.RpcError as failed:
                result = {"refused": failed.details() or "", "code": failed.code().name}
            except Refused as failed:
                result = {"refused": str(failed), "code": failed.code}
            print(json.dumps(result), flush=True)
    finally:
        caller.close()


if __name__ == "__main__":
    main()
