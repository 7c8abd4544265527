"""The tail: an open loop at half the capacity of one model thread, through the gateway and through direct."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.bench.cases import PACED
from benchmarks.bench.effort import Effort
from benchmarks.bench.figures import Reading
from benchmarks.bench.stage import Stage
from benchmarks.load import Class, Sender

RATE = 100.0
LEAD = 0.2
"""Seconds between the word to begin and the first request."""


def once(stage: Stage, effort: Effort, number: int) -> Mapping[str, Reading]:
    systems = [("gateway", stage.gateway.address), ("direct", stage.direct.address)]
    pool = {}
    for name, address in systems if number % 2 == 0 else reversed(systems):
        pool[name] = latencies(address, effort.tail_seconds, number)
    parts = {}
    for name in ("gateway", "direct"):
        parts[f"{name} p50 ms"], parts[f"{name} p99 ms"] = spread(pool[name])
    return {"tail": Reading(ratio(spread(pool["gateway"]), spread(pool["direct"])), parts)}


def latencies(address: str, seconds: float, seed: int) -> list[float]:
    """Seconds of each answered request; the same arrivals for every system in a round.

    Raises:
        RuntimeError: not all were answered.
    """
    sender = Sender(address, [Class("tail", RATE, 0.0, model=PACED.name)], seconds, seed, progress=False)
    sender.begin(time.monotonic() + LEAD)
    samples = sender.samples()
    lost = [sample for sample in samples if sample.outcome != "served"]
    if lost:
        raise RuntimeError(f"{len(lost)} of {len(samples)} requests to {address} failed: {lost[0].message}")
    return [sample.latency for sample in samples]


def spread(seconds: Sequence[float]) -> tuple[float, float]:
    """(p50, p99) in ms."""
    p50, p99 = np.percentile(seconds, (50, 99))
    return float(p50 * 1e3), float(p99 * 1e3)


def ratio(ours: tuple[float, float], bare: tuple[float, float]) -> float:
    """p99 over p50 of the gateway, over that of direct."""
    return (ours[1] / ours[0]) / (bare[1] / bare[0])
