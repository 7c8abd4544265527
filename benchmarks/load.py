"""The sender: a process of its own that asks at the given times, whatever became of the questions before.

Arrivals are Poisson and wait for nobody; each latency counts from the moment of the actual send. Requests are encoded
before the load begins and answers read after it has ended, so that the sender takes as little as it can of the cores
that it shares with gateway and workers. How late it was itself is part of each sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from edgeway import parameters as names
from edgeway.v1 import open_inference_pb2 as oip

METHODS = oip.SERVICES["inference.GRPCInferenceService"]
PRIORITIES = {"high": 2, "normal": 5, "low": 8}
FACTS = (
    names.VERSION,
    names.TARGET,
    names.ACCELERATOR,
    names.KIND,
    names.DEGRADED,
    names.REASON,
    names.QUEUE_US,
    names.COMPUTE_US,
    names.TOTAL_US,
    names.BUDGET_LEFT_US,
)
"""Parameters that every answer must carry."""
PATIENCE = 1.0
"""Seconds past the budget that the sender waits: what comes late is to be seen, not cut off."""
REFUSED_PAUSE = 0.005
"""Seconds that a caller of a closed loop waits after a refusal, so that it does not only get refusals."""
DTYPES = {"FP32": np.float32, "INT32": np.int32}
START_LIMIT = 30.0
PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Class:
    """One class of callers."""

    name: str
    rate: float
    """Requests per second; 0: a closed loop of ``callers``."""
    budget_ms: float
    """0: what deployment or gateway say."""
    priority: int = 0
    model: str = "m"
    degrade: str = ""
    callers: int = 0
    values: tuple[float, ...] = (1.0,)
    """Of the input ``x``."""
    datatype: str = "FP32"
    windows: tuple[tuple[float, float], ...] = ()
    """Stretches of the load, in seconds, in which it asks; none: always."""

    def message(self) -> bytes:
        """Its request."""
        request = oip.ModelInferRequest(model_name=self.model)
        tensor = np.array(self.values, DTYPES[self.datatype])
        request.inputs.add(name="x", datatype=self.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.tobytes())
        if self.budget_ms:
            request.parameters[names.TIMEOUT].int64_param = int(self.budget_ms * 1e3)
        if self.priority:
            request.parameters[names.PRIORITY].int64_param = self.priority
        if self.degrade:
            request.parameters[names.DEGRADE].string_param = self.degrade
        return request.SerializeToString()


@dataclass(frozen=True)
class Sample:
    """One request. Seconds; ``sent`` since the start of the load."""

    caller: str
    sent: float
    latency: float
    budget: float
    """0: the caller gave none."""
    outcome: str
    """``served``; ``refused``: the gateway said no within the budget, or shed it; ``expired``: it said no after the
    budget was over; ``failed``: anything else.
    """
    target: str = ""
    reason: str = ""
    degraded: bool = False
    queue: float = 0.0
    compute: float = 0.0
    total: float = 0.0
    """The gateway's time, by its own account."""
    missing: str = ""
    """Names of response parameters that the answer lacks."""
    code: str = "OK"
    message: str = ""
    min_budget: float = 0.0
    """On a refusal: the smallest budget that could be met; 0: not said."""
    delay: float = 0.0
    """How much later than planned it was sent."""

    @property
    def in_budget(self) -> bool:
        return self.outcome == "served" and (not self.budget or self.latency <= self.budget)

    @property
    def answered(self) -> float:
        """When the caller knew, seconds since the start of the load."""
        return self.sent + self.latency


class Sender:
    """The process. ``begin`` starts the load, ``samples`` waits for its end."""

    def __init__(
        self, address: str, classes: Sequence[Class], seconds: float, seed: int = 1, progress: bool = True
    ) -> None:
        """Returns once it is connected. ``progress``: say on stderr how far it is, every few seconds.

        Raises:
            RuntimeError: it does not get ready.
        """
        self.seconds = seconds
        self.began = 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        task = {"address": address, "classes": [asdict(c) for c in classes], "seconds": seconds, "seed": seed}
        task["progress"] = progress
        self._tell(json.dumps(task))
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            self.close()
            raise RuntimeError(f"no load: nobody answers at {address}")

    def begin(self, at: float) -> None:
        """``at``: monotonic seconds of the load's zero."""
        self.began = at
        self._tell(repr(at))

    def samples(self) -> list[Sample]:
        """All, once the last one is answered."""
        rest, _ = self._process.communicate(timeout=self.began + self.seconds - time.monotonic() + START_LIMIT)
        if self._process.returncode:
            raise RuntimeError(f"the sender ended with {self._process.returncode}")
        return [Sample(**json.loads(line)) for line in rest.splitlines()]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def arrivals(each: Class, index: int, seconds: float, seed: int) -> Iterator[tuple[float, int]]:
    """Poisson arrivals of a class, in seconds since the start; the same seed gives the same."""
    chance = random.Random(f"{seed} {each.name}")
    at = 0.0
    while each.rate:
        at += chance.expovariate(each.rate)
        if at >= seconds:
            return
        if not each.windows or any(start <= at < end for start, end in each.windows):
            yield at, index


@dataclass(slots=True)
class _Row:
    """What is noted while the load runs; read afterwards."""

    index: int
    planned: float
    sent: float
    ended: float
    answer: bytes
    error: grpc.aio.AioRpcError | None


class _Load:
    def __init__(self, infer: Any, classes: Sequence[Class], seconds: float, seed: int, shown: bool) -> None:
        self.classes = classes
        self.rows: list[_Row] = []
        self._infer = infer
        self._seconds = seconds
        self._seed = seed
        self._shown = shown
        self._messages = [each.message() for each in classes]
        self._limits = [(each.budget_ms or 5000.0) / 1e3 + PATIENCE for each in classes]
        self._began = 0.0
        self._sent = 0

    async def play(self, began: float) -> None:
        self._began = began
        progress = asyncio.create_task(self._progress()) if self._shown else None
        loops = [
            asyncio.create_task(self._loop(index))
            for index, each in enumerate(self.classes)
            for _ in range(each.callers)
        ]
        asked: set[asyncio.Task[None]] = set()
        plan = [arrivals(each, index, self._seconds, self._seed) for index, each in enumerate(self.classes)]
        for at, index in heapq.merge(*plan):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            task = asyncio.create_task(self._ask(index, at))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked, *loops)
        if progress is not None:
            progress.cancel()

    async def _loop(self, index: int) -> None:
        await asyncio.sleep(max(0.0, self._began - time.monotonic()))
        while (at := time.monotonic() - self._began) < self._seconds:
            await self._ask(index, at)
            if self.rows[-1].error is not None:
                await asyncio.sleep(REFUSED_PAUSE)

    async def _ask(self, index: int, planned: float) -> None:
        self._sent += 1
        sent = time.monotonic()
        try:
            answer = await self._infer(self._messages[index], timeout=self._limits[index])
        except grpc.aio.AioRpcError as failed:
            self.rows.append(_Row(index, planned, sent, time.monotonic(), b"", failed))
        else:
            self.rows.append(_Row(index, planned, sent, time.monotonic(), answer, None))

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            at, errors = time.monotonic() - self._began, sum(row.error is not None for row in self.rows)
            said = f"    {max(0.0, at):3.0f} of {self._seconds:g} s: {self._sent} sent, {errors} without an answer"
            print(said, file=sys.stderr, flush=True)

    def samples(self) -> Iterator[Sample]:
        for row in self.rows:
            each = self.classes[row.index]
            sent, latency, budget = row.sent - self._began, row.ended - row.sent, each.budget_ms / 1e3
            delay = sent - row.planned
            facts = _refusal(row.error, latency, budget) if row.error is not None else _answer(row.answer)
            yield Sample(each.name, sent, latency, budget, delay=delay, **facts)


def _answer(content: bytes) -> dict[str, Any]:
    """What the answer's parameters say."""
    facts = oip.ModelInferResponse.FromString(content).parameters
    return {
        "outcome": "served",
        "target": facts[names.TARGET].string_param if names.TARGET in facts else "",
        "reason": facts[names.REASON].string_param if names.REASON in facts else "",
        "degraded": facts[names.DEGRADED].bool_param if names.DEGRADED in facts else False,
        "queue": _seconds(facts, names.QUEUE_US),
        "compute": _seconds(facts, names.COMPUTE_US),
        "total": _seconds(facts, names.TOTAL_US),
        "missing": " ".join(name for name in FACTS if name not in facts),
    }


def _seconds(facts: Mapping[str, Any], name: str) -> float:
    return facts[name].int64_param / 1e6 if name in facts else 0.0


def _refusal(error: grpc.aio.AioRpcError, latency: float, budget: float) -> dict[str, Any]:
    """What the trailing metadata say."""
    facts = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    code, message = error.code(), error.details() or ""
    total = float(facts.get(names.metadata_key(names.TOTAL_US), 0)) / 1e6
    outcome = "failed"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        outcome = "refused"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        outcome = "refused" if not budget or (total or latency) <= budget else "expired"
    return {
        "outcome": outcome,
        "reason": facts.get(names.metadata_key(names.REASON), ""),
        "total": total,
        "min_budget": float(facts.get(names.metadata_key(names.MIN_BUDGET_US), 0)) / 1e6,
        "code": code.name,
        "message": message[:160],
    }


async def _serve(task: Mapping[str, Any]) -> None:
    classes = [
        Class(**{**each, "values": tuple(each["values"]), "windows": tuple(map(tuple, each["windows"]))})
        for each in task["classes"]
    ]
    address = task["address"]
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        live: Any = channel.unary_unary(METHODS["ServerLive"].path)
        for _ in range(20):  # the connection is there, and the code is warm
            await live(b"", timeout=START_LIMIT)
        infer: Any = channel.unary_unary(METHODS["ModelInfer"].path)
        load = _Load(infer, classes, task["seconds"], task["seed"], task["progress"])
        print("ready", flush=True)
        began = float(await asyncio.to_thread(sys.stdin.readline))
        gc.collect()
        gc.disable()  # a collection of the noted answers would hold up the sender for milliseconds
        await load.play(began)
    sys.stdout.writelines(json.dumps(asdict(sample)) + "\n" for sample in load.samples())


if __name__ == "__main__":
    # Where it may: a sender that waits for a core measures itself. It sleeps most of the time and takes little.
    with contextlib.suppress(PermissionError):
        os.nice(-10)
    asyncio.run(_serve(json.loads(sys.stdin.readline())))
