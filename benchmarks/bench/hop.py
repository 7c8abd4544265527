"""The hop alone: 0.9 MB from the gateway's end of a link to a worker process and back, against a thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.bench.alternate import TURNS
from benchmarks.bench.cases import CORNER
from benchmarks.bench.effort import Effort
from benchmarks.bench.figures import Reading
from benchmarks.bench.inside import ModelThread, worker_link
from benchmarks.bench.stage import Stage


def once(stage: Stage, effort: Effort, number: int) -> Mapping[str, Reading]:
    del stage
    took = asyncio.run(_round(effort.medium, number))
    parts = {f"{name} us": seconds * 1e6 for name, seconds in took.items()}
    return {"hop": Reading(took["hop"] / took["thread"], parts)}


async def _round(calls: int, number: int) -> dict[str, float]:
    """p50 seconds of the hop, of a thread that does the same, and of one that is spared the copy; in turns."""
    data = memoryview(CORNER.array().tobytes())
    with tempfile.TemporaryDirectory(prefix="edgeway-") as folder, contextlib.ExitStack() as ends:
        path = Path(folder) / "model.onnx"
        path.write_bytes(CORNER.make())
        async with worker_link(path) as link:
            threads = [ModelThread(path, CORNER.input, room) for room in (CORNER.nbytes, 0)]
            for thread in threads:
                ends.callback(thread.close)
            systems = {"hop": link.infer, "thread": threads[0].infer, "thread without copy": threads[1].infer}
            took: dict[str, list[float]] = {name: [] for name in systems}
            order = list(systems) if number % 2 == 0 else list(reversed(systems))
            gc.disable()
            ends.callback(gc.enable)
            for _ in range(TURNS):
                for name in order:
                    took[name] += await _turn(partial(systems[name], CORNER, data), max(2, calls // TURNS))
    return {name: statistics.median(each) for name, each in took.items()}


async def _turn(call: Callable[[], Awaitable[None]], calls: int) -> list[float]:
    took = []
    for _ in range(1 + calls // 8):
        await call()
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return took
